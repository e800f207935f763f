"""The program behind every stand-in command: `program.py FOLDER NAME ARGUMENTS...`.

Standard library only. Its texts are what SLURM 22.05 printed. What it does not know it refuses, and
notes in `refused`, so that a test fails that made it happen.
"""

# ruff: noqa: T201

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

RECORD, FIELD = "\x1e", "\x1f"

QUEUE = ("%A", "%T", "%r", "%S", "%e", "%N", "%P", "%V", "%o", "%k")
HOLDERS = ("%A", "%u", "%T", "%S", "%e", "%b", "%C", "%N", "%Q")
HISTORY = "JobIDRaw,State,ExitCode,Start,End,NodeList,Partition,Submit,JobName,Comment"

UNREACHABLE = "Unable to contact slurm controller (connect failure)"

JOB = (
    "JobId={id} JobName={name} UserId=user(1000) GroupId=user(1000) MCS_label=N/A Priority=4294901759 "
    "Nice=0 Account=(null) QOS=(null) JobState={state} Reason={reason} Dependency={dependency} Requeue=1 "
    "Restarts=0 BatchFlag=1 Reboot=0 ExitCode={exit_code} RunTime=00:00:00 TimeLimit=1-00:00:00 "
    "TimeMin=N/A SubmitTime=2026-11-22T16:43:41 Partition=gpu AllocNode:Sid=localhost:16816 "
    "ReqNodeList=(null) ExcNodeList=(null) NodeList={node} BatchHost={node} NumNodes=1 NumCPUs=1 "
    "NumTasks=1 CPUs/Task=1 ReqB:S:C:T=0:0:*:* TRES=cpu=1,mem=8000M,node=1,billing=1 Socks/Node=* "
    "Command={script} WorkDir=/x Comment={comment}  StdErr=/x/job_1.log StdIn=/dev/null "
    "StdOut=/x/job_1.log Power= TresPerNode=gres:gpu:h100:1 "
)


SETTINGS = """\
Configuration data as of 2026-11-22T16:43:41
AccountingStorageEnforce = none
AccountingStorageType   = accounting_storage/none
ClusterName             = {cluster}
DefMemPerCPU            = 8000
EnforcePartLimits       = NO
JobDefaults             = (null)
MaxMemPerNode           = UNLIMITED
MinJobAge               = {keeps} sec
NEXT_JOB_ID             = {next_id}
PrivateData             = none
SelectTypeParameters    = CR_CORE_MEMORY
SlurmUser               = root(0)
SLURM_VERSION           = 22.05.8
"""

PARTITION = (
    "PartitionName={name} AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default={default} "
    "QoS=N/A DefaultTime=1-00:00:00 DisableRootJobs=NO ExclusiveUser=NO GraceTime=0 Hidden=NO "
    "MaxNodes=UNLIMITED "
    "MaxTime=7-00:00:00 MinNodes=0 LLN=NO MaxCPUsPerNode=UNLIMITED Nodes=node1 PriorityJobFactor=1 "
    "PriorityTier=1 RootOnly=NO ReqResv=NO OverSubscribe=NO OverTimeLimit=NONE PreemptMode=OFF State=UP "
    "TotalCPUs=64 TotalNodes=1 SelectTypeParameters=NONE JobDefaults=(null) DefMemPerNode=UNLIMITED "
    "MaxMemPerNode=UNLIMITED TRES=cpu=64,mem=500G,node=1,billing=64"
)

NODE = (
    "NodeName=node1 Arch=x86_64 CoresPerSocket=64  CPUAlloc=0 CPUEfctv=64 CPUTot=64 CPULoad=1.66 "
    "AvailableFeatures=h100 ActiveFeatures=h100 Gres=gpu:h100:8 GresDrain=N/A GresUsed=gpu:h100:0(IDX:N/A) "
    "NodeAddr=127.0.0.1 NodeHostName=localhost Port=19900 Version=22.05.8 OS=Linux 6.1.0-18-amd64 #1 SMP "
    "PREEMPT_DYNAMIC @0  RealMemory=512000 AllocMem=0 FreeMem=13258 Sockets=1 Boards=1 State=IDLE "
    "ThreadsPerCore=1 TmpDisk=0 Weight=1 Owner=N/A MCS_label=N/A Partitions={partitions}  "
    "BootTime=2026-11-27T10:58:35 SlurmdStartTime=2026-11-27T11:40:35 CfgTRES=cpu=64,mem=500G,billing=64 "
    "AllocTRES= "
)

NO_ACCOUNTING = (
    "You are not running a supported accounting_storage plugin",
    "Only 'accounting_storage/slurmdbd' is supported.",
)

FACTS = {
    ("show", "config"): "settings",
    ("-a", "-o", "show", "partition"): "partitions",
    ("-a", "-d", "-o", "show", "node"): "nodes",
    ("-o", "show", "reservation"): "reservations",
    ("-n", "-P", "show", "user", "withassoc", "where"): "associations",
    ("-n", "-P", "show", "assoc", "where", "user="): "accounts",
    ("-n", "-P", "show", "qos"): "qos",
}
"""What is asked about the cluster, and the name of the answer."""


def fail(code, *lines):
    print(*lines, sep="\n", file=sys.stderr)
    sys.exit(code)


def main():
    folder, name, arguments = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    state = json.loads((folder / "state.json").read_text())
    tried = name == "sbatch" and "--test-only" in arguments
    with (folder / "calls.jsonl").open("a") as calls:
        entry = {"program": "trial" if tried else name, "argv": arguments, "environment": dict(os.environ)}
        calls.write(json.dumps(entry) + "\n")
    if name in state["answers"] and not tried:
        answer = state["answers"][name]
        sys.stdout.write(answer["stdout"])
        fail(answer["code"], answer["stderr"])
    if tried:
        trial(folder, state, arguments)
    else:
        PLAYED[name](folder, state, arguments)


def refuse(folder, name, arguments):
    with (folder / "refused").open("a") as file:
        file.write(f"{name} {arguments}\n")
    fail(255, f"{name}: unrecognized option {arguments}", f'Try "{name} --help" for more information')


def sbatch(folder, state, arguments):
    if len(arguments) != 2 or arguments[0] != "--parsable":
        refuse(folder, "sbatch", arguments)
    act = next_act(folder, state)
    text = Path(arguments[1]).read_text()
    if act is not None:
        play(folder, state, act, Path(arguments[1]), text)
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


def next_act(folder, state):
    """What this call of sbatch is to do: the first call does the first act, and so on."""
    calls = (folder / "calls.jsonl").read_text().splitlines()
    number = sum('"program": "sbatch"' in call for call in calls)
    return state["acts"][number - 1] if number <= len(state["acts"]) else None


def play(folder, state, act, script, text):
    """Submit, or not, and end as the act says."""
    if act.get("job"):
        comment = re.search(r'^#SBATCH --comment="?(.*?)"?$', text, re.MULTILINE)
        job = {"state": "PENDING", "comment": comment[1] if comment else "", "script": str(script)}
        state["jobs"][act["job"]] = {**job, **act.get("as", {})}
        (folder / "state.json").write_text(json.dumps(state))
    sys.stdout.write(act.get("says", ""))
    sys.stderr.write(act.get("complains", ""))
    sys.stdout.flush()
    sys.stderr.flush()
    if act.get("waits"):
        (folder / "waiting").touch()
        while not (folder / "go").exists():
            time.sleep(0.01)
    if act.get("dies"):
        os.kill(os.getpid(), signal.SIGKILL)
    sys.exit(act.get("code", 0))


def trial(folder, state, arguments):
    if arguments != ["--test-only"]:
        refuse(folder, "sbatch", arguments)
    if not sys.stdin.read().startswith("#!"):
        fail(1, "sbatch: error: This does not look like a batch script.")
    answer = state["facts"].get("trial")
    if answer is not None:
        fail(1, answer)
    if not state["up"]:
        fail(1, f"allocation failure: {UNREACHABLE}")
    words = (
        "sbatch: Job 18 to start at 2026-11-22T16:43:41 using 8 processors on nodes node1 in partition debug"
    )
    print(words, file=sys.stderr)


def describe(state, what):
    """What SLURM says of the cluster: as it is played, or as a real one said it."""
    partitions = state["partitions"]
    names = [
        PARTITION.format(name=name, default="YES" if name == partitions[0] else "NO") for name in partitions
    ]
    played = {
        "settings": SETTINGS.format(**state["controller"]),
        "partitions": "\n".join(names),
        "nodes": NODE.format(partitions=",".join(partitions)),
        "reservations": "No reservations in the system",
    }
    said = {**played, **state["facts"]}.get(what)
    if said is None:
        fail(1, *NO_ACCOUNTING)
    if said.startswith("error: "):
        fail(1, said.removeprefix("error: "))
    print(said)


def scontrol(folder, state, arguments):
    where = ["-M", state["cluster"]] if state["cluster"] else []
    asked = tuple(arguments[2:] if arguments[0] == "-M" else arguments)
    if asked in FACTS:
        if not state["up"]:
            fail(1, f"slurm_load_ctl_conf error: {UNREACHABLE}")
        describe(state, FACTS[asked])
        return
    if arguments[:-1] != [*where, "-o", "show", "job"]:
        refuse(folder, "scontrol", arguments)
    if not state["up"]:
        fail(1, f"slurm_load_jobs error: {UNREACHABLE}")
    job = state["jobs"].get(arguments[-1])
    if job is None:
        fail(1, "slurm_load_jobs error: Invalid job id specified")
    known = {"id": arguments[-1], "name": "reverse", "reason": "None", "exit_code": "0:0", "node": "node1"}
    known["dependency"] = "(null)"
    line = JOB.format(**{**known, "comment": "", "script": "/x/rl.sbatch", **job})
    print(line if job.get("comment") else line.replace(" Comment= ", ""))


def sacct(folder, state, arguments):
    where = ["-M", state["cluster"]] if state["cluster"] else []
    whole = arguments[-2:] == ["-o", HISTORY]
    head = [*where, "-n", "-X", "-P", "-D", *([f"--delimiter={FIELD}"] if whole else []), "-j"]
    if arguments[: len(head)] != head or len(arguments) != len(head) + 3:
        refuse(folder, "sacct", arguments)
    if not whole and arguments[-2:] != ["-o", "JobIDRaw,State,ExitCode,NodeList,Submit,Comment"]:
        refuse(folder, "sacct", arguments)
    if state["accounting"] is None:
        fail(1, "Slurm accounting storage is disabled")
    asked = arguments[len(head)].split(",")
    for row in state["accounting"]:
        if not whole:
            print(row if row.count("|") > 3 else f"{row}|{time.time():.0f}|")
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


def sacctmgr(folder, state, arguments):
    asked, form = tuple(arguments[:-1]), arguments[-1]
    if asked[-1].startswith("name="):
        asked = asked[:-1]
    if asked not in FACTS or not form.startswith("format="):
        refuse(folder, "sacctmgr", arguments)
    describe(state, FACTS[asked])


def squeue(folder, state, arguments):
    where = ["-M", state["cluster"]] if state["cluster"] else []
    # The real one says whose jobs follow where it is let print its heading, and not with -h.
    several = arguments[:1] == ["-M"] and "," in arguments[1]
    plain = [] if several else ["-h"]
    whose = ["-a", "-t", "all", "-u", str(os.geteuid())]
    everything = [*where, *plain, *whose, "-o", RECORD + FIELD.join(QUEUE)]
    if arguments[-2:] == ["-o", RECORD + FIELD.join(HOLDERS)]:
        holders(folder, state, arguments[len(where) : -2])
        return
    if arguments != everything:
        refuse(folder, "squeue", arguments)
    if not state["up"]:
        fail(1, f"slurm_load_jobs error: {UNREACHABLE}")
    for job_id, job in state["jobs"].items():
        print(RECORD + FIELD.join(queued(job_id, job)))


def holders(folder, state, arguments):
    """The jobs that run on nodes, wait in partitions, or run for a user."""
    head, which, asked = arguments[:4], arguments[4], arguments[5]
    states = {"RUNNING,SUSPENDED,COMPLETING,CONFIGURING,STOPPED": "RUNNING", "PENDING": "PENDING"}
    if head[:3] != ["-h", "-a", "-t"] or head[3] not in states or len(arguments) != 6:
        refuse(folder, "squeue", arguments)
    column = {"-w": "node", "-p": "partition", "-u": "user"}[which]
    for job_id, job in state["jobs"].items():
        known = {"user": "user", "start": "N/A", "end": "N/A", "gres": "gres/gpu:1", "cpus": "8", "node": ""}
        known |= {"priority": "4294901759", "partition": "gpu", **job}
        if job["state"] == states[head[3]] and (which == "-u" or known[column] in asked.split(",")):
            names = ("user", "state", "start", "end", "gres", "cpus", "node", "priority")
            print(RECORD + FIELD.join([job_id, *(known[name] for name in names)]))


def queued(job_id, job):
    known = {"reason": "None", "start": "N/A", "end": "N/A", "node": "", "partition": "gpu"}
    known |= {"submit": f"{time.time():.0f}", "script": "/x/rl.sbatch", **job}
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


PLAYED = {
    program.__name__: program for program in (sbatch, scontrol, sacct, sacctmgr, sinfo, squeue, scancel)
}

main()
