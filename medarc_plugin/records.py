"""What a run's own files tell of it: its attempts, how far it came, and whether it still gives signs of life.

docs/job-anatomy.md lists the files and their fields. Any of them may be missing, torn, or of another version:
then less is known, and nothing fails.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medarc_plugin.rundir import write_whole
from medarc_plugin.runs import read_rows, read_table
from medarc_plugin.slurm.queue import YEARS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from medarc_plugin.runs import Run

SILENCE = 90.0
"""Seconds without a sign of life after which an attempt is not believed to be alive. It gives one every five,
and a network file system may show it a minute late."""


@dataclass(frozen=True)
class AttemptRecord:
    """One attempt, as far as it is recorded.

    Attributes:
        number: 1 for the first in this run directory.
        job_id: SLURM's id of its job; empty outside SLURM.
        token: The word of its submission; `None` when it is not recorded.
        host: The node.
        gpus: Ids of its GPUs.
        started: When it began.
        ended: When its end was recorded.
        exit_code: How it ended.
        reason: Why, in one of the words of docs/job-anatomy.md; `None` without a record of its end.
        failure: The component that failed first, in a sentence.
        requeued: Whether the job went back to the queue.
        last_sign: The newest sign of life of an attempt without a record of its end.
        row: The whole record.
    """

    number: int
    job_id: str
    token: str | None
    host: str | None
    gpus: tuple[int, ...]
    started: datetime | None
    ended: datetime | None = None
    exit_code: int | None = None
    reason: str | None = None
    failure: str | None = None
    requeued: bool = False
    last_sign: datetime | None = None
    row: Mapping[str, Any] = field(default_factory=dict)

    @property
    def final(self) -> bool:
        """Whether its end was the run's."""
        return self.reason is not None and not self.requeued and self.reason != "superseded"

    def seconds(self, now: datetime, *, alive: bool) -> float:
        """How long it has held its GPUs.

        Args:
            now: The time.
            alive: Whether it still does.
        """
        end = self.ended or (now if alive else self.last_sign)
        if self.started is None or end is None:
            return 0.0
        return max(0.0, (end - self.started).total_seconds())


def unexported(run: Run, attempt: AttemptRecord) -> str | None:
    """Say why the weights of a finished run are missing; `None` when they are not.

    They may have been exported since.

    Args:
        run: The run.
        attempt: Its newest attempt.
    """
    why, step = attempt.row.get("unexported"), attempt.row.get("checkpoint")
    if (
        not isinstance(why, str)
        or not why
        or is_there(run.run_dir / "weights" / f"step_{step}" / "export.json")
    ):
        return None
    return why


SEEN = "cancelled.json"


def remember_cancelled(run: Run, job_id: str | None) -> None:
    """Write down that SLURM has ended a run's job: it forgets, and a job that never began has no record.

    Raises:
        OSError: It cannot be written.
    """
    document = {"token": run.token, "job_id": job_id, "seen": datetime.now(UTC).isoformat(timespec="seconds")}
    write_whole(run.files.launch / SEEN, json.dumps(document, indent=2) + "\n")


def was_seen_cancelled(run: Run) -> bool:
    """Whether somebody has seen that SLURM ended the run's newest job."""
    document = read_table(run.files.launch / SEEN)
    return run.token is not None and document.get("token") == run.token


@dataclass(frozen=True)
class Records:
    """What a run's files tell.

    Attributes:
        attempts: All attempts in this run directory, in order.
        state: `state.json`; empty when there is none.
        trouble: Files that could not be read, a sentence each.
    """

    attempts: tuple[AttemptRecord, ...] = ()
    state: Mapping[str, Any] = field(default_factory=dict)
    trouble: tuple[str, ...] = ()

    def newest(self, token: str | None) -> AttemptRecord | None:
        """The newest attempt of a submission; of any, when its word is not known."""
        own = [attempt for attempt in self.attempts if token is None or attempt.token == token]
        return own[-1] if own else None


def read(run: Run) -> Records:
    """Read a run's files."""
    trouble: list[str] = []
    launch = run.files.launch
    state = read_table(launch / "state.json", trouble)
    rows = {
        number: row for row in read_rows(launch / "attempts.jsonl") if (number := whole(row.get("attempt")))
    }
    folder = run.run_dir / "configs" / "attempts"
    numbers = sorted({*rows, *_numbers(folder)})
    attempts = [_attempt(number, rows.get(number), folder / str(number), trouble) for number in numbers]
    known = tuple(attempt for attempt in attempts if attempt is not None)
    return Records(known, state, tuple(trouble))


def is_alive(run: Run, attempt: AttemptRecord, now: datetime) -> bool:
    """Say whether an attempt without a record of its end still gives signs of life.

    Where it runs on this very machine, its process is looked at; elsewhere the time of its last sign counts.
    """
    if attempt.reason is not None:
        return False
    beat = heartbeat(run, attempt.number)
    if beat.get("ended"):
        return False
    here = owner_here(beat)
    if here is not None:
        return here
    return attempt.last_sign is not None and (now - attempt.last_sign).total_seconds() < SILENCE


def heartbeat(run: Run, number: int) -> Mapping[str, Any]:
    """Read an attempt's last sign of life."""
    return read_table(run.run_dir / "configs" / "attempts" / str(number) / "heartbeat.json")


def owner_here(beat: Mapping[str, Any]) -> bool | None:
    """Say whether an attempt's owner is alive, when it runs where this process can see it; else `None`."""
    if beat.get("host") != os.uname().nodename or beat.get("boot") != _boot():
        return None
    process, start = beat.get("process"), beat.get("start")
    if not isinstance(process, int) or not isinstance(start, str) or not start:
        return None
    try:
        stat = Path("/proc", str(process), "stat").read_bytes()
    except OSError:
        return False
    # The name may hold spaces and brackets; behind it come the state and, as the 20th, the start.
    fields = stat.rpartition(b")")[2].split()
    return len(fields) > START and fields[0] not in {b"Z", b"X"} and fields[START].decode() == start


START = 19
"""Where `/proc/PID/stat` has the process's start, counted from its state."""


def _boot() -> str:
    """This machine's boot, and this process's view of its processes, as a heartbeat names them."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _numbers(folder: Path) -> list[int]:
    try:
        with os.scandir(folder) as entries:
            return [int(entry.name) for entry in entries if entry.name.isascii() and entry.name.isdigit()]
    except OSError:
        return []


def _attempt(
    number: int, row: Mapping[str, Any] | None, folder: Path, trouble: list[str]
) -> AttemptRecord | None:
    if row is None:
        row = read_table(folder / "started.json", trouble)
        if not row and not is_there(folder / "heartbeat.json"):
            return None
    ended = time_of(row.get("ended"))
    return AttemptRecord(
        number=number,
        job_id=text(row.get("job_id")) or "",
        token=text(row.get("token")),
        host=text(row.get("host")),
        gpus=tuple(found for each in _list(row.get("gpus")) if (found := whole(each)) is not None),
        started=time_of(row.get("started")),
        ended=ended,
        exit_code=whole(row.get("exit_code")),
        reason=text(row.get("reason")),
        failure=text(row.get("failure")) or None,
        requeued=bool(row.get("requeued")),
        last_sign=None if ended else _last_sign(folder),
        row=row,
    )


def _last_sign(folder: Path) -> datetime | None:
    for name in ("heartbeat.json", "started.json"):
        try:
            return datetime.fromtimestamp((folder / name).stat().st_mtime, UTC)
        except (OSError, OverflowError, ValueError):
            continue
    return None


def is_there(path: Path) -> bool:
    """Whether a file or folder is there, as far as this user may know: what others hide is not."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises where it may not look


def text(value: object) -> str | None:
    """Take a text; anything else is none."""
    return value if isinstance(value, str) else None


def whole(value: object) -> int | None:
    """Take a whole number; anything else is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def number(value: object) -> float | None:
    """Take a number; anything else is none, and so is what JSON has no word for."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def time_of(value: object) -> datetime | None:
    """Take a time as the records have it, ISO 8601 with its zone, unless it is none that a clock shows."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
        return None if found is None or found.year not in YEARS else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
