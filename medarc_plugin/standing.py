"""How runs stand: for any number of them, from one question to SLURM and from their own records.

SLURM's word is taken for a job that is surely the run's: by the word in its comment, else by its id and its
script, since ids are used again. Where SLURM does not answer, or no longer knows the job, the run's records
speak, and the answer says so.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from medarc_plugin import flight, index, lifesigns, records
from medarc_plugin.backends.planning import run_files
from medarc_plugin.errors import RunDirectoryError
from medarc_plugin.models import ENTRYPOINTS, JobState, Submission
from medarc_plugin.process import show
from medarc_plugin.records import Records
from medarc_plugin.runs import Run, open_run
from medarc_plugin.slurm import gateway, lost, queue
from medarc_plugin.slurm.gateway import Cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from medarc_plugin.records import AttemptRecord
    from medarc_plugin.slurm.queue import Job

T = TypeVar("T")
R = TypeVar("R")

PENDING, RUNNING, COMPLETED, FAILED = "PENDING", "RUNNING", "COMPLETED", "FAILED"

SLURM = "slurm"
"""The backend whose runs SLURM is asked about."""

STARTING = "starting"
"""Phase of an attempt that has not come to prime-rl yet."""

LOST = "LOST"
"""SLURM accepted the job and forgot it, and no record tells of its end."""

GONE = "GONE"
"""SLURM does not know the job any more, which may have ended, and no record tells of its end."""

FORGOTTEN = frozenset({LOST, GONE})
"""Nobody knows how the job ended."""

UNKNOWN = "UNKNOWN"
"""Nobody can be asked, and no record tells of its end."""

UNSUBMITTED = "UNSUBMITTED"
"""The files are written, and no job was submitted with them."""

SQUEUE, SACCT, RECORDS, PLAN = "squeue", "sacct", "records", "plan"
"""Where a fact is from."""

STATE_OF = {
    "finished": COMPLETED,
    "rehearsed": COMPLETED,
    "cancelled": "CANCELLED",
    "asked": "CANCELLED",
    "preempted": "PREEMPTED",
    "requeued": "PREEMPTED",
    "time-limit": "TIMEOUT",
    "superseded": "NODE_FAIL",
    "lost": "NODE_FAIL",
}
"""SLURM's word for how an attempt ended by its own record; `FAILED` for all others."""

NEVER_SATISFIED = "DependencyNeverSatisfied"
"""SLURM's reason of a job whose dependency cannot be met any more: scripts ask to be ended then."""

READERS = 16
"""Runs whose files are read at once: on a network file system each file is a wait."""

MANY = 8
"""Runs that are read one after the other: starting readers takes longer."""

SILENT = "from the run's records, SLURM did not answer"
"""What a note begins with when SLURM could not be asked."""

UNACCOUNTED = "from the run's records, SLURM no longer knows its job, and accounting did not answer"
"""What a note begins with when only accounting could still say how a job ended, and did not."""

BY_ITSELF = "SLURM ended it by itself: accounting names nobody who cancelled it"
"""Why a job is over that a controller lost, or that waited for what cannot be: accounting says no more."""

CLOCKS = timedelta(hours=1)
"""By how much the clocks of two machines may differ."""

UNEXPORTED = "its weights are not exported"

DELETED = "its directory is not there any more: it was moved or deleted"


@dataclass(frozen=True)
class RunStatus:
    """How a run stands.

    Attributes:
        run: The run.
        job_id: SLURM's id of its job, `local-PID` for the local backend; `None` when there is none.
        state: SLURM's word (`PENDING`, `RUNNING`, `COMPLETING`, `COMPLETED`, `FAILED`, `CANCELLED`, ...),
            also where the run's records tell it; else `LOST`, `GONE`, `UNKNOWN` or `UNSUBMITTED`.
        reason: Why: SLURM's reason, or what failed first.
        note: Where the answer is from, when it is not SLURM's: a remark to be shown.
        node: Where it runs, or ran last.
        partition: SLURM's partition.
        gpus: GPUs of the allocation.
        gpu_ids: Their ids on the node, of the newest attempt.
        submitted: When it was submitted.
        estimated_start: When SLURM expects to start it, while it waits.
        started: When its newest attempt began.
        limit: When its time limit ends it, while it runs.
        ended: When it ended.
        phase: What a running run is at, in the words of docs/job-anatomy.md.
        step: The last whole step.
        max_steps: Steps to make.
        reward: Mean reward of that step (RL).
        loss: Mean loss of that step.
        seconds_left: Estimate for the steps to make, in seconds, while it runs.
        eta: When they would be made.
        attempt: The newest attempt's number; `None` before the first.
        gpu_hours: GPU hours of all attempts in this run directory.
        exit_code: How it ended; `None` when it has not, or when that is not known.
        updated: When the run last wrote its state.
        sources: For each of these facts that is known: `squeue`, `sacct`, `records` or `plan`.
        trouble: What could not be read, or looks wrong, a sentence each.
        records: What the run's files tell.
        cluster: The cluster that has its job, where several were asked.
    """

    run: Run
    job_id: str | None
    state: str
    reason: str | None = None
    note: str | None = None
    node: str | None = None
    partition: str | None = None
    gpus: int | None = None
    gpu_ids: tuple[int, ...] = ()
    submitted: datetime | None = None
    estimated_start: datetime | None = None
    started: datetime | None = None
    limit: datetime | None = None
    ended: datetime | None = None
    phase: str | None = None
    step: int | None = None
    max_steps: int | None = None
    reward: float | None = None
    loss: float | None = None
    seconds_left: float | None = None
    eta: datetime | None = None
    attempt: int | None = None
    gpu_hours: float = 0.0
    exit_code: int | None = None
    updated: datetime | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    trouble: tuple[str, ...] = ()
    records: Records = field(default_factory=Records)
    cluster: str | None = None

    @property
    def over(self) -> bool:
        """Whether the run has ended for good, or there is nothing that could go on."""
        return JobState(self.state).over or self.state == UNSUBMITTED

    @property
    def unanswered(self) -> bool:
        """Whether SLURM was asked and did not answer."""
        return (self.note or "").startswith(SILENT)

    @property
    def unaccounted(self) -> bool:
        """Whether its job is in no queue, and accounting, which may know its end, did not answer."""
        return (self.note or "").startswith(UNACCOUNTED)

    @property
    def alive(self) -> bool:
        """Whether it is in the queue or runs, as far as anybody knows."""
        return not self.over and self.state != UNKNOWN

    def document(self) -> dict[str, Any]:
        """The facts for `--json`; docs/runs.md lists them with their units."""
        times = {name: _iso(getattr(self, name)) for name in TIMES}
        submission = self.run.submission
        return {
            "run_dir": str(self.run.run_dir),
            "name": self.run.name,
            "entrypoint": self.run.entrypoint,
            "rehearsal": self.run.rehearsal,
            "backend": self.run.plan.get("backend") or (submission.backend if submission else None),
            "job_id": self.job_id,
            "cluster": self.cluster or (submission.cluster if submission else None),
            **{name: getattr(self, name) for name in PLAIN},
            "gpu_ids": list(self.gpu_ids),
            **times,
            "gpu_hours": round(self.gpu_hours, 4),
            "over": self.over,
            "gpu_use": self.records.state.get("gpus") if self.phase else None,
            "sources": dict(self.sources),
            "trouble": list(self.trouble),
        }


TIMES = ("submitted", "estimated_start", "started", "limit", "ended", "eta", "updated")
PLAIN = (
    *("state", "reason", "note", "node", "partition", "gpus", "attempt", "phase", "step", "max_steps"),
    *("reward", "loss", "seconds_left", "exit_code"),
)


def look_at(run: Run) -> RunStatus:
    """Say how one run stands."""
    return look([run])[0]


def look(runs: Sequence[Run]) -> list[RunStatus]:
    """Say how runs stand.

    Each SLURM is asked once, whatever the number of runs, and its accounting at most once: about jobs that it
    no longer knows and whose end is in no record. A SLURM that does not answer is waited for with a bound.

    Args:
        runs: The runs.

    Returns:
        How each stands, in the same order.
    """
    told = read(runs)
    return judge(runs, told, ask(runs, told))


def read(runs: Sequence[Run]) -> list[Records]:
    """Read the records of runs."""
    return _each(records.read, runs)


def ask(runs: Sequence[Run], told: Sequence[Records]) -> list[Slurm | None]:
    """Ask each SLURM that took some of the runs, once.

    Args:
        runs: The runs.
        told: Their records.

    Returns:
        For each run what its SLURM said; `None` for a run that SLURM did not take.
    """
    groups: dict[Cluster, list[int]] = defaultdict(list)
    for position, run in enumerate(runs):
        if backend_of(run) == SLURM:
            groups[cluster_of(run)].append(position)

    def ask_one(cluster: Cluster) -> Slurm:
        return _ask(cluster, [(runs[position], told[position]) for position in groups[cluster]])

    # Beside each other: one that hangs must not keep the others waiting.
    answers: dict[int, Slurm] = {}
    for positions, slurm in zip(groups.values(), _each(ask_one, [*groups], few=1), strict=True):
        answers |= dict.fromkeys(positions, slurm)
    return [answers.get(position) for position in range(len(runs))]


def judge(runs: Sequence[Run], told: Sequence[Records], answers: Sequence[Slurm | None]) -> list[RunStatus]:
    """Say how runs stand, from what `read` and `ask` gave."""
    now = datetime.now(UTC)
    return [_status(*known, now) for known in zip(runs, told, answers, strict=True)]


def of_entries(entries: Sequence[index.Entry]) -> list[Run]:
    """Open the runs of the user's list; one whose directory is gone is made up from its entry."""
    return _each(_opened, entries)


def _opened(entry: index.Entry) -> Run:
    try:
        return open_run(Path(entry.run_dir))
    except RunDirectoryError:
        return made_up(entry)


def made_up(entry: index.Entry) -> Run:
    """Make up a run whose directory is gone from what the user's list knows of it."""
    run_dir = Path(entry.run_dir)
    entrypoint = entry.entrypoint if entry.entrypoint in ENTRYPOINTS else ENTRYPOINTS[0]
    files = run_files(run_dir, entrypoint)
    submission = Submission(
        job_id=entry.job_id,
        cluster=entry.cluster,
        script=files.script,
        log=files.log_of(entry.job_id),
        submitted_at=entry.submitted_at,
        token=entry.token,
        backend=entry.backend,
        slurm_conf=entry.slurm_conf,
    )
    plan = {
        "name": entry.name,
        "backend": entry.backend,
        "gpus": {"count": entry.gpus},
        "rehearse": entry.rehearsal,
    }
    return Run(run_dir, entrypoint, files, submission, plan, (DELETED,))


def backend_of(run: Run) -> str:
    """The backend that took a run; records without one are SLURM's."""
    named = run.submission.backend if run.submission is not None else run.plan.get("backend")
    return named if isinstance(named, str) and named else SLURM


def cluster_of(run: Run) -> Cluster:
    """The SLURM that took a run."""
    if run.submission is None:
        return Cluster()
    # A run that was submitted without SLURM_CONF is not known to the SLURM that is named there now.
    return Cluster(run.submission.cluster, run.submission.slurm_conf or "")


@dataclass(frozen=True)
class Slurm:
    """What one SLURM said.

    Attributes:
        problem: Why it does not say anything; `None` when it does.
        by_token: Its jobs, by the word in their comment.
        by_id: The same by id.
        accounted: Jobs from accounting by id, the last submitted ones last.
        unaccounted: Why accounting does not say anything, where there is one that was asked.
        controller: What it says of itself, where there are jobs that it does not know.
    """

    problem: str | None
    by_token: Mapping[str, Sequence[Job]] = field(default_factory=dict)
    by_id: Mapping[str, Job] = field(default_factory=dict)
    accounted: Mapping[str, Sequence[Job]] = field(default_factory=dict)
    unaccounted: str | None = None
    controller: lost.Controller | None = None


@dataclass(frozen=True)
class _Verdict:
    """A run's state, and who says so."""

    state: str
    source: str
    reason: str | None = None
    note: str | None = None
    job: Job | None = None


def _each(function: Callable[[T], R], items: Sequence[T], few: int = MANY) -> list[R]:
    """Do something for each, several at once where they are more than a few."""
    if len(items) <= few:
        return [function(item) for item in items]
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(function, items))


def _ask(cluster: Cluster, runs: Sequence[tuple[Run, Records]]) -> Slurm:
    """Ask one SLURM about all of its runs."""
    if cluster.conf and not records.is_there(Path(cluster.conf)):
        # A sandbox that was taken down ended its jobs and left nothing to ask.
        return Slurm(f"it is gone with {cluster.conf}")
    owners = [owner for owner in (_owner(run) for run, _ in runs) if owner is not None]
    began = time.monotonic()
    answer = queue.queue(cluster, [os.geteuid(), *owners])
    by_token: dict[str, list[Job]] = defaultdict(list)
    for job in answer.jobs:
        for token in gateway.marks(job.comment):
            by_token[token].append(job)
    slurm = Slurm(answer.problem, by_token, {job.job_id: job for job in answer.jobs})
    open_ = [run for run, told in runs if _in_queue(run, slurm) is None and not _has_ended(run, told)]
    ids = {run.submission.job_id for run in open_ if run.submission is not None}
    asked = sorted(filter(str.isdigit, ids), key=int)
    if not asked:
        return slurm
    # With -M both ask accounting for the cluster's address: one that hangs is not waited for twice.
    left = max(queue.LEAST_SECONDS, round(gateway.QUERY_TIMEOUT - (time.monotonic() - began)))
    accounted = queue.accounting(cluster, asked, left)
    problem = None if accounted.problem == queue.NO_ACCOUNTING else accounted.problem
    slurm = replace(slurm, accounted=_by_id(accounted.jobs), unaccounted=problem)
    if slurm.problem is None and any(_in_accounting(run, slurm) is None for run in open_):
        slurm = replace(slurm, controller=lost.controller(cluster))
    return slurm


def _by_id(jobs: Sequence[Job]) -> dict[str, list[Job]]:
    found: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        found[job.job_id].append(job)
    return found


def accounted(status: RunStatus) -> Job | None:
    """Ask accounting how a run's job ended; `None` when it does not know, or there is none."""
    if status.job_id is None:
        return None
    answer = queue.accounting(cluster_of(status.run), [status.job_id])
    return _own(status.run, answer.jobs)


def _owner(run: Run) -> int | None:
    """Whose run it is, by its files."""
    try:
        return run.files.launch.stat().st_uid
    except OSError:
        return None


def _has_ended(run: Run, told: Records) -> bool:
    newest = told.newest(run.token)
    return newest is not None and newest.final


def _in_queue(run: Run, slurm: Slurm) -> Job | None:
    """Find the run's job among those of the controller."""
    own = slurm.by_token.get(run.token or "", ())
    if own:
        # A script that was submitted again by hand has the same word: what lives counts, then the newest.
        return max(own, key=lambda job: (not JobState(job.state).over, int(job.job_id)))
    job = slurm.by_id.get(run.submission.job_id) if run.submission is not None else None
    if job is None or gateway.marks(job.comment):
        return None
    return job if job.script == str(run.files.script) else None


def _in_accounting(run: Run, slurm: Slurm) -> Job | None:
    """Find the run's job among those of accounting."""
    return _own(run, slurm.accounted.get(run.submission.job_id, ())) if run.submission is not None else None


def _own(run: Run, jobs: Sequence[Job]) -> Job | None:
    """Pick a run's job among all that ever had its id, the newest where it was requeued.

    Accounting keeps comments on some clusters only, and there from a job's end on.
    """
    return next((job for job in reversed(jobs) if _is_own(run, job)), None)


def _is_own(run: Run, job: Job) -> bool:
    if run.submission is None:
        return False
    marks = gateway.marks(job.comment)
    if marks:
        return run.token in marks
    submitted = records.time_of(run.submission.submitted_at)
    early = submitted and job.submitted and job.submitted < submitted - CLOCKS
    return job.name == run.name and not early and not _was_used_again(run.submission, run.name)


def _was_used_again(submission: Submission, name: str) -> bool:
    """Whether a later submission of this user's, of the same name, has got the same id."""
    same = [
        entry
        for entry in index.entries()
        if (entry.job_id, entry.cluster, entry.slurm_conf, entry.name)
        == (submission.job_id, submission.cluster, submission.slurm_conf, name)
    ]
    return bool(same) and same[-1].token != submission.token


def _status(run: Run, told: Records, slurm: Slurm | None, now: datetime) -> RunStatus:
    newest = told.newest(run.token)
    alive = newest is not None and records.is_alive(run, newest, now)
    if slurm is None:
        verdict = _without_slurm(run, newest, alive=alive)
    else:
        verdict = _with_slurm(run, newest, slurm, alive=alive, now=now)
    facts = _Facts(run, told, newest, verdict, now)
    return facts.status()


def _with_slurm(
    run: Run, newest: AttemptRecord | None, slurm: Slurm, *, alive: bool, now: datetime
) -> _Verdict:
    job = _in_queue(run, slurm)
    if job is not None:
        return _Verdict(job.state, SQUEUE, _why(job, newest), None, job)
    note = _note(run, slurm)
    if newest is not None and newest.final:
        return _Verdict(_state_of(newest), RECORDS, _why_ended(newest), note)
    job = _in_accounting(run, slurm)
    # A job that its controller has forgotten does not run any more, though accounting may think so for ever.
    if job is not None and (JobState(job.state).over or slurm.problem is not None):
        by_itself = BY_ITSELF if job.state == "CANCELLED" and job.cancelled_by is None else None
        return _Verdict(job.state, SACCT, _why(job, newest) or by_itself, None, job)
    if alive:
        return _Verdict(RUNNING, RECORDS, None, note)
    if newest is None and run.submission is None and not records.is_there(run.files.submission):
        return _Verdict(UNSUBMITTED, RECORDS, "its files are written, and no job was submitted", None)
    return _forgotten(run, newest, slurm, note, now)


def _forgotten(run: Run, newest: AttemptRecord | None, slurm: Slurm, note: str, now: datetime) -> _Verdict:
    """Tell a job that SLURM forgot from one that may have ended, and from another cluster's."""
    if records.was_seen_cancelled(run):
        return _Verdict("CANCELLED", RECORDS, None, note)
    submission, last = run.submission, _last_known(newest, now)
    if slurm.problem is not None:
        return _Verdict(UNKNOWN, RECORDS, last, note)
    if submission is None or not submission.job_id.isdigit():
        return _Verdict(GONE, RECORDS, last, note)
    told = slurm.controller or lost.Controller()
    elsewhere = flight.elsewhere(run.files.launch, submission.token, told.cluster)
    if elsewhere is not None:
        return _Verdict(UNKNOWN, RECORDS, elsewhere, note)
    submitted = records.time_of(submission.submitted_at)
    age = (now - submitted).total_seconds() if submitted else math.inf
    sign = newest.last_sign or newest.started if newest is not None else None
    signs = lifesigns.Signs(
        submission.job_id, started=newest is not None, last=sign.timestamp() if sign is not None else None
    )
    job = _in_accounting(run, slurm)
    if job is not None:
        evidence = f"accounting has it as {job.state}, and its controller does not know it"
        return _Verdict(LOST, RECORDS, f"{last}; {evidence}", note)
    taken = submission.job_id in slurm.by_id
    found = lost.judge(submission.job_id, age, signs, told, taken=taken)
    state = found.state
    if slurm.unaccounted is not None and state in FORGOTTEN:
        state, note = UNKNOWN, f"{UNACCOUNTED}: {slurm.unaccounted}"
    return _Verdict(state, RECORDS, f"{last}; {found.evidence}", note)


def _without_slurm(run: Run, newest: AttemptRecord | None, *, alive: bool) -> _Verdict:
    """Judge a run of another backend's by its records."""
    if newest is not None and newest.final:
        return _Verdict(_state_of(newest), RECORDS, _why_ended(newest))
    if alive:
        return _Verdict(RUNNING, RECORDS)
    if run.submission is not None and run.submission.exit_code is not None:
        code = run.submission.exit_code
        return _Verdict(
            COMPLETED if code == 0 else FAILED, RECORDS, None if code == 0 else f"exit code {code}"
        )
    if newest is None and not records.is_there(run.files.submission):
        return _Verdict(UNSUBMITTED, RECORDS, "its files are written, and it was not started")
    return _Verdict(GONE, RECORDS, _last_known(newest, datetime.now(UTC)))


def _note(run: Run, slurm: Slurm) -> str:
    if slurm.problem is not None:
        return f"{SILENT}: {slurm.problem}"
    job_id = run.submission.job_id if run.submission is not None else ""
    if job_id in slurm.by_id:
        return f"from the run's records: job {job_id} is another one now, SLURM has used the id again"
    return f"from the run's records: SLURM no longer knows {f'job {job_id}' if job_id else 'its job'}"


def _state_of(attempt: AttemptRecord) -> str:
    return STATE_OF.get(attempt.reason or "", FAILED)


def _why(job: Job, newest: AttemptRecord | None) -> str | None:
    if not JobState(job.state).over:
        return job.reason
    own = _why_ended(newest) if newest is not None and newest.final else None
    # A job that was cancelled keeps the reason for which it waited; SLURM itself ends one for this.
    if own is None and job.reason == NEVER_SATISFIED:
        return job.reason
    return own or (None if job.state in {COMPLETED, "CANCELLED"} else job.reason)


def _why_ended(attempt: AttemptRecord) -> str | None:
    """Say why an attempt ended, unless that is what its state says anyway."""
    if attempt.failure:
        return attempt.failure
    failed = [each for each in attempt.row.get("failed") or () if isinstance(each, str)]
    if failed:
        return "; ".join(each.splitlines()[0] for each in failed if each)
    return None if attempt.reason in {"finished", "cancelled", "failed"} else attempt.reason


def _last_known(newest: AttemptRecord | None, now: datetime) -> str:
    """Say what the records tell last of a run whose end is in none of them."""
    if newest is None:
        return "it never started, as far as its records tell"
    if newest.reason is not None:
        return f"attempt {newest.number} ended ({newest.reason}) and went back into the queue"
    where = f" on {newest.host}" if newest.host else ""
    if newest.last_sign is None:
        return f"attempt {newest.number}{where} left no record of its end"
    ago = duration((now - newest.last_sign).total_seconds())
    return (
        f"attempt {newest.number}{where} left no record of its end, and gave its last sign of life {ago} ago"
    )


@dataclass(frozen=True)
class _Facts:
    """What a status is put together from."""

    run: Run
    told: Records
    newest: AttemptRecord | None
    verdict: _Verdict
    now: datetime

    def status(self) -> RunStatus:
        """Put it together."""
        verdict, newest, job = self.verdict, self.newest, self.verdict.job
        over = JobState(verdict.state).over
        runs = not over and verdict.state not in {PENDING, UNKNOWN, UNSUBMITTED}
        found: dict[str, tuple[Any, str]] = {"state": (verdict.state, verdict.source)}
        if newest is not None:
            found |= {name: (value, RECORDS) for name, value in _of_attempt(newest).items() if over or runs}
            found["attempt"] = (newest.number, RECORDS)
        if job is not None:
            said = _of_job(job, over=over, runs=runs)
            # The job began before its attempt, and a record of an end says more than SLURM's exit code.
            found |= {
                name: (value, verdict.source)
                for name, value in said.items()
                if value is not None and (name == "node" or found.get(name, (None, ""))[0] is None)
            }
        found |= {name: (value, RECORDS) for name, value in self._progress(runs=runs).items()}
        submission = self.run.submission
        if submission is not None:
            found["submitted"] = (records.time_of(submission.submitted_at), RECORDS)
        found["gpus"] = (self._planned_gpus(), PLAN)
        known = {name: pair for name, pair in found.items() if pair[0] is not None}
        return RunStatus(
            run=self.run,
            job_id=job.job_id if job is not None else self._recorded_job_id(),
            reason=verdict.reason,
            note=verdict.note,
            gpu_ids=newest.gpus if newest is not None and runs else (),
            gpu_hours=self._gpu_hours(runs=runs),
            sources={name: source for name, (_, source) in known.items()},
            trouble=(
                *self.run.trouble,
                *self.told.trouble,
                *self._silence(runs=runs),
                *(self._unexported() if over else ()),
            ),
            records=self.told,
            cluster=job.cluster if job is not None else None,
            **{name: value for name, (value, _) in known.items()},
        )

    def _recorded_job_id(self) -> str | None:
        submission = self.run.submission
        if submission is not None and submission.job_id:
            return submission.job_id
        return self.newest.job_id or None if self.newest is not None else None

    def _progress(self, *, runs: bool) -> dict[str, Any]:
        state, newest = self.told.state, self.newest
        found: dict[str, Any] = {
            "step": records.whole(state.get("step")),
            "max_steps": records.whole(state.get("max_steps")),
            "reward": records.number(state.get("reward")),
            "loss": records.number(state.get("loss")),
            "updated": records.time_of(state.get("updated")),
        }
        if not runs:
            return found
        current = newest is not None and newest.reason is None and state.get("attempt") == newest.number
        if not current:
            return {**found, "phase": STARTING if newest is None or newest.reason is None else None}
        found["phase"] = records.text(state.get("phase"))
        found["eta"] = eta = records.time_of(state.get("eta"))
        if eta is not None:
            found["seconds_left"] = max(0.0, round((eta - self.now).total_seconds()))
        return found

    def _planned_gpus(self) -> int | None:
        gpus = self.run.plan.get("gpus")
        return records.whole(gpus.get("count")) if isinstance(gpus, dict) else None

    def _gpu_hours(self, *, runs: bool) -> float:
        planned = self._planned_gpus() or 0
        seconds = 0.0
        for attempt in self.told.attempts:
            alive = runs and attempt is self.newest and attempt.reason is None
            seconds += (len(attempt.gpus) or planned) * attempt.seconds(self.now, alive=alive)
        job = self.verdict.job
        if not self.told.attempts and job is not None and job.node and job.start is not None:
            # Of a run whose records are gone SLURM tells how long its job ran last.
            end = job.end if JobState(job.state).over else self.now if runs else None
            seconds = planned * max(0.0, (end - job.start).total_seconds()) if end is not None else 0.0
        return seconds / 3600

    def _unexported(self) -> tuple[str, ...]:
        """Remark that a run is finished and nobody can load what it made."""
        why = records.unexported(self.run, self.newest) if self.newest is not None else None
        if why is None:
            return ()
        way = show(["medarc_slurm", "export", str(self.run.run_dir)])
        return (f"{UNEXPORTED} ({why}); `{way}` writes them",)

    def _silence(self, *, runs: bool) -> tuple[str, ...]:
        """Remark that a run which SLURM calls running gives no sign of life."""
        newest = self.newest
        if not runs or newest is None or newest.reason is not None or newest.last_sign is None:
            return ()
        silent = (self.now - newest.last_sign).total_seconds()
        if silent < records.SILENCE:
            return ()
        return (f"attempt {newest.number} gave its last sign of life {duration(silent)} ago",)


def _of_job(job: Job, *, over: bool, runs: bool) -> dict[str, Any]:
    code = exit_code(job.exit_code)
    return {
        "node": job.node,
        "partition": job.partition,
        "estimated_start": job.start if not over and not runs else None,
        # Of a job that was cancelled while it waited SLURM has a start, and no node.
        "started": job.start if runs or (over and job.node) else None,
        "limit": job.end if runs else None,
        "ended": job.end if over else None,
        # `0:0` of a job that SLURM ended is no code of the script's.
        "exit_code": code if over and (code or job.state == COMPLETED) else None,
    }


def _of_attempt(attempt: AttemptRecord) -> dict[str, Any]:
    found: dict[str, Any] = {"node": attempt.host, "started": attempt.started}
    if attempt.final:
        found |= {"ended": attempt.ended, "exit_code": attempt.exit_code}
    return {name: value for name, value in found.items() if value is not None}


def exit_code(text: str | None) -> int | None:
    """Read SLURM's `code:signal` as a shell reports it: 128 plus the signal that ended the job."""
    match = re.fullmatch(r"(\d+):(\d+)", text or "")
    if match is None:
        return None
    code, number = int(match[1]), int(match[2])
    return 128 + number if number else code


def duration(seconds: float) -> str:
    """Word a time in its two highest units."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s"))
    first = next((place for place, (count, _) in enumerate(units) if count), len(units) - 1)
    return " ".join(f"{count} {unit}" for count, unit in units[first : first + 2] if count) or "0 s"


def clock(time: datetime) -> str:
    """Write a time as people read it, in their zone; with the day unless it is today."""
    local = time.astimezone()
    today = datetime.now(UTC).astimezone().date()
    return local.strftime("at %H:%M" if local.date() == today else "at %Y-%m-%d %H:%M")


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(timespec="seconds")
