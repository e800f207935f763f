"""Looking at runs again and again: often at their own files, and at SLURM the less often the less changes."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from medarc_plugin import standing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from medarc_plugin.records import Records
    from medarc_plugin.runs import Run
    from medarc_plugin.standing import RunStatus, Slurm

FIRST, MOST = 2.0, 30.0
"""Seconds between two questions to SLURM: after a change, and at most."""

ASKING = "asking SLURM"
"""Name of the thread that does."""


class Pace:
    """How long to wait before the next question: longer and longer while nothing changes.

    Args:
        first: Seconds after a change.
        most: Seconds at most.
    """

    def __init__(self, first: float = 1.0, most: float = 30.0) -> None:
        self._first, self._most = first, most
        self._last: object = None
        self._seconds = first

    def after(self, seen: object) -> float:
        """Say how long to wait.

        Args:
            seen: What was seen; when it is not what was seen before, the pace is the first one again.
        """
        changed, self._last = seen != self._last, seen
        self._seconds = self._first if changed else min(self._most, self._seconds * 1.5)
        return self._seconds


class Watcher:
    """Knows how runs stand, over and over.

    Their files are read at each look. SLURM is asked at the first one, and later on beside it: a controller
    that hangs keeps nobody waiting. It is asked at once when an attempt begins or ends, and otherwise at a
    pace that slows down while its answer stays the same.

    Args:
        runs: The runs.
        clock: Seconds that only go up.
    """

    def __init__(self, runs: Sequence[Run], clock: Callable[[], float] = time.monotonic) -> None:
        self.runs = tuple(runs)
        self._clock = clock
        self._pace = Pace(FIRST, MOST)
        self._due = 0.0
        self._asked_at: object = None
        self._answers: list[Slurm | None] | None = None
        self._asking: threading.Thread | None = None
        self._news: list[Slurm | None] | None = None

    def look(self, *, now: bool = False) -> list[RunStatus]:
        """Say how they stand.

        Args:
            now: Ask SLURM whatever the pace, and wait for its answer.
        """
        told = standing.read(self.runs)
        known = [_known(records) for records in told]
        if self._answers is None or now:
            if self._asking is not None:
                self._asking.join()
            self._asked_at = known
            self._news = standing.ask(self.runs, told)
        elif self._asking is None and (self._clock() >= self._due or known != self._asked_at):
            self._asked_at = known
            self._ask(told)
        if self._news is None:
            return standing.judge(self.runs, told, self._answers or [None] * len(self.runs))
        self._answers, self._news, self._asking = self._news, None, None
        found = standing.judge(self.runs, told, self._answers)
        said = [(status.state, status.reason, status.job_id, status.note) for status in found]
        self._due = self._clock() + self._pace.after(said)
        return found

    def _ask(self, told: Sequence[Records]) -> None:
        def ask() -> None:
            self._news = standing.ask(self.runs, told)

        # A daemon: it must not hold up the end of a command that was interrupted.
        self._asking = threading.Thread(target=ask, name=ASKING, daemon=True)
        self._asking.start()


def _known(told: Records) -> tuple[object, ...]:
    """What of a run's records says that SLURM's answer will be another one."""
    return tuple((attempt.number, attempt.reason) for attempt in told.attempts)
