"""Many jobs at once: one question to the controller, one to accounting, whatever their number.

The formats are those that read the same on SLURM 20.11 to 25: `-o` with single letters for squeue, named
fields for sacct. Free text may hold anything, so records and fields are kept apart by characters that no
name, path or comment has.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from medarc_plugin.models import JobState
from medarc_plugin.process import NOT_FOUND, TIMED_OUT, Completed, run, run_apart
from medarc_plugin.slurm.gateway import QUERY_TIMEOUT, Cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

RECORD, FIELD = "\x1e", "\x1f"

QUEUE_FIELDS = ("%A", "%T", "%r", "%S", "%e", "%N", "%P", "%V", "%o", "%k")
QUEUE_FORMAT = RECORD + FIELD.join(QUEUE_FIELDS)

ACCOUNTING_FIELDS = ("JobIDRaw", "State", "ExitCode", "Start", "End", "NodeList", "Partition", "Submit")
FREE_FIELDS = ("JobName", "Comment")

NOTHING = frozenset({"", "(null)", "N/A", "None", "Unknown", "NONE", "None assigned"})
"""How SLURM words that there is no value."""

YEARS = range(1970, 9000)
"""Years of times that are believed: beyond them no other zone may have that moment."""

EVER = datetime.fromtimestamp(0, UTC)
"""Before all jobs."""

NO_ACCOUNTING = "there is no accounting"

LEAST_SECONDS = 5.0
"""For how long accounting is asked at least, where the controller has used up the time for a query."""


@dataclass(frozen=True)
class Job:
    """What SLURM says of a job.

    Attributes:
        job_id: Its id.
        state: SLURM's word, whole: `RUNNING`, `COMPLETING`.
        reason: Why it is in that state.
        start: When it started; of one that waits, when SLURM expects it to.
        end: When it ended; of one that runs, when its time limit ends it.
        node: The node or nodes.
        partition: The partition.
        submitted: When it was submitted, or put back into the queue.
        script: The script that it runs; only the controller says so.
        name: The job's name; only accounting says so.
        comment: The job's comment, where it is kept.
        exit_code: `code:signal`; only accounting says so.
        cancelled_by: Number of the user who cancelled it; only accounting says so, and of none that SLURM
            has ended by itself.
        cluster: The cluster that named itself, where several were asked.
    """

    job_id: str
    state: str
    reason: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    node: str | None = None
    partition: str | None = None
    submitted: datetime | None = None
    script: str | None = None
    name: str | None = None
    comment: str | None = None
    exit_code: str | None = None
    cancelled_by: int | None = None
    cluster: str | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended for good."""
        return JobState(self.state).over


@dataclass(frozen=True)
class Answer:
    """What came of a question.

    Attributes:
        jobs: The jobs.
        problem: Why there is no answer, in a few words; `None` when there is one.
    """

    jobs: tuple[Job, ...] = ()
    problem: str | None = None


def queue(cluster: Cluster, users: Iterable[int], *, stop: Callable[[], bool] | None = None) -> Answer:
    """Ask the controller for all jobs of some users, those included that ended a short while ago.

    What SLURM has refused is no job, though some of it has an id.

    Args:
        cluster: Which one.
        users: Their numbers.
        stop: Asked often whether to give up.
    """
    whose = ",".join(map(str, sorted(set(users))))
    # Only above a heading does squeue say whose jobs follow.
    plain = () if cluster.several else ("-h",)
    argv = ["squeue", *cluster.option, *plain, "-a", "-t", "all", "-u", whose, "-o", QUEUE_FORMAT]
    if stop is None:
        done = run(argv, env=_environment(cluster), timeout=QUERY_TIMEOUT)
    else:
        done = run_apart(argv, env=_environment(cluster), timeout=QUERY_TIMEOUT, stop=stop)
    if not done.ok:
        return Answer(problem=_problem(done))
    head, *texts = done.stdout.split(RECORD)
    named, jobs = _named(head), []
    for text in texts:
        job = _queued(text, named)
        if job is not None:
            jobs.append(job)
        named = _named(text) or named
    return Answer(tuple(jobs))


_CLUSTER = re.compile(r"(?:^|\n)CLUSTER: (\S+)\n\Z")
"""What squeue says before the jobs of each cluster, where it asks several."""


def _named(text: str) -> str | None:
    """The cluster whose jobs follow this text."""
    found = _CLUSTER.search(text)
    return found[1] if found else None


def accounting(cluster: Cluster, job_ids: Sequence[str], seconds: float | None = None) -> Answer:
    """Ask accounting for all jobs that ever had some ids, the last submitted ones last.

    A job that was requeued is there once for each time that it was in the queue.

    Args:
        cluster: Which one.
        job_ids: The ids.
        seconds: How long to wait; as for every query unless it is said.
    """
    seconds = QUERY_TIMEOUT if seconds is None else seconds
    wanted = ",".join((*ACCOUNTING_FIELDS, *FREE_FIELDS))
    argv = ["sacct", *cluster.option, "-n", "-X", "-P", "-D", f"--delimiter={FIELD}"]
    done = run([*argv, "-j", ",".join(job_ids), "-o", wanted], env=_environment(cluster), timeout=seconds)
    if not done.ok:
        none = done.returncode == NOT_FOUND or "accounting storage is disabled" in done.stderr
        return Answer(problem=NO_ACCOUNTING if none else _problem(done, seconds))
    found = [job for job in map(_accounted, done.stdout.splitlines()) if job is not None]
    return Answer(tuple(sorted(found, key=lambda job: job.submitted or EVER)))


def _environment(cluster: Cluster) -> dict[str, str]:
    """Without the user's own wishes for these commands, which would hide jobs; times are in seconds."""
    kept = cluster.environment.items()
    own = {name: value for name, value in kept if not name.startswith(("SQUEUE_", "SACCT_"))}
    return {**own, "SLURM_TIME_FORMAT": "%s"}


def _problem(done: Completed, seconds: float | None = None) -> str:
    program = done.argv[0]
    if done.returncode == NOT_FOUND:
        return f"{program} is not here"
    if done.returncode == TIMED_OUT:
        return f"{program} had no answer within {QUERY_TIMEOUT if seconds is None else seconds:g} s"
    words = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return words[-1].strip() if words else f"{program} ended with exit code {done.returncode}"


def _queued(text: str, cluster: str | None) -> Job | None:
    values = _CLUSTER.sub("", text).removesuffix("\n").split(FIELD, len(QUEUE_FIELDS) - 1)
    if len(values) != len(QUEUE_FIELDS) or not values[0].strip().isdigit():
        return None
    job_id, state, reason, start, end, node, partition, submitted, script, comment = map(_value, values)
    if job_id is None or state is None:
        return None
    if state == "FAILED" and node is None and start is not None and start == submitted:
        # What is left of some that SLURM refuses: it has an id, and sbatch is not told it.
        return None
    return Job(
        job_id,
        state,
        reason=reason,
        start=moment(start),
        end=moment(end),
        node=node,
        partition=partition,
        submitted=moment(submitted),
        script=script,
        comment=comment,
        cluster=cluster,
    )


def _accounted(line: str) -> Job | None:
    values = line.split(FIELD)
    if len(values) != len(ACCOUNTING_FIELDS) + len(FREE_FIELDS) or not values[0].isdigit():
        return None
    job_id, state, exit_code, start, end, node, partition, submitted, name, comment = map(_value, values)
    if job_id is None or state is None:
        return None
    # `CANCELLED by 1000`.
    word, *by = state.split()
    return Job(
        job_id,
        word,
        start=moment(start),
        end=moment(end),
        node=node,
        partition=partition,
        submitted=moment(submitted),
        name=name,
        comment=comment,
        exit_code=exit_code,
        cancelled_by=int(by[-1]) if by and by[-1].isdecimal() else None,
    )


def _value(text: str) -> str | None:
    text = text.strip()
    return None if text in NOTHING else text


def moment(text: str | None) -> datetime | None:
    """Read a time as SLURM's commands print it, in seconds since 1970 or in the local zone; in UTC."""
    if text is None:
        return None
    try:
        found = datetime.fromtimestamp(int(text), UTC) if text.isdecimal() else datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.year in YEARS else None
    except (ValueError, OverflowError, OSError):
        return None


def end(job_ids: Sequence[str], cluster: Cluster, signal: str | None = None) -> str | None:
    """End jobs, or send a signal to the process that owns each.

    Args:
        job_ids: Their ids.
        cluster: Which cluster's.
        signal: The signal's name, `USR2`; without one the jobs are cancelled.

    Returns:
        What stood in the way, in SLURM's words; `None` when nothing did. A job that has ended by itself is
        among it: who asks looks again.
    """
    # Without --batch a signal reaches a job's steps alone, and a run's owner is the batch process.
    how = ("--batch", "--signal", signal) if signal else ()
    done = run(["scancel", *cluster.option, *how, *job_ids], env=_environment(cluster), timeout=QUERY_TIMEOUT)
    return None if done.ok else _problem(done)
