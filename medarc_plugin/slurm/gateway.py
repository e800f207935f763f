"""SLURM's commands: argument lists out, typed results back.

Nothing here decides what a failure means for a run, beyond saying what SLURM said and what usually
helps.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medarc_plugin.errors import SlurmError, SubmissionError
from medarc_plugin.models import JobState
from medarc_plugin.process import NOT_FOUND, TIMED_OUT, Completed, run, show

if TYPE_CHECKING:
    from collections.abc import Mapping

SUBMIT_TIMEOUT = 120.0
"""Seconds for sbatch. A controller that is down is given up on after 9 s by sbatch itself."""

QUERY_TIMEOUT = 20.0
"""Seconds for a query."""

SIGNALLED, UNREADABLE = 128, 255

GONE = "GONE"
"""State of a job that SLURM no longer knows."""

UNKNOWN = "UNKNOWN"
"""State of a job about which nobody can be asked."""


def _dropped(name: str) -> bool:
    return (name.startswith(("SBATCH_", "SLURM_")) and name != "SLURM_CONF") or name == "MEDARC_BACKEND"


_HINTS = (
    (
        r"invalid partition specified|Invalid partition name",
        "`sinfo -s` lists the partitions; name one with --partition",
    ),
    (
        r"Invalid account|Invalid qos",
        "`sacctmgr show associations user=$USER` lists the accounts and QoS that you may use",
    ),
    (
        r"node configuration is not available",
        (
            "no node has this much: compare with `sinfo -o '%P %n %c %m %G %f'`, and ask for fewer GPUs, "
            "CPUs (--cpus-per-gpu) or memory, or another --gpu-type"
        ),
    ),
    (
        r"Unable to contact slurm controller|Unable to contact the slurm|Zero Bytes were transmitted",
        "the controller does not answer: `scontrol ping` says when it is back; then submit the script",
    ),
    (
        (
            r"Could not establish a configuration source|fetch_config|no slurm.conf|"
            r"ClusterName needs to be|Unable to process configuration|Unable to open|cannot stat"
        ),
        "this machine is not set up for a SLURM cluster: submit from a login node, or try --sandbox",
    ),
    (r"Invalid feature", "`sinfo -o '%n %f'` lists the nodes' features for --constraint"),
    (r"reservation is invalid|reservation", "`scontrol show reservation` lists them"),
    (r"invalid number of nodes", "a run lives on one node: name one node with --nodelist"),
    (r"Invalid node name", "`sinfo -N` lists the nodes for --nodelist and --exclude"),
    (r"Job dependency problem", "check the job ids in --dependency"),
    (r"[Uu]nrecognized option", "this SLURM does not know an option of --sbatch-arg"),
)


def hint_for(words: str) -> str | None:
    """What usually helps when sbatch says this."""
    return next((hint for pattern, hint in _HINTS if re.search(pattern, words)), None)


@dataclass(frozen=True)
class Accepted:
    """What sbatch answered.

    Attributes:
        job_id: The job's id.
        cluster: The cluster, where sbatch names one.
    """

    job_id: str
    cluster: str | None


def submission_environment(
    secrets: Mapping[str, str], base: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Build the environment in which sbatch runs and which the job inherits.

    `SBATCH_*` would override the script's directives (they were read as the user's wish already),
    `SLURM_*` of a surrounding job would leak into this one, and `MEDARC_BACKEND` would send what
    prime-rl starts by name in the job to a backend once more.
    """
    return {name: value for name, value in base.items() if not _dropped(name)} | dict(secrets)


def shown_command(
    argv: tuple[str, ...],
    base: Mapping[str, str] = os.environ,
    *,
    added: Mapping[str, str] | None = None,
) -> str:
    """Write a command as one would type it here to get the same.

    Args:
        argv: The command.
        base: The environment in which it will be typed; what a submission drops is dropped with `-u`.
        added: Variables that this process has and the user's shell has not, `SLURM_CONF` of a sandbox.
    """
    prefix = [part for name in sorted(filter(_dropped, base)) for part in ("-u", name)]
    prefix += [f"{name}={value}" for name, value in (added or {}).items()]
    return show(["env", *prefix, *argv] if prefix else argv)


def sbatch_command(script: Path) -> tuple[str, ...]:
    """The command that submits a script."""
    return ("sbatch", "--parsable", str(script))


def sbatch(script: Path, secrets: Mapping[str, str]) -> Accepted:
    """Submit a script.

    Raises:
        SubmissionError: It was refused, or nobody knows whether it was accepted.
    """
    done = run(sbatch_command(script), env=submission_environment(secrets), timeout=SUBMIT_TIMEOUT)
    if not done.ok:
        raise _refused(done, script)
    # Site plugins may print lines of their own before it.
    answer = done.stdout.strip().rpartition("\n")[2]
    match = re.fullmatch(r"(\d+)(?:;(\S+))?", answer.strip())
    if match is None:
        raise SubmissionError(
            f"sbatch answered something that is not a job id:\n{done.describe()}",
            hint=f"`squeue --me` shows whether the job is there; the files of the run are kept: {script}",
        )
    return Accepted(match[1], match[2])


@dataclass(frozen=True)
class Cluster:
    """Which SLURM is asked.

    Attributes:
        name: Its name, for `-M`; `None` is the one that this machine belongs to.
        conf: Its slurm.conf; `None` is the one of the environment, and an empty one that which this machine
            has without SLURM_CONF.
    """

    name: str | None = None
    conf: str | None = None

    @property
    def option(self) -> tuple[str, ...]:
        """The arguments that name it."""
        return ("-M", self.name) if self.name else ()

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which SLURM's commands speak to it."""
        environment = submission_environment({"SLURM_CONF": self.conf} if self.conf else {})
        if self.conf == "":
            environment.pop("SLURM_CONF", None)
        return environment


HERE = Cluster()


def job_state(
    job_id: str, cluster: Cluster = HERE, token: str | None = None, script: Path | None = None
) -> JobState:
    """Ask SLURM how a job is doing: the controller first, then accounting.

    Args:
        job_id: The job's id.
        cluster: The cluster that took it.
        token: The word in the job's comment.
        script: The job's script. A job with that id and neither the word nor the script is another's: ids
            are used again, and sites rewrite comments.

    Returns:
        The state; `GONE` for a job that SLURM no longer knows, `UNKNOWN` when nobody can be asked.
    """
    done = run(
        ["scontrol", *cluster.option, "-o", "show", "job", job_id],
        env=cluster.environment,
        timeout=QUERY_TIMEOUT,
    )
    if done.ok and "JobState=" in done.stdout:
        found = _fields(done.stdout)
        # In the whole text, since a comment may hold words that read like further fields.
        ours = token is None or token in done.stdout or f"Command={script} " in done.stdout
        if not ours and "Comment" in found:
            return JobState(GONE)
        return JobState(found["JobState"], found.get("Reason"), found.get("ExitCode"), found.get("NodeList"))
    if "Invalid job id" not in done.stderr:
        return JobState(UNKNOWN)
    return _accounted(job_id, cluster)


def job_with_token(token: str, cluster: Cluster = HERE) -> JobState:
    """Look for a queued or running job of this user by the word in its comment.

    Returns:
        Its state with its id; `GONE` when there is none, `UNKNOWN` when nobody can be asked.
    """
    # The comment comes last: it may hold anything.
    argv = ["squeue", *cluster.option, "-h", "-u", str(os.geteuid()), "-o", "%A|%T|%k"]
    done = run(argv, env=cluster.environment, timeout=QUERY_TIMEOUT)
    if not done.ok:
        return JobState(UNKNOWN)
    for line in done.stdout.splitlines():
        job_id, state, comment = [*line.split("|", 2), "", ""][:3]
        if token in comment:
            return JobState(state, job_id=job_id)
    return JobState(GONE)


def script_of(job_id: str, cluster: Cluster = HERE) -> Path | None:
    """Say which script a job runs; `None` when SLURM does not know the job, or cannot be asked."""
    done = run(
        ["scontrol", *cluster.option, "-o", "show", "job", job_id],
        env=cluster.environment,
        timeout=QUERY_TIMEOUT,
    )
    command = _fields(done.stdout).get("Command", "") if done.ok else ""
    return Path(command) if command.startswith("/") else None


def cancel(job_id: str, cluster: Cluster = HERE) -> None:
    """End a job.

    Raises:
        SlurmError: scancel failed.
    """
    done = run(["scancel", *cluster.option, job_id], env=cluster.environment, timeout=QUERY_TIMEOUT)
    if not done.ok:
        raise SlurmError(f"job {job_id} could not be ended: {done.describe()}")


def partitions() -> tuple[str, ...]:
    """Name the cluster's partitions; none when it cannot be asked."""
    done = run(["sinfo", "-h", "-a", "-o", "%R"], env=submission_environment({}), timeout=5)
    return tuple(dict.fromkeys(done.stdout.split())) if done.ok else ()


def _accounted(job_id: str, cluster: Cluster) -> JobState:
    done = run(
        ["sacct", *cluster.option, "-n", "-X", "-P", "-j", job_id, "-o", "JobIDRaw,State,ExitCode,NodeList"],
        env=cluster.environment,
        timeout=QUERY_TIMEOUT,
    )
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith(f"{job_id}|")]
    if not done.ok or not rows:
        return JobState(GONE)
    _, state, exit_code, node = rows[-1][:4]
    return JobState(state.split()[0], None, exit_code, node)


_FIELD = re.compile(r"(?:^|\s)([A-Za-z][\w/:]*)=")
_JOB_NAME = re.compile(r" JobName=.*? (?=UserId=\S+\(\d+\) GroupId=)")


def _fields(text: str) -> dict[str, str]:
    """Split `scontrol -o show`; values may hold spaces, so each ends where the next name begins."""
    # A job's name stands before its state, and may read like any field.
    line = _JOB_NAME.sub(" ", text.strip().partition("\n")[0], count=1)
    marks = list(_FIELD.finditer(line))
    ends = [mark.start() for mark in marks[1:]] + [len(line)]
    found: dict[str, str] = {}
    for mark, end in zip(marks, ends, strict=True):
        found.setdefault(mark[1], line[mark.end() : end].strip())
    return found


def _refused(done: Completed, script: Path) -> SubmissionError:
    kept = f"the files of the run are kept: {script}"
    if done.returncode == NOT_FOUND:
        return SubmissionError(
            f"sbatch was not found on this machine; {kept}",
            hint="submit from a login node of the cluster, or add --sandbox to try it here",
        )
    # 255 is sbatch's own exit code for what it cannot read.
    killed = done.returncode < 0 or SIGNALLED < done.returncode < UNREADABLE
    if done.returncode == TIMED_OUT or killed:
        how = "was killed" if killed else f"did not answer within {SUBMIT_TIMEOUT:g} s"
        return SubmissionError(
            f"sbatch {how}, so the job may or may not have been accepted; {kept}",
            hint="`squeue --me` shows it when it was; submit again only when it is not there",
        )
    words = done.stderr.strip() or done.stdout.strip()
    hint = hint_for(words)
    if hint and "sinfo -s" in hint and (known := partitions()):
        hint = f"the partitions here are: {', '.join(known)}; name one with --partition"
    return SubmissionError(
        f"SLURM refused the job (exit code {done.returncode}); {kept}\n{words}",
        hint=hint or "mend what SLURM names, then run the same command again",
    )
