"""What stays of a run's course: what its GPUs did, and the phases of each attempt.

`configs/launch/gpus.jsonl` has a row now and then, of all attempts together. When it has grown long,
neighbours are merged, and rows are written more rarely from then on: however long a run takes, it never
has more than `MOST_ROWS`. `configs/attempts/N/phases.jsonl` has a row for each change of the phase.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from . import record
from .gpuwatch import INTERVAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from .gpuwatch import Reading

MOST_ROWS = 3000
"""Eight hours, at a row every ten seconds."""

MOST_BYTES = 32 * 1024 * 1024
"""Bytes of a file that is looked at; a longer one was not written by a job."""

MOST_PHASES = 5000
"""Rows of an attempt's phases."""

Row = dict[str, Any]


class GpuTimeline:
    """Keeps what the GPUs did.

    Args:
        path: The file.
        attempt: This attempt's number.
        clock: Seconds of the epoch.
    """

    def __init__(self, path: Path, attempt: int, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._attempt = attempt
        self._clock = clock
        self._last: Sequence[Reading] | None = None
        self._waiting: list[Row] = []
        self._since = clock()
        self._rows = 0
        self._seconds = INTERVAL
        self._begun = self._kept = False

    def take(self, readings: Sequence[Reading] | None) -> None:
        """Keep an answer of `GpuWatch.tick`; one that was kept already is nothing new.

        Raises:
            OSError: The file cannot be written.
        """
        if readings is None or readings is self._last:
            return
        self._last = readings
        now = self._clock()
        self._waiting.append(
            {
                "time": round(now),
                "seconds": 0,
                "attempt": self._attempt,
                "gpus": [reading.document() for reading in readings],
            }
        )
        if not self._begun:
            self._begin()
        # An answer that is early by a tick need not wait for the next one; the first one never waits.
        if self._kept and now - self._since < self._seconds - INTERVAL / 2:
            return
        row = merged(self._waiting)
        # An answer that came late says nothing of the time before.
        row["seconds"] = round(min(now - self._since, self._seconds))
        self._waiting, self._since, self._kept = [], now, True
        record.append_line(self.path, row)
        self._rows += 1
        if self._rows > MOST_ROWS:
            self._shorten(read_rows(self.path))

    def _begin(self) -> None:
        """Go on where an earlier attempt ended."""
        self._begun = True
        rows = read_rows(self.path)
        self._rows = len(rows)
        self._seconds = max([INTERVAL, *(row["seconds"] for row in rows)])

    def _shorten(self, rows: list[Row]) -> None:
        most = MOST_ROWS * 2 // 3
        while len(rows) > most and self._seconds < _DAY:
            self._seconds *= 2
            rows = thinned(rows, self._seconds)
        # Rows that cannot be merged, as of very many short attempts: the oldest go.
        rows = rows[-most:]
        record.write_text_whole(self.path, "".join(json.dumps(row) + "\n" for row in rows))
        self._rows = len(rows)


_DAY = 86400.0


def read_rows(path: Path) -> list[Row]:
    """Read the rows, as far as they are whole; none of a file that no job wrote."""
    try:
        if path.stat().st_size > MOST_BYTES:
            return []
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [row for row in map(_row, lines) if row is not None]


def _row(line: str) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("gpus"), list):
        return None
    numbers = all(isinstance(row.get(name), (int, float)) for name in ("time", "seconds"))
    gpus = all(isinstance(gpu, dict) and "index" in gpu for gpu in row["gpus"])
    return row if numbers and gpus else None


def thinned(rows: Sequence[Row], seconds: float) -> list[Row]:
    """Merge neighbours, as long as together they reach over no more than some seconds.

    Only rows of the same attempt and the same GPUs are neighbours.

    Args:
        rows: The rows, in order.
        seconds: The most that a merged row reaches over.
    """
    groups: list[list[Row]] = []
    for row in rows:
        if groups and _may_join(groups[-1], row, seconds):
            groups[-1].append(row)
        else:
            groups.append([row])
    return [merged(group) for group in groups]


def _may_join(group: Sequence[Row], row: Row, seconds: float) -> bool:
    first = group[0]
    reach = row["time"] - first["time"] + first["seconds"]
    return bool(_whose(first) == _whose(row) and 0 <= reach <= seconds)


def _whose(row: Row) -> tuple[Any, ...]:
    return row.get("attempt"), *(gpu["index"] for gpu in row["gpus"])


def merged(rows: Sequence[Row]) -> Row:
    """Make one row of several: the most memory, and the mean use."""
    first, last = rows[0], rows[-1]
    return {
        "time": last["time"],
        "seconds": last["time"] - first["time"] + first["seconds"],
        "attempt": last.get("attempt"),
        "gpus": [_merged_gpu([row["gpus"][place] for row in rows]) for place in range(len(last["gpus"]))],
    }


def _merged_gpu(readings: Sequence[Mapping[str, Any]]) -> Row:
    use = _known(readings, "use_percent")
    return {
        "index": readings[-1]["index"],
        "memory_used_mib": max(_known(readings, "memory_used_mib"), default=None),
        "memory_total_mib": max(_known(readings, "memory_total_mib"), default=None),
        "use_percent": round(sum(use) / len(use)) if use else None,
    }


def _known(readings: Iterable[Mapping[str, Any]], name: str) -> list[float]:
    values = [reading.get(name) for reading in readings]
    return [value for value in values if isinstance(value, (int, float))]


class PhaseTimeline:
    """Keeps when each phase of an attempt began.

    Args:
        run_dir: The run directory.
        attempt: The attempt's number.
    """

    def __init__(self, run_dir: Path, attempt: int) -> None:
        self._path = record.attempt_folder(run_dir, attempt) / "phases.jsonl"
        self._phase: str | None = None
        self._rows = 0

    def enter(self, phase: str) -> None:
        """Keep a phase; one that goes on is nothing new.

        Raises:
            OSError: It cannot be written.
        """
        if phase == self._phase or self._rows >= MOST_PHASES:
            return
        self._phase = phase
        self._rows += 1
        # A row without a phase says that what follows was not kept.
        kept = phase if self._rows < MOST_PHASES else None
        record.append_line(self._path, {"phase": kept, "time": record.now()})
