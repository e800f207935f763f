"""SLURM's commands: argument lists out, typed results back.

Nothing here decides what a failure means for a run, beyond saying what SLURM said and what usually
helps.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from medarc_plugin.errors import SlurmError
from medarc_plugin.models import JobState
from medarc_plugin.process import Completed, run, run_apart, show

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

QUERY_TIMEOUT = 20.0
"""Seconds for a query."""

GONE = "GONE"
"""State of a job that SLURM no longer knows."""

LOST = "LOST"
"""State of a job that SLURM accepted and forgot before its end."""

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
        (
            "the controller does not answer: `scontrol ping` says when it is back; "
            "then run the same command again"
        ),
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


def submission_environment(
    secrets: Mapping[str, str], base: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Build the environment in which sbatch runs and which the job inherits.

    `SBATCH_*` would override the script's directives (they were read as the user's wish already),
    `SLURM_*` of a surrounding job would leak into this one, and `MEDARC_BACKEND` would send what
    prime-rl starts by name in the job to a backend once more.
    """
    return {name: value for name, value in base.items() if not _dropped(name)} | dict(secrets)


NAME_ANOTHER = "`unset SLURM_CONF` if it is left of a sandbox, or let it name a file that is there"
"""The way out where the variable names no file."""


def in_vain(argv: Sequence[str], environment: Mapping[str, str]) -> Completed | None:
    """Say what comes of a command that would wait a minute for a SLURM_CONF that is not there.

    Args:
        argv: The command.
        environment: The environment in which it would run.

    Returns:
        One that was not started, with the reason in `stderr`; `None` for a command that may be.
    """
    conf = environment.get("SLURM_CONF")
    if not conf or os.path.exists(conf):  # noqa: PTH110 - any text may stand there
        return None
    return Completed(tuple(argv), 1, "", f"SLURM_CONF names {conf}, which is not there", started=False)


def ask(argv: Sequence[str], environment: Mapping[str, str], timeout: float) -> Completed:
    """Run one of SLURM's commands that ask, as `process.run` does; not where it would wait in vain.

    Args:
        argv: The command.
        environment: The whole environment.
        timeout: Seconds until it is killed.
    """
    return in_vain(argv, environment) or run(argv, env=environment, timeout=timeout)


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


def send(
    script: Path,
    variables: Mapping[str, str],
    timeout: float,
    *,
    stop: Callable[[], bool] = lambda: False,
    keep: Sequence[int] = (),
) -> Completed:
    """Run sbatch once. `medarc_plugin.slurm.answers` reads what comes of it.

    Args:
        script: The script.
        variables: What its environment has beside this process's own, secrets among it.
        timeout: Seconds until it is killed.
        stop: Asked often whether it is to be killed now.
        keep: Descriptors that it inherits.
    """
    environment = submission_environment(variables)
    return run_apart(sbatch_command(script), env=environment, timeout=timeout, stop=stop, keep=keep)


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
    def several(self) -> bool:
        """Whether it stands for several, of which SLURM chooses one for a job: `east,west`, `all`."""
        return self.name is not None and ("," in self.name or self.name.lower() == "all")

    def with_job(self, name: str | None) -> Cluster:
        """The one of these that has a job: an id names another job on each.

        Args:
            name: What it is called, where that is known.
        """
        return replace(self, name=name) if name else self

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which SLURM's commands speak to it."""
        environment = submission_environment({"SLURM_CONF": self.conf} if self.conf else {})
        if self.conf == "":
            environment.pop("SLURM_CONF", None)
        # The user's own wishes for these commands would hide jobs.
        return {name: value for name, value in environment.items() if not name.startswith(_WISHES)}


_WISHES = ("SQUEUE_", "SACCT_", "SCANCEL_", "SINFO_")

HERE = Cluster()


TAKEN = "its id belongs to another job now"
"""Reason of a job that is gone, where SLURM has a job with its id."""

_MARK = re.compile(r"\[medarc:([^\]\s]+)\]")


def marks(comment: str | None) -> list[str]:
    """The submissions' words in a comment."""
    return _MARK.findall(comment or "")


def is_marked(comment: str, token: str) -> bool | None:
    """Say whether a comment has a submission's word; `None` when it has none of this plugin's at all."""
    found = marks(comment)
    return token in found if found else None


def job_state(
    job_id: str,
    cluster: Cluster = HERE,
    token: str | None = None,
    script: Path | None = None,
    since: float = 0.0,
) -> JobState:
    """Ask SLURM how a job is doing: the controller first, then accounting.

    Args:
        job_id: The job's id.
        cluster: The cluster that took it.
        token: The word in the job's comment; `None` takes whatever job has the id.
        script: The job's script. A job with that id and neither the word nor the script is another's: ids
            are used again, and sites rewrite comments.
        since: When it was submitted, in seconds since 1970: accounting knows all jobs that ever had the id.

    Returns:
        The state; `GONE` for a job that SLURM no longer knows, with the reason `TAKEN` where it knows another
        one with that id; `UNKNOWN` when nobody can be asked.
    """
    done = run(
        ["scontrol", *cluster.option, "-o", "show", "job", job_id],
        env=cluster.environment,
        timeout=QUERY_TIMEOUT,
    )
    taken = False
    if done.ok and "JobState=" in done.stdout:
        found = _fields(done.stdout)
        if token is None or _is_ours(done.stdout, token, script):
            return JobState(
                found["JobState"], found.get("Reason"), found.get("ExitCode"), found.get("NodeList")
            )
        taken = True
    elif "Invalid job id" not in done.stderr:
        return JobState(UNKNOWN)
    return _accounted(job_id, cluster, token, since, taken=taken)


def _is_ours(text: str, token: str, script: Path | None) -> bool:
    """Whether what scontrol says of a job is about the submission with this word."""
    # In the whole text, since a comment may hold words that read like further fields.
    marked = is_marked(text, token)
    return f" Command={script} " in text if marked is None else marked


def script_of(job_id: str, cluster: Cluster = HERE) -> Path | None:
    """Say which script a job runs; `None` when SLURM does not know the job.

    Raises:
        SlurmError: It cannot be asked.
    """
    done = run(
        ["scontrol", *cluster.option, "-o", "show", "job", job_id],
        env=cluster.environment,
        timeout=QUERY_TIMEOUT,
    )
    if not done.ok and "Invalid job id" not in done.stderr:
        raise SlurmError((done.stderr.strip() or f"scontrol ended with {done.returncode}").splitlines()[-1])
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


_CLOCKS = 3600.0
"""Seconds by which the clocks of two machines may differ."""


def _accounted(job_id: str, cluster: Cluster, token: str | None, since: float, *, taken: bool) -> JobState:
    """Ask accounting for a job that the controller does not know.

    One that accounting still has as waiting or running is none that has ended: the controller has lost it.
    """
    gone = JobState(GONE, TAKEN if taken else None)
    # The comment comes last: it may hold anything.
    wanted = "JobIDRaw,State,ExitCode,NodeList,Submit,Comment"
    done = run(
        ["sacct", *cluster.option, "-n", "-X", "-P", "-D", "-j", job_id, "-o", wanted],
        env={**cluster.environment, "SLURM_TIME_FORMAT": "%s"},
        timeout=QUERY_TIMEOUT,
    )
    if not done.ok:
        return gone
    for line in reversed(done.stdout.splitlines()):
        row, state, exit_code, node, submitted, comment = [*line.split("|", 5), *[""] * 5][:6]
        marked = None if token is None else is_marked(comment, token)
        early = submitted.isdigit() and float(submitted) < since - _CLOCKS
        if row != job_id or marked is False or (marked is None and (taken or early)):
            continue
        word = state.split()[0] if state else UNKNOWN
        if JobState(word).over:
            return JobState(word, None, exit_code, node)
        return JobState(LOST, f"accounting has it as {word}, and the controller does not know it")
    return gone


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


def hint_for(words: str) -> str | None:
    """What usually helps against what SLURM says; `None` when nothing is known to."""
    hint = next((hint for pattern, hint in _HINTS if re.search(pattern, words)), None)
    if hint and "sinfo -s" in hint and (known := partitions()):
        return f"the partitions here are: {', '.join(known)}; name one with --partition"
    return hint
