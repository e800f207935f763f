"""Whether a submission's job ever began, by what it left in the run directory: SLURM may have forgotten it.

The job's own records name the submission by its word. Its log is there from its first moment, made by SLURM.
"""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medarc_plugin import json_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

ALIVE_SECONDS = 60.0
"""A heartbeat that is younger is a live attempt's: twelve beats, and some more for a slow file system."""

CLOCKS_SECONDS = 60.0
"""By how much the clocks of this machine and the file system may differ."""

_LOG = re.compile(r"job_(\d+)\.log", re.ASCII)


@dataclass(frozen=True)
class Signs:
    """What a run directory tells of one submission's job.

    Attributes:
        job_id: SLURM's id of it, where a record or a log names one.
        started: Whether it ever began.
        ended: Whether it has recorded its end, and is not to be started again.
        alive: Whether its heartbeat goes on.
        last: Its last sign of life, in seconds since 1970.
    """

    job_id: str = ""
    started: bool = False
    ended: bool = False
    alive: bool = False
    last: float | None = None


def read(run_dir: Path, token: str, job_id: str = "", *, since: float = 0.0) -> Signs:
    """Look for signs of a submission's job.

    Args:
        run_dir: The run directory.
        token: The submission's word.
        job_id: SLURM's id of the job; empty when it is not known.
        since: When it was submitted, in seconds since 1970: an older log is another job's under the same id.
    """
    known, last, alive = job_id, [], False
    for folder, started in _attempts(run_dir, token):
        known = known or str(started.get("job_id") or "")
        beat = _table(folder / "heartbeat.json")
        touched = _touched((folder / "started.json", folder / "heartbeat.json"))
        last += touched
        alive = alive or (bool(beat) and not beat.get("ended") and _is_fresh(touched))
    rows = [
        row for row in _rows(run_dir / "configs" / "launch" / "attempts.jsonl") if row.get("token") == token
    ]
    log = run_dir / f"job_{known}.log"
    last += [touched for touched in _touched([log] if known else []) if touched >= since - CLOCKS_SECONDS]
    return Signs(
        job_id=known,
        started=bool(last or rows),
        ended=bool(rows) and not rows[-1].get("requeued"),
        alive=alive,
        last=max(last, default=None),
    )


def logs(run_dir: Path) -> frozenset[str]:
    """Name the jobs that have a log in a run directory, by their ids."""
    try:
        names = [path.name for path in run_dir.iterdir()]
    except OSError:
        return frozenset()
    return frozenset(match[1] for match in map(_LOG.fullmatch, names) if match)


def newest_log(run_dir: Path, but: Iterable[str] = ()) -> str | None:
    """Name the newest job that has a log in a run directory; `None` when there is none.

    Args:
        run_dir: The run directory.
        but: Ids of jobs that are passed over.
    """
    return max(logs(run_dir) - set(but), key=int, default=None)


def _attempts(run_dir: Path, token: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The attempts of a submission: their folders and what they recorded at their start."""
    with contextlib.suppress(OSError):
        for folder in sorted((run_dir / "configs" / "attempts").iterdir()):
            started = _table(folder / "started.json")
            if started.get("token") == token:
                yield folder, started


def _is_fresh(times: Iterable[float]) -> bool:
    return max(times, default=0.0) > time.time() - ALIVE_SECONDS


def _touched(paths: Iterable[Path]) -> list[float]:
    found = []
    for path in paths:
        with contextlib.suppress(OSError):
            found.append(path.stat().st_mtime)
    return found


def _table(path: Path) -> dict[str, Any]:
    """Read a JSON table; an empty one when there is none that can be read."""
    try:
        document = json_text.parse(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _rows(path: Path) -> list[dict[str, Any]]:
    found = []
    with contextlib.suppress(OSError):
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                row = json_text.parse(line)
                if isinstance(row, dict):
                    found.append(row)
    return found
