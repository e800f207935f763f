"""The program behind every stand-in command: `program.py FOLDER NAME ARGUMENTS...`.

Standard library only. Its texts are what SLURM 22.05 printed. What it does not know it refuses, and
notes in `refused`, so that a test fails that made it happen.
"""

# ruff: noqa: T201

import json
import os
import sys
from pathlib import Path

RECORD, FIELD = "\x1e", "\x1f"

QUEUE = ("%A", "%T", "%r", "%S", "%e", "%N", "%P", "%V", "%o", "%k")
HISTORY = "JobIDRaw,State,ExitCode,Start,End,NodeList,Partition,Submit,JobName,Comment"

UNREACHABLE = "Unable to contact slurm controller (connect failure)"

JOB = (
    "JobId={id} JobName={name} UserId=user(1000) GroupId=user(1000) MCS_label=N/A Priority=4294901759 "
    "Nice=0 Account=(null) QOS=(null) JobState={state} Reason={reason} Dependency=(null) Requeue=1 "
    "Restarts=0 BatchFlag=1 Reboot=0 ExitCode={exit_code} RunTime=00:00:00 TimeLimit=1-00:00:00 "
    "TimeMin=N/A SubmitTime=2026-11-22T16:43:41 Partition=gpu AllocNode:Sid=localhost:16816 "
    "ReqNodeList=(null) ExcNodeList=(null) NodeList={node} BatchHost={node} NumNodes=1 NumCPUs=1 "
    "NumTasks=1 CPUs/Task=1 ReqB:S:C:T=0:0:*:* TRES=cpu=1,mem=8000M,node=1,billing=1 Socks/Node=* "
    "Command=/x/rl.sbatch WorkDir=/x Comment={comment}  StdErr=/x/job_1.log StdIn=/dev/null "
    "StdOut=/x/job_1.log Power= TresPerNode=gres:gpu:h100:1 "
)


def fail(code, *lines):
    print(*lines, sep="\n", file=sys.stderr)
    sys.exit(code)


def main():
    folder, name, arguments = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    state = json.loads((folder / "state.json").read_text())
    with (folder / "calls.jsonl").open("a") as calls:
        entry = {"program": name, "argv": arguments, "environment": dict(os.environ)}
        calls.write(json.dumps(entry) + "\n")
    if name in state["answers"]:
        answer = state["answers"][name]
        sys.stdout.write(answer["stdout"])
        fail(answer["code"], answer["stderr"])
    PLAYED[name](folder, state, arguments)


def refuse(folder, name, arguments):
    with (folder / "refused").open("a") as file:
        file.write(f"{name} {arguments}\n")
    fail(255, f"{name}: unrecognized option {arguments}", f'Try "{name} --help" for more information')


def sbatch(folder, state, arguments):
    if len(arguments) != 2 or arguments[0] != "--parsable":
        refuse(folder, "sbatch", arguments)
    text = Path(arguments[1]).read_text()
    if not state["up"]:
        fail(1, f"sbatch: error: Batch job submission failed: {UNREACHABLE}")
    for line in text.splitlines():
        partition = line.removeprefix("#SBATCH --partition=")
        if partition not in (line, *state["partitions"]):
            fail(
                1,
                f"sbatch: error: invalid partition specified: {partition}",
                "sbatch: error: Batch job submission failed: Invalid partition name specified",
            )
    print("17;west" if state["cluster"] else "17")


def scontrol(folder, state, arguments):
    where = ["-M", state["cluster"]] if state["cluster"] else []
    if arguments[:-1] != [*where, "-o", "show", "job"]:
        refuse(folder, "scontrol", arguments)
    if not state["up"]:
        fail(1, f"slurm_load_jobs error: {UNREACHABLE}")
    job = state["jobs"].get(arguments[-1])
    if job is None:
        fail(1, "slurm_load_jobs error: Invalid job id specified")
    known = {"id": arguments[-1], "name": "reverse", "reason": "None", "exit_code": "0:0", "node": "node1"}
    line = JOB.format(**{**known, "comment": "", **job})
    print(line if job.get("comment") else line.replace(" Comment= ", ""))


def sacct(folder, state, arguments):
    where = ["-M", state["cluster"]] if state["cluster"] else []
    if arguments[-2:] == ["-o", HISTORY]:
        head, columns = [*where, "-n", "-X", "-P", f"--delimiter={FIELD}", "-j"], history
    else:
        head, columns = [*where, "-n", "-X", "-P", "-j"], None
    if arguments[: len(head)] != head or len(arguments) != len(head) + 3:
        refuse(folder, "sacct", arguments)
    if columns is None and arguments[-2:] != ["-o", "JobIDRaw,State,ExitCode,NodeList"]:
        refuse(folder, "sacct", arguments)
    if state["accounting"] is None:
        fail(1, "Slurm accounting storage is disabled")
    asked = arguments[len(head)].split(",")
    for row in state["accounting"]:
        if columns is None:
            print(row)
        elif history(row)[0] in asked:
            print(FIELD.join(history(row)))


def history(row):
    """A row as the longer question gets it: from a table, or from a row of the shorter one."""
    if isinstance(row, str):
        row = dict(zip(("id", "state", "exit_code", "node"), row.split("|"), strict=True))
    known = {"start": "Unknown", "end": "Unknown", "partition": "gpu", "name": "reverse", "comment": ""}
    known |= {"submit": "2026-11-22T16:43:41", "exit_code": "0:0", "node": "node1", **row}
    names = ("id", "state", "exit_code", "start", "end", "node", "partition", "submit", "name", "comment")
    return [known[name] for name in names]


def sinfo(folder, state, arguments):
    if arguments != ["-h", "-a", "-o", "%R"]:
        refuse(folder, "sinfo", arguments)
    if not state["up"]:
        fail(1, f"slurm_load_partitions: {UNREACHABLE}")
    print("\n".join(state["partitions"]))


def squeue(folder, state, arguments):
    where = ["-M", state["cluster"]] if state["cluster"] else []
    everything = [*where, "-h", "-a", "-t", "all", "-u", str(os.geteuid()), "-o", RECORD + FIELD.join(QUEUE)]
    if arguments not in ([*where, "-h", "-u", str(os.geteuid()), "-o", "%A|%T|%k"], everything):
        refuse(folder, "squeue", arguments)
    if not state["up"]:
        fail(1, f"slurm_load_jobs error: {UNREACHABLE}")
    for job_id, job in state["jobs"].items():
        if arguments == everything:
            print(RECORD + FIELD.join(queued(job_id, job)))
        elif job["state"] in {"PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING"}:
            print(f"{job_id}|{job['state']}|{job.get('comment') or '(null)'}")


def queued(job_id, job):
    known = {"reason": "None", "start": "N/A", "end": "N/A", "node": "", "partition": "gpu"}
    known |= {"submit": "2026-11-22T16:43:41", "script": "/x/rl.sbatch", **job}
    names = ("state", "reason", "start", "end", "node", "partition", "submit", "script")
    return [job_id, *(known[name] for name in names), job.get("comment") or "(null)"]


def scancel(folder, state, arguments):
    where = ["-M", state["cluster"]] if state["cluster"] else []
    rest = arguments[len(where) :]
    signalled = rest[:2] == ["--batch", "--signal"]
    ids = rest[3:] if signalled else rest
    if arguments[: len(where)] != where or not ids or not all(job_id.isdigit() for job_id in ids):
        refuse(folder, "scancel", arguments)
    if not state["up"]:
        fail(1, f"scancel: error: {UNREACHABLE}")
    if signalled and not rest[2].isupper():
        fail(1, f"scancel: error: Unknown job signal: {rest[2]}")
    for job_id in () if signalled else ids:
        if job_id in state["jobs"]:
            state["jobs"][job_id]["state"] = "CANCELLED"
    draft = folder / f"state.json.{os.getpid()}"
    draft.write_text(json.dumps(state))
    draft.replace(folder / "state.json")


PLAYED = {program.__name__: program for program in (sbatch, scontrol, sacct, sinfo, squeue, scancel)}

main()
