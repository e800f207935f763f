"""What a run's logs say of its end: the component that failed first, and everybody's last lines."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medarc_plugin import failures, logs, tails
from medarc_plugin.backends.planning import first_failure, read_log_line
from medarc_plugin.records import is_there

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from medarc_plugin.logs import LogFile
    from medarc_plugin.records import AttemptRecord
    from medarc_plugin.runs import Run
    from medarc_plugin.standing import RunStatus

LAUNCHER = "prime-rl's launcher"
"""As the job names it."""

LINES = 1000
"""Lines of each log that are looked at: tracebacks of all processes, and what each says after."""

_FAILED = re.compile(
    r"(?P<component>.+?) "
    r"(?P<how>ended with exit code (?P<code>-?\d+)|was killed by (?P<signal>\w+)(?: \(.*?\))?)"
    r"(?:: (?P<error>.*?)|, and its log says nothing)?(?:; its log: (?P<log>/.*?)|; it has no log)?",
    re.DOTALL,
)
"""How the job records the component that failed first (job/failures.py)."""

_MILD = re.compile(r"(?:INFO|DEBUG|WARNING)\b")
"""What lines of loggers begin with that set no time before it: uvicorn's."""

_LEVELS = frozenset({"", "ERROR", "CRITICAL", "FATAL"})
"""Levels of what may be an error; lines of a traceback have none."""

_OWN_STEP = re.compile(r"medarc \| (?:step|evaluation|\[ ok \]|\[skip\])")


@dataclass(frozen=True)
class FirstFailure:
    """The component that failed first.

    Attributes:
        component: As the job names it, `trainer` or `train env server reverse-text`.
        how: `ended with exit code 1`, `was killed by SIGKILL`.
        code: Its exit code.
        signal: The signal that ended it.
        error: Its last error; empty where its log has none.
        last: Its last line, where it did not say an error.
        log: The log that this is from.
        alone: The component that runs alone under the launcher, as vLLM does for `inference`.
    """

    component: str
    how: str
    code: int | None = None
    signal: str | None = None
    error: str = ""
    last: str = ""
    log: Path | None = None
    alone: str | None = None

    @property
    def whose(self) -> str:
        """Which of `failures`' components it is."""
        if " env server " in self.component:
            return failures.ENVIRONMENT
        if self.component == LAUNCHER:
            return self.alone or failures.JOB
        return self.component

    def document(self) -> dict[str, Any]:
        """The facts for `--json`."""
        return {
            "component": self.component,
            "exit_code": self.code,
            "signal": self.signal,
            "error": self.error or None,
            "last_line": self.last or None,
            "log": str(self.log) if self.log else None,
        }


@dataclass(frozen=True)
class Said:
    """What a log says.

    Attributes:
        whose: Which of `failures`' components may have said it; none for anybody's.
        label: Whose log it is, for people.
        path: The log.
        lines: Its last lines, each with whether it may be an error.
    """

    whose: str
    label: str
    path: Path
    lines: Sequence[tuple[str, bool]]


def shape_of(run: Run) -> str:
    """Name of the shape of the prime-rl that runs it."""
    fields = run.plan.get("fields")
    shape = fields.get("shape") if isinstance(fields, dict) else None
    return shape if isinstance(shape, str) else ""


def first_of(status: RunStatus, attempt: AttemptRecord, newest: bool) -> FirstFailure | None:
    """Say which component of an attempt failed first.

    Args:
        status: The run.
        attempt: The attempt.
        newest: Whether it is the newest one: its logs may tell what it did not live to record.
    """
    if attempt.failure:
        found = read_failure(attempt.failure, status.run)
        return found or FirstFailure("prime-rl", "failed", error=attempt.failure)
    if not newest or attempt.reason not in {None, "killed", "lost", "failed"}:
        return None
    for log in _logs(status, attempt):
        if log.component == logs.JOB:
            lines = [tails.text_of(line) for line in logs.last_lines(log, LINES, attempt.number)[0]]
            told = first_failure(status.run.run_dir, shape_of(status.run), lines)
            if told is not None:
                return read_failure(str(told), status.run)
    return None


def read_failure(text: str, run: Run) -> FirstFailure | None:
    """Read the sentence in which the job records the component that failed first.

    Args:
        text: The sentence.
        run: The run, in whose directory its log lies now.
    """
    match = _FAILED.fullmatch(text)
    if match is None:
        return None
    how, error = match["how"].partition(" (")[0], match["error"] or ""
    last = error.removeprefix("last line: ") if error.startswith("last line: ") else ""
    return FirstFailure(
        component=match["component"],
        how=how,
        code=int(match["code"]) if match["code"] else None,
        signal=match["signal"],
        error="" if last else error,
        last=last,
        log=_here(Path(match["log"]), run.run_dir) if match["log"] else None,
        alone=_alone(run),
    )


def _alone(run: Run) -> str | None:
    """The component that is all that runs, and has no log of its own."""
    return failures.INFERENCE if run.entrypoint == "inference" else None


def _here(path: Path, run_dir: Path) -> Path:
    """A path that was recorded, where it is now: a run directory may be looked at from another place."""
    if is_there(path):
        return path
    for start in range(1, len(path.parts)):
        moved = run_dir.joinpath(*path.parts[start:])
        if is_there(moved):
            return moved
    return path


def all_said(status: RunStatus, attempt: AttemptRecord | None, first: FirstFailure | None) -> list[Said]:
    """Read all logs of an attempt, those of the component that failed first before the others.

    Args:
        status: The run.
        attempt: The attempt; `None` for a job that never came to one.
        first: The component that failed first.
    """
    found = [_read(log, attempt, status.run) for log in _logs(status, attempt)]
    if first is not None and first.log is not None and first.log not in [said.path for said in found]:
        lines, _ = tails.last_lines(first.log, LINES)
        found.append(Said(first.whose, first.component, first.log, list(_lines(lines))))
    mine = first.log if first is not None else None
    own = first.whose if first is not None else None
    return sorted(found, key=lambda said: (said.path != mine, said.whose != own))


def _logs(status: RunStatus, attempt: AttemptRecord | None) -> list[LogFile]:
    found = logs.find(status.run, status.records)
    if attempt is None:
        return [log for log in found if log.attempt is None][-1:]
    return logs.of_attempt(found, status.records, attempt.number)


def _read(log: LogFile, attempt: AttemptRecord | None, run: Run) -> Said:
    lines, _ = logs.last_lines(log, LINES, attempt.number if attempt else None)
    component = (_alone(run) if log.component == logs.JOB else None) or log.component
    return Said(component, log.label, log.path, list(_lines(lines)))


def _lines(lines: Sequence[bytes]) -> Iterator[tuple[str, bool]]:
    for raw in lines:
        text = tails.text_of(raw)
        if _OWN_STEP.match(text):
            continue
        line = read_log_line(text)
        yield line.message, line.level in _LEVELS and not _MILD.match(line.message)
        for below in line.trace.splitlines():
            yield below, True
