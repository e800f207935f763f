"""A run's logs: which there are, of which component and attempt, and following them to the run's end."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medarc_plugin import tails
from medarc_plugin.backends.planning import log_format
from medarc_plugin.records import is_there
from medarc_plugin.standing import GONE, LOST, PENDING, UNEXPORTED, UNSUBMITTED, backend_of, clock
from medarc_plugin.watching import Pace, Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from medarc_plugin.records import Records
    from medarc_plugin.runs import Run
    from medarc_plugin.standing import RunStatus

JOB, ENVIRONMENT = "job", "env"
COMPONENTS = (JOB, "trainer", "orchestrator", "inference", "evals", ENVIRONMENT)
"""Whose logs there are, in the order in which they are shown."""

LOOK_SECONDS, MOST_LOOK_SECONDS = 0.5, 3.0
"""Between two looks at the files: when something is new, and at most."""

QUIET_LOOKS = 2
"""Looks without anything new after which the logs of a run that is over are complete: a network file system
shows late what was written last."""

_BEGINNING = re.compile(rb"medarc \| .*: (?:rl|sft|inference), attempt (\d+), (?:job \d+|outside SLURM)\s*$")
"""What an attempt prints first."""


@dataclass(frozen=True)
class LogFile:
    """One log.

    Attributes:
        component: Whose: one of `COMPONENTS`.
        label: What its lines are marked with: the component, or an environment's name with its split.
        path: The file.
        attempt: The attempt that it is of; `None` for a job's, which is of all of that job's attempts.
    """

    component: str
    label: str
    path: Path
    attempt: int | None = None


def find(run: Run, told: Records, components: Collection[str] = COMPONENTS) -> list[LogFile]:
    """List all logs of a run, in the order in which they came to be.

    Args:
        run: The run.
        told: Its records.
        components: Whose.
    """
    found = [*_of_jobs(run, told), *_of_attempts(run, told)]
    return [log for log in found if log.component in components]


def of_attempt(found: Sequence[LogFile], told: Records, attempt: int | None = None) -> list[LogFile]:
    """Choose the logs of one attempt; without its number of the newest one.

    Of jobs that is the log of the attempt's job, which may hold other attempts too.
    """
    number = attempt if attempt is not None else max((log.attempt or 0 for log in found), default=0)
    own = [log for log in found if log.attempt == number]
    jobs = [log for log in found if log.attempt is None]
    if attempt is None:
        return jobs[-1:] + own
    job_id = next((each.job_id for each in told.attempts if each.number == attempt), None)
    return [log for log in jobs if job_id and log.path.name == f"job_{job_id}.log"] + own


def last_lines(log: LogFile, count: int, attempt: int | None = None) -> tuple[list[bytes], int]:
    """Read a log's last lines.

    Args:
        log: The log.
        count: How many at most.
        attempt: Of a job's log, what this attempt printed.

    Returns:
        The lines, and where in the file they end.
    """
    if attempt is None or log.attempt is not None:
        return tails.last_lines(log.path, count)
    start, end = _section(log.path, attempt)
    return tails.last_lines(log.path, count, start, end)


def _section(path: Path, attempt: int) -> tuple[int, int | None]:
    """Where an attempt begins and ends in its job's log; nowhere when it is not in it."""
    start: int | None = None
    for found, place in tails.sections(path, _BEGINNING):
        if start is not None:
            return start, place
        if int(found[1]) == attempt:
            start = place
    return (0, 0) if start is None else (start, None)


def _of_jobs(run: Run, told: Records) -> Iterator[LogFile]:
    """Logs of jobs, the newest last; of the local backend what its attempts printed."""
    if backend_of(run) == "local":
        for attempt in told.attempts:
            path = run.run_dir / "configs" / "attempts" / str(attempt.number) / "prime_rl.log"
            if is_there(path):
                yield LogFile(JOB, JOB, path, attempt.number)
        return
    ids = dict.fromkeys(attempt.job_id for attempt in told.attempts if attempt.job_id.isdigit())
    if run.submission is not None and run.submission.job_id.isdigit():
        # The newest submission's comes last, whether or not it has begun.
        ids.pop(run.submission.job_id, None)
        ids[run.submission.job_id] = None
    else:
        # Submitted by hand: nobody recorded its id before it began.
        names = sorted(run.run_dir.glob(run.files.log_of("*").name), key=_changed)
        ids |= dict.fromkeys(path.stem.removeprefix("job_") for path in names)
    for job_id in ids:
        path = run.files.log_of(job_id)
        if is_there(path):
            yield LogFile(JOB, JOB, path)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _of_attempts(run: Run, told: Records) -> Iterator[LogFile]:
    """Logs of components: those of each launch, and of a server that was started before prime-rl."""
    form = log_format(_shape(run))
    attempts = run.run_dir / "configs" / "attempts"
    begun = [(each.number, _changed(attempts / str(each.number) / "started.json")) for each in told.attempts]
    for folder in _launches(run, form.logs, keeps=form.keeps_logs):
        changed = _changed(folder)
        # A launch's folder gets its logs while its attempt lives; both times are of the same file system.
        number = max((number for number, start in begun if start <= changed), default=1)
        for component in COMPONENTS:
            name = form.log.get(component)
            if name and is_there(folder / name):
                yield LogFile(component, component, folder / name, number)
        pattern = form.env_log.format(split="*", name="*")
        for path in sorted(folder.glob(pattern)):
            yield LogFile(ENVIRONMENT, f"env {path.parent.name}/{path.stem}", path, number)
    for number, _ in begun:
        path = attempts / str(number) / "inference.log"
        if is_there(path):
            yield LogFile("inference", "inference", path, number)


def _launches(run: Run, logs: str, *, keeps: bool) -> list[Path]:
    """The folders of logs that prime-rl's launches left, the oldest first."""
    newest = run.run_dir / logs
    if keeps:
        found = [path for path in newest.parent.glob("attempt_*") if _is_number(path.name[8:])]
        return sorted(found, key=lambda path: int(path.name[8:]))
    kept = [path for path in run.run_dir.glob(f"{logs}_*") if _is_number(path.name[len(logs) + 1 :])]
    older = sorted(kept, key=lambda path: int(path.name[len(logs) + 1 :]))
    return [*older, *([newest] if is_there(newest) else [])]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _shape(run: Run) -> str:
    """Name of the shape of the prime-rl that runs it."""
    fields = run.plan.get("fields")
    shape = fields.get("shape") if isinstance(fields, dict) else None
    return shape if isinstance(shape, str) else ""


class Follower:
    """Shows what a run's logs gain, across components, attempts and requeues, until the run is over.

    Args:
        run: The run.
        components: Whose logs.
        attempt: Only this attempt's; `None` for all from the newest on.
        lines: How many of the last lines of each log are shown first.
        show: Called with lines of a log.
        say: Called with what is to be said of the run itself.
        pause: Waits for a number of seconds.
    """

    def __init__(
        self,
        run: Run,
        components: Collection[str],
        attempt: int | None,
        lines: int,
        show: Callable[[LogFile, Sequence[bytes]], None],
        say: Callable[[str], None],
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._run = run
        self._components = components
        self._attempt = attempt
        self._lines = lines
        self._show = show
        self._say = say
        self._pause = pause
        self._watcher = Watcher([run])
        self._growing: dict[Path, tuple[LogFile, tails.Growth]] | None = None
        self._said: str | None = None
        self._number: int | None = None

    def follow(self) -> RunStatus:
        """Follow the run to its end.

        Returns:
            How it stands then.
        """
        pace, looks, quiet = Pace(LOOK_SECONDS, MOST_LOOK_SECONDS), 0, 0
        while True:
            (status,) = self._watcher.look()
            first = self._growing is None
            self._announce(status)
            if self._take(status):
                looks, quiet = looks + 1, 0
            elif self._is_over(status):
                quiet += 1
            if self._is_over(status) and (first or quiet >= QUIET_LOOKS):
                break
            self._pause(pace.after((looks, status.state)))
        for log, growth in (self._growing or {}).values():
            self._print(log, growth.end())
        self._say(ending(status))
        return status

    def _is_over(self, status: RunStatus) -> bool:
        """Whether nothing more is to come: the run is over, or the attempt that was asked for."""
        ended = {each.number for each in status.records.attempts if each.reason is not None}
        return status.over or self._attempt in ended

    def _announce(self, status: RunStatus) -> None:
        """Say what the logs do not: that the run waits, that an attempt begins, that SLURM is silent."""
        if status.attempt != self._number and status.attempt is not None:
            self._number = status.attempt
            self._say(f"attempt {status.attempt}" + (f" on {status.node}" if status.node else ""))
        text = waiting(status) if status.state == PENDING else status.note
        if text != self._said and not status.over:
            self._said = text
            if text:
                self._say(text)

    def _take(self, status: RunStatus) -> bool:
        """Show what is new; says whether anything is."""
        found = find(self._run, status.records, self._components)
        if self._growing is None:
            return self._begin(found, status.records)
        for log in found:
            if log.path not in self._growing and log.attempt in {None, self._attempt or log.attempt}:
                self._growing[log.path] = log, tails.Growth(log.path)
        gains = [(log, growth.look()) for log, growth in self._growing.values()]
        for log, lines in gains:
            self._print(log, lines)
        return any(lines for _, lines in gains)

    def _begin(self, found: Sequence[LogFile], told: Records) -> bool:
        """Show the last lines of the newest attempt's logs; of older ones nothing will come."""
        shown = of_attempt(found, told, self._attempt)
        self._growing = {}
        for log in found:
            if log not in shown:
                self._growing[log.path] = log, tails.Growth(log.path, _size(log.path))
        for log in shown:
            lines, end = last_lines(log, self._lines, self._attempt)
            if lines and not _ends_with_a_line(log.path, end):
                # It may be going on: shown when it is whole.
                end -= len(lines.pop())
            self._growing[log.path] = log, tails.Growth(log.path, end)
            self._print(log, lines)
        return False

    def _print(self, log: LogFile, lines: Sequence[bytes]) -> None:
        if lines:
            self._show(log, lines)


def who(status: RunStatus) -> str:
    """Name a run in a sentence: by its job, where it has one."""
    return f"job {status.job_id}" if status.job_id else f"run {status.run.name}"


def waiting(status: RunStatus) -> str:
    """Say that a run waits, and for what."""
    start = f", expected to start {clock(status.estimated_start)}" if status.estimated_start else ""
    return f"{who(status)} is waiting" + (f" ({status.reason})" if status.reason else "") + start


def going(status: RunStatus) -> str:
    """Say how a run stands that is not over."""
    if status.state == PENDING:
        return waiting(status)
    return f"{who(status)} is {status.state}" + (f" ({status.reason})" if status.reason else "")


def ending(status: RunStatus) -> str:
    """Say how a run ended."""
    code = f", exit code {status.exit_code}" if status.exit_code is not None else ""
    words = {LOST: "is lost", GONE: "is gone", UNSUBMITTED: "was not submitted"}
    how = words.get(status.state, f"is over: {status.state}" if status.over else f"is {status.state}")
    why = [*filter(None, (status.reason,)), *(each for each in status.trouble if each.startswith(UNEXPORTED))]
    return f"{who(status)} {how}{code}" + (f": {'; '.join(why)}" if why else "")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _ends_with_a_line(path: Path, end: int) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(max(0, end - 1))
            return end == 0 or file.read(1) == b"\n"
    except OSError:
        return True
