"""When what happened, from the logs that prime-rl and vLLM write: the same for any launcher.

Both logging libraries write whole seconds of local time, so that a moment is right to a second.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import TYPE_CHECKING, Any

from medarc_plugin.runs import read_rows

if TYPE_CHECKING:
    from pathlib import Path

TRAINERS = {"step", "time", "time/step", "time/forward_backward"}
"""What a row of the trainer has, of all that is written into the metrics file."""

SLACK = 60.0
"""Seconds by which a log may seem to be older than the job that writes it."""

_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_TIME = re.compile(r"(?<!\d)(?<!\d:)(\d\d):(\d\d):(\d\d)\s")


@dataclass(frozen=True)
class Moment:
    """Something that a log tells.

    Attributes:
        name: What happened.
        log: Whose log tells it.
        pattern: Found in the line; an empty one is the log's first line with a time.
    """

    name: str
    log: str
    pattern: str


MOMENTS = (
    Moment("launcher has imported", "launcher", ""),
    Moment("vLLM's server has imported", "inference", r"\(APIServer pid="),
    Moment("vLLM's engine has imported", "inference", r"Starting to load model"),
    Moment("model is loaded", "inference", r"Model loading took"),
    Moment("model is compiled", "inference", r"torch\.compile (?:takes|took)"),
    Moment("memory is measured", "inference", r"GPU KV cache size"),
    Moment("CUDA graphs are captured", "inference", r"Graph capturing finished"),
    Moment("vLLM's server listens", "inference", r"Starting vLLM server on"),
    Moment("orchestrator has imported", "orchestrator", ""),
    Moment("orchestrator has found vLLM", "orchestrator", r"[Ii]nference pool ready"),
    Moment("orchestrator's loop begins", "orchestrator", r"Starting orchestrator loop"),
    Moment("trainer has imported", "trainer", ""),
    Moment("first batch of rollouts", "orchestrator", r"Step \d+ \|"),
    Moment("first step of the trainer", "trainer", r"Step \d+ \|"),
)


def timeline(logs: dict[str, list[Path]], began: float) -> dict[str, float | None]:
    """Say how many seconds after a job's start each moment was.

    Args:
        logs: Files of each log's name; the first that tells a moment counts.
        began: The job's start, in seconds since the epoch.

    Returns:
        Seconds by moment; `None` where no log tells.
    """
    lines = {name: [line for file in files for line in _timed_lines(file)] for name, files in logs.items()}
    found: dict[str, float | None] = {}
    for moment in MOMENTS:
        at = next(
            (time for time, text in lines.get(moment.log, []) if re.search(moment.pattern, text)),
            None,
        )
        found[moment.name] = None if at is None else seconds_after(at, began)
    return found


def seconds_after(clock: tuple[int, int, int], began: float) -> float:
    """How long after `began` a local clock showed a time, within the day that follows.

    Args:
        clock: Hour, minute and second.
        began: A moment, in seconds since the epoch.
    """
    start = datetime.fromtimestamp(began).replace(microsecond=0)  # noqa: DTZ006 - logs have local time
    # The end of summer time shows an hour twice, and midnight is followed by another day.
    shown = (
        (start + timedelta(days=days)).replace(hour=clock[0], minute=clock[1], second=clock[2], fold=fold)
        for days in (0, 1)
        for fold in (0, 1)
    )
    after = (at.timestamp() - start.timestamp() for at in shown)
    return next(seconds for seconds in after if seconds > -SLACK)


def _timed_lines(file: Path) -> list[tuple[tuple[int, int, int], str]]:
    if not file.exists():
        return []
    text = _COLOURS.sub("", file.read_text(encoding="utf-8", errors="replace"))
    timed = []
    for line in text.splitlines():
        found = _TIME.search(line[:80])
        if found:
            timed.append(((int(found[1]), int(found[2]), int(found[3])), line))
    return timed


def logs_of(run_dir: Path, attempt: int = 1, launcher: Path | None = None) -> dict[str, list[Path]]:
    """Where the logs of one attempt are.

    Args:
        run_dir: The run directory.
        attempt: Which attempt.
        launcher: What a launcher that was started by hand printed.
    """
    own = run_dir / "configs" / "attempts" / str(attempt)
    theirs = run_dir / "logs" / f"attempt_{attempt}"
    return {
        "launcher": [launcher or own / "prime_rl.log"],
        "inference": [own / "inference.log", theirs / "inference.log"],
        "orchestrator": [theirs / "orchestrator.log"],
        "trainer": [theirs / "trainer.log"],
    }


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The rows of prime-rl's metrics file."""
    return read_rows(run_dir / "metrics.jsonl")


def trainer_rows(run_dir: Path) -> list[dict[str, Any]]:
    """The row of each of the trainer's steps, in order; the orchestrator's rows have times of their own."""
    return sorted((row for row in metrics(run_dir) if row.keys() >= TRAINERS), key=lambda row: row["step"])


def steps_ended(run_dir: Path) -> list[tuple[float, float]]:
    """When each of the trainer's steps ended, in seconds since the epoch, and how many seconds it took."""
    return [(round(row["time"], 3), round(row["time/step"], 3)) for row in trainer_rows(run_dir)]


def step_seconds(run_dir: Path) -> dict[str, Any]:
    """How long the trainer's steps took, the first one left out: it compiles.

    Returns:
        `steps`, and the medians `median` and, of the parts, `wait_for_batch` and
        `forward_backward`, in seconds.
    """
    rows = trainer_rows(run_dir)[1:]
    middle = {
        name: round(median(row[key] for row in rows), 3) if rows else None
        for name, key in (
            ("median", "time/step"),
            ("wait_for_batch", "time/wait_for_batch"),
            ("forward_backward", "time/forward_backward"),
        )
        if all(key in row for row in rows)
    }
    total = round(sum(row["time/step"] for row in rows), 1)
    return {"steps": len(rows), **middle, "sum": total}


def peak_memory_gib(run_dir: Path) -> float | None:
    """The most GPU memory that the trainer reserved in a step, in GiB; `None` where it tells none."""
    told = (row.get("perf/peak_memory") for row in metrics(run_dir))
    return max((gib for gib in told if gib is not None), default=None)


def rewards(run_dir: Path) -> list[tuple[int, float]]:
    """Mean reward of the rollouts that each step trained on."""
    found = {}
    for row in metrics(run_dir):
        values = [
            value for key, value in row.items() if re.fullmatch(r"train/agg/effective/[^/]+/reward/mean", key)
        ]
        if values:
            found[int(row["step"])] = sum(values) / len(values)
    return sorted(found.items())
