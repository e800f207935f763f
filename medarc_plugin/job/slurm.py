"""Asking SLURM about this very job, and giving it back to the queue.

What a job finds when SIGTERM reaches it (seen on 22.05): its state is COMPLETING whatever the cause.
After `scontrol requeue` and after a preemption `Restarts` has already grown, at the time limit the
reason is TimeLimit, and after `scancel` neither holds.
"""

from __future__ import annotations

import re
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .child import STOPS, ask

if TYPE_CHECKING:
    from collections.abc import Mapping

SECONDS = 8.0
"""A controller that is busy answers late; a job that is being ended has no time for more."""


@dataclass(frozen=True)
class Job:
    """What the controller says of this job.

    Attributes:
        state: `RUNNING`; `COMPLETING` from the moment SLURM begins to end it; empty when unknown.
        reason: SLURM's reason for the state, `TimeLimit`.
        restarts: How often it was put back, the one that is under way included.
        preempted: Whether it is in the grace time of a preemption.
        seconds_left: Until its time limit; `None` when that is not known.
        problem: Why nothing is known.
    """

    state: str = ""
    reason: str = ""
    restarts: int = 0
    preempted: bool = False
    seconds_left: float | None = None
    problem: str = ""


def job_name(variables: Mapping[str, str]) -> str:
    """The word by which SLURM's commands mean this job and no other.

    An array's own id is also the id of one of its tasks: a task is named with the array's id and its
    index.
    """
    array, task = variables.get("SLURM_ARRAY_JOB_ID"), variables.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else variables.get("SLURM_JOB_ID", "")


def ask_about(variables: Mapping[str, str]) -> Job:
    """Ask the controller about this job.

    Args:
        variables: The environment as the job found it.
    """
    said = _scontrol(variables, "-o", "show", "job", job_name(variables))
    if said.problem:
        return Job(problem=said.problem)
    fields: dict[str, str] = {}
    for name, value in re.findall(r"(\S+?)=(\S*)", said.output):
        # The first one: further behind stand a comment and paths, which may hold anything.
        fields.setdefault(name, value)
    restarts = fields.get("Restarts", "")
    return Job(
        state=fields.get("JobState", ""),
        reason=fields.get("Reason", ""),
        restarts=int(restarts) if restarts.isascii() and restarts.isdigit() else 0,
        preempted=fields.get("PreemptTime", "None") not in ("None", ""),
        seconds_left=_seconds_left(fields.get("EndTime", "")),
    )


def is_cancelled(job: Job, restarts: int) -> bool:
    """Whether somebody ended the job for good.

    Args:
        job: What the controller said.
        restarts: How often the job had been restarted when this attempt began.
    """
    return job.state in ("COMPLETING", "CANCELLED") and job.reason != "TimeLimit" and job.restarts <= restarts


def requeue(variables: Mapping[str, str], seconds: float) -> str:
    """Give this job back to the queue, and wait until SLURM ends it.

    Args:
        variables: The environment as the job found it.
        seconds: How long to wait at most.

    Returns:
        Why it could not be done; empty when it was.
    """
    said = _scontrol(variables, "requeue", job_name(variables))
    if not said.problem and not said.stopped:
        signal.sigtimedwait(STOPS, seconds)
    return "" if said.stopped else said.problem


@dataclass(frozen=True)
class _Said:
    output: str = ""
    problem: str = ""
    stopped: bool = False


def _scontrol(variables: Mapping[str, str], *arguments: str) -> _Said:
    program = shutil.which("scontrol", path=variables.get("PATH"))
    if program is None:
        return _Said(problem="scontrol was not found on this node")
    # The job is ending already, or is about to: that SLURM says so too must not cut the answer short.
    arrived: list[int] = []
    try:
        answer = ask((program, *arguments), variables, Path("/"), SECONDS, arrived.append)
    except OSError as error:
        return _Said(problem=f"scontrol cannot be started: {error.strerror}")
    if answer.code is None:
        return _Said(problem=f"scontrol did not answer within {SECONDS:.0f} s")
    if answer.code != 0:
        return _Said(problem=f"scontrol: {' '.join(answer.output.split()) or answer.code}")
    return _Said(output=answer.output, stopped=signal.SIGTERM in arrived)


def _seconds_left(end: str) -> float | None:
    """From now to a time in the form that scontrol prints, the node's local time."""
    import datetime as dt

    try:
        return (dt.datetime.fromisoformat(end) - dt.datetime.now()).total_seconds()  # noqa: DTZ005 - see above
    except ValueError:
        return None
