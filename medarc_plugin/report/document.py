"""A report's facts as plain values, rid of secrets."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from medarc_plugin.json_text import plain
from medarc_plugin.redaction import Redaction, known_secrets
from medarc_plugin.report.scales import moment

if TYPE_CHECKING:
    from medarc_plugin.report.history import Attempt, GpuSeries, History, Series

FORMAT = 1


def document(history: History) -> dict[str, Any]:
    """Everything that a report says, as plain values; docs/report.md lists the fields."""
    run, last = history.run, history.last_attempt
    return {
        "format": FORMAT,
        "run_dir": str(run.run_dir),
        "name": run.name,
        "entrypoint": run.entrypoint,
        "read_at": _utc(history.at),
        "state": state_in_words(history),
        "phase": plain(history.state.get("phase")),
        "reason": last.reason if last else None,
        "step": history.step,
        "max_steps": history.max_steps,
        "gpu_hours": round(history.gpu_hours, 4),
        "job": None
        if run.submission is None
        else {
            "id": run.submission.job_id,
            "cluster": run.submission.cluster,
            "backend": run.submission.backend,
            "submitted_at": run.submission.submitted_at,
            "script": str(run.submission.script),
        },
        "source": history.source or None,
        "series": {
            name: series_document(series) for name, series in _named_series(history).items() if len(series)
        },
        "evals": {name: series_document(series) for name, series in history.evals.items()},
        "gpus": [_gpu(series) for series in history.gpus],
        "attempts": [_attempt(attempt) for attempt in history.attempts],
        "command": plain(history.provenance.get("command")),
        "provenance": plain(history.provenance),
        "config": plain(history.config),
        "trouble": list(history.trouble),
    }


def without_secrets(history: History, redaction: Redaction | None = None) -> History:
    """Rid a history of secrets, wherever its records have them.

    Args:
        history: The history.
        redaction: Knows them; by default those of this process's environment.
    """
    clean = redaction or Redaction(known_secrets().values())
    return replace(
        history,
        run=replace(history.run, plan=clean.document(dict(history.run.plan))),
        state=clean.document(dict(history.state)),
        config=clean.document(dict(history.config)),
        provenance=clean.document(dict(history.provenance)),
        evals={clean.text(name): series for name, series in history.evals.items()},
        attempts=tuple(
            replace(
                attempt,
                record=clean.document(dict(attempt.record)),
                launched=clean.document(dict(attempt.launched)),
            )
            for attempt in history.attempts
        ),
        trouble=tuple(map(clean.text, history.trouble)),
    )


def _named_series(history: History) -> dict[str, Series]:
    found = {
        "reward": history.reward,
        "loss": history.loss,
        "validation_loss": history.validation_loss,
        "tokens_per_second": history.throughput,
        "trainer_peak_memory_gib": history.peak_memory,
    }
    for prefix, parts in (
        ("step_seconds", history.step_seconds),
        ("rollout_seconds", history.rollout_seconds),
    ):
        found[prefix] = parts.whole
        found |= {f"{prefix}/{name}": series for name, series in parts.parts.items()}
    return found


def series_document(series: Series) -> dict[str, Any]:
    """A figure by step, as plain values."""
    return {
        "unit": series.unit or None,
        "steps": [int(step) for step in series.steps],
        "values": list(series.values),
        "times": [_finite(at) for at in series.times],
        "not_finite": series.not_finite,
        "abandoned": {
            "steps": [int(step) for step in series.abandoned_steps],
            "values": list(series.abandoned_values),
        },
    }


def _gpu(series: GpuSeries) -> dict[str, Any]:
    return {
        "index": series.index,
        "attempts": [_whole(value) for value in series.attempts],
        "times": list(series.times),
        "memory_used_mib": [_whole(value) for value in series.memory_used],
        "memory_total_mib": [_whole(value) for value in series.memory_total],
        "use_percent": [_whole(value) for value in series.use],
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    kept = ("job_id", "host", "exit_code", "signals", "failed", "failure", "resumed_from", "checkpoint")
    return {
        "attempt": attempt.number,
        **{name: plain(attempt.record.get(name)) for name in (*kept, "steps", "step", "requeued")},
        "over": attempt.over,
        "reason": attempt.reason,
        "started": _utc(attempt.started),
        "ended": _utc(attempt.ended),
        "seconds": attempt.seconds,
        "gpus": attempt.gpus,
        "gpu_hours": round(attempt.gpu_hours, 4),
        "phases_kept": attempt.phases_kept,
        "phases": [
            {"phase": phase.name, "began": _utc(phase.began), "seconds": round(phase.ended - phase.began, 1)}
            for phase in attempt.phases
        ],
        "launched": plain(attempt.launched) or None,
    }


def _utc(epoch: float | None) -> str | None:
    text = moment(epoch)
    return None if text == "-" else f"{text.replace(' ', 'T')}+00:00"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _whole(value: float) -> int | None:
    return round(value) if math.isfinite(value) else None


IN_WORDS = {
    "rehearsed": "rehearsed, which starts nothing",
    "checks-failed": "a check refused the start",
    "time-limit": "ended by its time limit",
    "asked": "asked to end and go on later",
    "signalled": "ended by a signal",
    "idle": "ended since it stood still",
    "fenced": "refused: another attempt was alive",
    "superseded": "taken over by a later attempt",
    "given-up": "restarted too often",
    "requeued": "put back into the queue",
}
"""How attempts ended, where the word itself says little."""


def state_in_words(history: History) -> str:
    """Say how a run is, as far as its own records tell."""
    last = history.last_attempt
    if last is None:
        if history.run.submission is None:
            return "planned; no submission was recorded"
        return f"submitted as job {history.run.submission.job_id}; it has not begun"
    if last.reason is not None:
        words = IN_WORDS.get(last.reason, last.reason)
        return f"{words}; it went back into the queue" if last.record.get("requeued") else words
    if last.is_alive(history.at):
        return str(history.state.get("phase") or "starting")
    since = f" since {moment(last.ended)} UTC" if last.ended is not None else ""
    return f"no sign of life{since}"
