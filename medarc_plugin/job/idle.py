"""The idle watchdog: notices a run that does nothing any more, and says who was waiting for whom."""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from .formats import MAIN, Format, Mark, read_line
from .progress import duration
from .tail import Tail, last_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MOST_USE = 5.0
"""Percent of a GPU's use up to which it counts as still: looking at it causes some."""

INTERVAL = 10.0
"""Seconds between two looks at all logs."""

GAP = 60.0
"""Seconds between two ticks from which on it is this process that stood still, as when suspended."""

LOG_BYTES = 64 * 1024
"""Bytes of what a log gained that are read in a look."""

REMEMBERED = 32
"""Different lines of a log that are known when they come again."""

MOST_LOGS = 200


class LogActivity:
    """Tells whether a run's metrics and logs say anything new.

    A line that is repeated word for word is nothing new, nor is one that prime-rl is known to write
    while it waits: its orchestrator says every ten seconds how full the batch is, whatever happens.

    Args:
        run_dir: The run directory.
        metrics: The metrics file; `None` where there is none.
        form: How this prime-rl words things.
        clock: Seconds that only go up.
    """

    def __init__(
        self,
        run_dir: Path,
        metrics: Path | None,
        form: Format = MAIN,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logs = run_dir / form.logs
        self._metrics = metrics
        self._size = -1
        self._form = form
        self._clock = clock
        self._looked = -INTERVAL
        self._followed: dict[str, _Followed] = {}
        self.count = 0

    def look(self) -> int:
        """Look at the files when it is time.

        Returns:
            A number that is another one whenever something new was said.
        """
        now = self._clock()
        if now - self._looked < INTERVAL:
            return self.count
        self._looked = now
        news = self._metrics_changed()
        paths = list(self._paths())
        self._followed = {path: self._followed.get(path) or _Followed(path) for path in paths}
        for followed in self._followed.values():
            news |= followed.says_something_new(self._form)
        self.count += news
        return self.count

    def _metrics_changed(self) -> bool:
        if self._metrics is None:
            return False
        try:
            size = self._metrics.stat().st_size
        except OSError:
            return False
        changed = size != self._size
        self._size = size
        return changed

    def _paths(self) -> Iterator[str]:
        count = 0
        for folder, _, names in os.walk(os.path.realpath(self._logs)):
            for name in names:
                if name.endswith(".log") and count < MOST_LOGS:
                    count += 1
                    yield f"{folder}/{name}"


class _Followed:
    """A log and what it said of late."""

    def __init__(self, path: str) -> None:
        self._tail = Tail(Path(path), backlog=LOG_BYTES)
        self._known: deque[int] = deque(maxlen=REMEMBERED)

    def says_something_new(self, form: Format) -> bool:
        before = self._tail.offset
        lines = self._tail.read(LOG_BYTES)
        # A progress bar goes on in one line.
        news = not lines and self._tail.offset != before
        for line in lines:
            message = read_line(line).message
            if form.chatter.search(message) or not message.strip():
                continue
            mark = hash(message)
            if mark not in self._known:
                self._known.append(mark)
                news = True
        return news


class IdleWatch:
    """Ends a run whose logs and GPUs are still for too long.

    Where it is not known what the GPUs do, the logs alone decide.

    Args:
        seconds: How long a run may be still.
        run_dir: The run directory.
        form: How this prime-rl words things.
        clock: Seconds that only go up.
    """

    def __init__(
        self,
        seconds: float,
        run_dir: Path,
        form: Format = MAIN,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = seconds
        self._run_dir = run_dir
        self._form = form
        self._clock = clock
        self._activity: int | None = None
        self._last = self._since = clock()

    def tick(self, log_activity: int, gpu_use: float | None) -> str | None:
        """Take note of what the run does.

        Args:
            log_activity: What `LogActivity.look` returned.
            gpu_use: The highest use among the run's GPUs, in percent; `None` when it is not known.

        Returns:
            Why the run is to be ended, once it has been still for too long.
        """
        now = self._clock()
        gap, self._last = now - self._last, now
        if gap >= GAP:
            self._since += gap
        if log_activity != self._activity or (gpu_use or 0.0) > MOST_USE:
            self._activity, self._since = log_activity, now
        if now - self._since < self._seconds:
            return None
        self._since = now
        gpus = "what its GPUs do is not known" if gpu_use is None else f"no GPU above {MOST_USE:.0f} %"
        return (
            f"nothing happened for {duration(self._seconds)} (no new line in the logs, {gpus}): "
            f"{who_waits(self._run_dir, self._form)}"
        )


def who_waits(run_dir: Path, form: Format = MAIN) -> str:
    """Say which component was waiting for which, as far as their logs tell.

    Args:
        run_dir: The run directory.
        form: How this prime-rl words things.
    """
    logs = (run_dir / form.logs).resolve()
    waits, lasts = [], []
    for component, name in form.log.items():
        messages = [read_line(line).message.strip() for line in last_lines(logs / name)]
        said = [message for message in messages if message and not form.chatter.search(message)]
        found = _waits_for([mark for mark in form.marks if mark.component == component], messages)
        if found:
            waits.append(f"{component} was waiting for {found}")
        elif said:
            lasts.append(f"{component}'s last line is {said[-1]!r:.160}")
    told = waits or ["its logs do not tell which component was waiting for which"]
    return "; ".join(told + lasts)


def _waits_for(marks: list[Mark], messages: list[str]) -> str:
    """Whom the last line that tells says is waited for; empty for nobody."""
    weak = ""
    for message in reversed(messages):
        mark = next((mark for mark in marks if mark.pattern.search(message)), None)
        if mark is None:
            continue
        if not mark.weak:
            return mark.waits_for or weak
        weak = weak or mark.waits_for
    return weak
