"""One attempt: what is known of it, what it leaves in the record, and whether another one follows."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .checks import Check
    from .launch import Launch
    from .log import Log
    from .node import Node

MOST_STALLED = 2
"""Attempts in a row that may use up their time without a new checkpoint."""

TIME_LIMIT, FAILED, FINISHED, REQUEUED = "time-limit", "failed", "finished", "requeued"

RESUMABLE = ("rl", "sft")
"""Entry points whose runs have checkpoints to go on from."""

FULL_ATTEMPTS = (TIME_LIMIT, FAILED)
"""Ends that a run brings about itself: a preemption says nothing about its progress."""


@dataclass
class Attempt:
    """How this attempt goes; becomes its line in `attempts.jsonl`.

    Attributes:
        launch: The plan.
        number: 1 for the first.
        restarts: How often SLURM has restarted the job.
        node: The facts of the allocation.
        gpus: Ids of the GPUs.
        ports: First and last port of its own.
        started: When, in UTC.
        reason: Why it ended, in a word.
        signals: Names of the signals that arrived.
        failed: Checks that failed.
        failure: The component that failed first, in a sentence.
        resumed_from: Step of the checkpoint that it went on from.
        checkpoint: Step of the newest whole checkpoint at its end.
        steps: How many training steps it made.
        step: The last of them.
        requeued: Whether the job goes back to the queue, by its own hand or SLURM's.
        unexported: Why a finished run's weights are not exported; empty when they are, or nobody wants them.
    """

    launch: Launch
    number: int = 0
    restarts: int = 0
    node: Node | None = None
    gpus: tuple[int, ...] | None = None
    ports: tuple[int, int] | None = None
    started: str = field(default_factory=record.now)
    reason: str = ""
    signals: list[str] = field(default_factory=list)
    failed: list[Check] = field(default_factory=list)
    failure: str = ""
    resumed_from: int | None = None
    checkpoint: int | None = None
    steps: int = 0
    step: int | None = None
    requeued: bool = False
    unexported: str = ""

    def beginning(self) -> dict[str, Any]:
        """What is known of this attempt from its start."""
        return {
            "attempt": self.number,
            "job_id": os.environ.get("SLURM_JOB_ID", ""),
            "restart_count": self.restarts,
            "host": self.node.host if self.node else os.uname().nodename,
            "gpus": list(self.gpus or ()),
            "started": self.started,
        }

    def line(self, exit_code: int, log: Log) -> dict[str, Any]:
        """The record of this attempt."""
        return {
            **self.beginning(),
            "token": self.launch.token,
            "ports": list(self.ports or ()),
            "ended": record.now(),
            "exit_code": exit_code,
            "reason": self.reason,
            "signals": self.signals,
            "failed": [log.redact(f"{check.name}: {check.text}") for check in self.failed],
            "hints": [log.redact(check.hint) for check in self.failed],
            "failure": log.redact(self.failure),
            "resumed_from": self.resumed_from,
            "checkpoint": self.checkpoint,
            "steps": self.steps,
            "step": self.step,
            "requeued": self.requeued,
            "unexported": log.redact(self.unexported),
        }

    @property
    def advanced(self) -> bool:
        """Whether a new whole checkpoint came of it."""
        return (self.checkpoint or 0) > (self.resumed_from or 0)


def restart_count(variables: Mapping[str, str]) -> int:
    """How often SLURM has restarted this job; it does not say so for the first time."""
    text = variables.get("SLURM_RESTART_COUNT", "")
    return int(text) if text.isascii() and text.isdigit() else 0


def earlier_lines(folder: Path, token: str) -> list[dict[str, Any]]:
    """Read the records of this submission's earlier attempts, in order.

    Args:
        folder: The launch's own folder.
        token: The submission's token.
    """
    try:
        texts = (folder / "attempts.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    lines = []
    for text in texts:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and line.get("token") == token:
            lines.append(line)
    return lines


def why_not_again(attempt: Attempt, earlier: Sequence[Mapping[str, Any]], max_steps: int | None) -> str:
    """Decide whether a run that ended before its time is worth another attempt.

    A failure is, when this attempt has come further than the one before: then there is something to
    go on from, and what failed may not fail again. An attempt that used up its time may find itself
    without a new checkpoint once, not twice in a row.

    Args:
        attempt: This attempt, ended.
        earlier: The records of the earlier ones, in order.
        max_steps: The run's last step; `None` is without end.

    Returns:
        Why not; empty when it is.
    """
    forbidden = _forbidden(attempt)
    if forbidden:
        return forbidden
    if max_steps is not None and (attempt.checkpoint or 0) >= max_steps:
        return f"the checkpoint of its last step, {max_steps}, is there"
    if attempt.advanced or attempt.reason not in FULL_ATTEMPTS:
        return ""
    if attempt.reason == FAILED:
        return f"it failed without a new checkpoint ({_newest(attempt.checkpoint)})"
    stalled = 1 + _stalled_before(earlier)
    if stalled < MOST_STALLED:
        return ""
    return (
        f"{stalled} attempts in a row have used up their time without a new checkpoint "
        f"({_newest(attempt.checkpoint)}): set --ckpt-interval lower, or --time higher"
    )


def _forbidden(attempt: Attempt) -> str:
    """What the options say."""
    survive = attempt.launch.survive
    if not survive.requeue:
        return "--no-requeue"
    if attempt.restarts >= survive.max_requeues:
        return (
            f"it has been restarted {times(attempt.restarts)}, and --max-requeues is {survive.max_requeues}"
        )
    return ""


def times(count: int) -> str:
    """Word a number of times."""
    return "once" if count == 1 else f"{count} times"


def _stalled_before(earlier: Sequence[Mapping[str, Any]]) -> int:
    count = 0
    for line in reversed(earlier):
        if line.get("reason") not in FULL_ATTEMPTS:
            continue
        if (line.get("checkpoint") or 0) > (line.get("resumed_from") or 0):
            break
        count += 1
    return count


def _newest(step: int | None) -> str:
    return "there is none" if step is None else f"the newest is of step {step}"
