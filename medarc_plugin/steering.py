"""Ending runs and waiting for their end."""

from __future__ import annotations

import contextlib
import os
import re
import signal as signals
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medarc_plugin import records
from medarc_plugin.errors import SlurmError, UsageError
from medarc_plugin.logs import ending, waiting, who
from medarc_plugin.models import JobState
from medarc_plugin.slurm import gateway, queue
from medarc_plugin.standing import (
    COMPLETED,
    FORGOTTEN,
    PENDING,
    RECORDS,
    SLURM,
    UNSUBMITTED,
    backend_of,
    cluster_of,
    exit_code,
)
from medarc_plugin.watching import Pace, Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from medarc_plugin.runs import Run
    from medarc_plugin.slurm.gateway import Cluster
    from medarc_plugin.standing import RunStatus

TIMED_OUT = 124
"""Exit code of a `wait` that waited long enough, as timeout(1) has it."""

UNKNOWN_END = 125
"""Exit code of a `wait` for a run of which nobody knows how it ended."""

CANCELLED_CODE = 128 + signals.SIGTERM
"""Exit code of a run that was cancelled while it waited, and so ended with none of its own."""

CODES = range(1, 256)
"""Exit codes of what failed. Of any other number a shell would make one of its own, 0 of 256."""

FAILED_CODE = 1
"""Exit code of a run that SLURM calls failed without saying more."""

LOOK_SECONDS, MOST_LOOK_SECONDS = 0.5, 5.0

RECORD_SECONDS = 10.0
"""How long a run's record of its end may be behind SLURM's word: a network file system shows it late."""

SLURMS_SIGNALS = re.compile(r"(SIG)?[A-Z][A-Z0-9]*|[1-9]\d?")


@dataclass(frozen=True)
class Ended:
    """What came of ending a run.

    Attributes:
        status: How it stands.
        gone: Whether it is over and nothing of it runs any more.
        text: What happened, in a sentence.
    """

    status: RunStatus
    gone: bool
    text: str


def wait(
    run: Run,
    seconds: float | None,
    say: Callable[[str], None],
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[RunStatus, int]:
    """Wait for a run's end.

    Args:
        run: The run.
        seconds: How long at most; `None` for ever.
        say: Told what it does meanwhile.
        pause: Waits for a number of seconds.
        clock: Seconds that only go up.

    Returns:
        How it stands, and the exit code of `wait`.

    Raises:
        UsageError: It was not submitted.
    """
    watcher, pace = Watcher([run]), Pace(LOOK_SECONDS, MOST_LOOK_SECONDS)
    until = None if seconds is None else clock() + seconds
    said = ""
    while True:
        (status,) = watcher.look()
        if status.state == UNSUBMITTED:
            raise UsageError(f"{run.run_dir} was not submitted: there is no end to wait for")
        if status.over:
            return status, code_of(status)
        text = waiting(status) if status.state == PENDING else _doing(status)
        if text != said:
            said = text
            say(text)
        left = None if until is None else until - clock()
        if left is not None and left <= 0:
            return status, TIMED_OUT
        most = pace.after((status.state, status.attempt))
        pause(most if left is None else min(most, left))


def _doing(status: RunStatus) -> str:
    attempt = f", attempt {status.attempt}" if status.attempt else ""
    return f"{who(status)} is {status.state}{attempt}" + (f" ({status.note})" if status.note else "")


def code_of(status: RunStatus) -> int:
    """The exit code of a run that is over: its own, else what SLURM knows of it."""
    code = status.exit_code
    if (
        code is None
        and status.job_id is not None
        and status.job_id.isdigit()
        and status.sources.get("state") != RECORDS
    ):
        run = status.run
        submitted = status.submitted.timestamp() if status.submitted is not None else 0.0
        state = gateway.job_state(status.job_id, _cluster_of(status), run.token, run.files.script, submitted)
        code = exit_code(state.exit_code)
    if status.state == COMPLETED:
        return code or 0
    if status.state in FORGOTTEN or not JobState(status.state).over:
        return UNKNOWN_END
    if code is not None and code in CODES:
        return code
    return CANCELLED_CODE if status.state == "CANCELLED" else FAILED_CODE


def cancel(
    runs: Sequence[Run],
    seconds: float,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> list[Ended]:
    """End runs, and wait until nothing of them runs any more.

    Only jobs that carry a run's word, or run its script, are ended.

    Args:
        runs: The runs.
        seconds: How long to wait at most.
        pause: Waits for a number of seconds.
        clock: Seconds that only go up.

    Returns:
        What came of each.

    Raises:
        SlurmError: SLURM does not answer.
    """
    watcher, pace = Watcher(runs), Pace(LOOK_SECONDS, MOST_LOOK_SECONDS)
    found = watcher.look()
    before = [status.over for status in found]
    _refuse_unreachable(found)
    sent = _send(found, None, frozenset())
    until = clock() + seconds
    over_since: float | None = None
    while True:
        found = watcher.look(now=True)
        # A script that was submitted by hand too has another job, seen when the first one is gone.
        sent |= _send(found, None, sent)
        if all(status.over or status.unaccounted for status in found):
            over_since = clock() if over_since is None else over_since
            if all(is_gone(status) for status in found) or clock() - over_since >= RECORD_SECONDS:
                break
        if clock() >= until:
            break
        pause(min(pace.after([status.state for status in found]), max(0.0, until - clock())))
    for status in found:
        _remember(status)
    return [_ended(status, was_over=over) for status, over in zip(found, before, strict=True)]


def _cluster_of(status: RunStatus) -> Cluster:
    """The cluster that has a run's job: on another one its id is another job's."""
    return cluster_of(status.run).with_job(status.cluster)


def _remember(status: RunStatus) -> None:
    """Keep what SLURM says of the end of a job that left no record of it."""
    newest = status.records.newest(status.run.token)
    if status.state == "CANCELLED" and (newest is None or not newest.final):
        with contextlib.suppress(OSError):
            records.remember_cancelled(status.run, status.job_id)


def send_signal(runs: Sequence[Run], name: str) -> list[RunStatus]:
    """Send a signal to the processes that own runs.

    Args:
        runs: The runs.
        name: The signal, `USR2`.

    Returns:
        How they stood.

    Raises:
        UsageError: It is no signal, or one of the runs does not run.
        SlurmError: SLURM does not answer, or refuses.
    """
    if not SLURMS_SIGNALS.fullmatch(name):
        raise UsageError(f"{name!r} is no signal", hint="a name such as USR2 or TERM, or its number")
    found = Watcher(runs).look()
    _refuse_unreachable(found)
    for status in found:
        if status.over or status.unaccounted or status.state == PENDING:
            raise UsageError(
                f"{ending(status) if status.over else waiting(status)}: there is no process to signal",
                hint="cancel without --signal ends it in the queue" if not status.over else None,
            )
    _send(found, name, frozenset())
    return found


def is_gone(status: RunStatus) -> bool:
    """Whether a run that is over has nothing running any more, as far as its records tell."""
    newest = status.records.newest(status.run.token)
    if newest is None or newest.reason is not None:
        return True
    beat = records.heartbeat(status.run, newest.number)
    return bool(beat.get("ended")) or records.owner_here(beat) is False


def _ended(status: RunStatus, *, was_over: bool) -> Ended:
    if status.unaccounted:
        return Ended(status, is_gone(status), f"nothing to end of {who(status)} ({status.note})")
    if not status.over:
        where = f" on {status.node}" if status.node else ""
        return Ended(
            status, False, f"{who(status)} is still {status.state}{where}: SLURM has not ended it yet"
        )
    text = f"nothing to end, {ending(status)}" if was_over else ending(status)
    if is_gone(status):
        return Ended(status, True, text)
    newest = status.records.newest(status.run.token)
    where = f" on {newest.host}" if newest is not None and newest.host else ""
    return Ended(
        status,
        was_over,
        f"{text}; its attempt{where} left no record of its end: it was killed, or the node does not answer",
    )


def _refuse_unreachable(found: Sequence[RunStatus]) -> None:
    """Refuse to end what cannot be known to be the run's."""
    for status in found:
        if status.over or backend_of(status.run) != SLURM or status.sources.get("state") != RECORDS:
            continue
        if status.unaccounted:
            continue
        if status.unanswered:
            raise SlurmError(
                f"SLURM does not answer, so {who(status)} cannot be ended: {status.note}",
                hint="`scontrol ping` says when it is back",
            )
        newest = status.records.newest(status.run.token)
        beat = records.heartbeat(status.run, newest.number) if newest is not None else {}
        raise SlurmError(
            f"SLURM does not know {who(status)}, and yet {status.run.run_dir} gives signs of life",
            hint=f"end its owner where it runs: ssh {beat.get('host')} kill {beat.get('process')}",
        )


def _send(found: Sequence[RunStatus], name: str | None, sent: frozenset[str]) -> frozenset[str]:
    """End the jobs of runs that are not over, or signal them; says which, by job or directory."""
    jobs: dict[Cluster, list[str]] = defaultdict(list)
    here: list[str] = []
    for status in found:
        if status.over or {status.job_id, str(status.run.run_dir)} & sent:
            continue
        if backend_of(status.run) != SLURM:
            _signal_here(status, name)
            here.append(str(status.run.run_dir))
        elif status.job_id is not None and status.sources.get("state") != RECORDS:
            jobs[_cluster_of(status)].append(status.job_id)
    for cluster, ids in jobs.items():
        problem = queue.end(ids, cluster, name)
        if problem is not None and name is not None:
            raise SlurmError(f"job {', '.join(ids)} could not be signalled: {problem}")
        if problem is not None and "contact" in problem:
            raise SlurmError(
                f"job {', '.join(ids)} could not be ended: {problem}",
                hint="`scontrol ping` says when the controller is back",
            )
    return frozenset([*here, *(job_id for ids in jobs.values() for job_id in ids)])


def _signal_here(status: RunStatus, name: str | None) -> None:
    """Signal the owner of a run of the local backend.

    Raises:
        SlurmError: It does not run on this machine, or is not this user's, or there is no such signal.
    """
    newest = status.records.newest(status.run.token)
    beat = records.heartbeat(status.run, newest.number) if newest is not None else {}
    if not records.owner_here(beat):
        raise SlurmError(
            f"{status.run.run_dir} runs on {beat.get('host') or 'another machine'}, not here",
            hint="end it there: Ctrl-C in its terminal, or this command",
        )
    try:
        os.kill(int(beat["process"]), _number(name))
    except ProcessLookupError:
        return  # it has ended by itself: who asks looks again
    except OSError as error:
        raise SlurmError(f"{status.run.run_dir} could not be signalled: {error.strerror}") from None


def _number(name: str | None) -> int:
    if name is None:
        return signals.SIGTERM
    if name.isdigit():
        return int(name)
    number = getattr(signals, f"SIG{name.removeprefix('SIG')}", None)
    if not isinstance(number, signals.Signals):
        raise UsageError(f"{name!r} is no signal of this machine's")
    return number
