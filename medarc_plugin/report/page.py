"""The page of a run, which holds everything and asks nobody for anything, and the picture of its curves."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shlex
import stat
import statistics
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import medarc_plugin
from medarc_plugin import render, rundir
from medarc_plugin.errors import UsageError
from medarc_plugin.report.charts import charts, timeline
from medarc_plugin.report.document import state_in_words
from medarc_plugin.report.history import duration
from medarc_plugin.report.pictures import WIDTH, draw
from medarc_plugin.report.scales import figure, moment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from medarc_plugin.report.history import Attempt, History, Series
    from medarc_plugin.report.pictures import Picture

REASONS = {
    "finished": "the run is done",
    "failed": "prime-rl, or one of its components, failed",
    "time-limit": "its time limit came",
    "preempted": "another job took its place",
    "requeued": "it was put back into the queue",
    "asked": "it was asked to end and go on later",
    "cancelled": "it was cancelled",
    "signalled": "somebody ended it with a signal",
    "idle": "it did nothing any more",
    "superseded": "a later attempt took over",
    "fenced": "another attempt was alive in the run directory",
    "given-up": "it was restarted more often than --max-requeues allows",
    "checks-failed": "a check failed, and prime-rl was not started",
    "rehearsed": "a rehearsal, which starts nothing",
    "killed": "its owner was killed",
    "lost": "nobody saw it end, as when its node fails",
}
"""Why attempts end, in words."""


def page(history: History) -> str:
    """Make the page of a history that is rid of secrets."""
    pictures = [draw(chart) for chart in charts(history)]
    return render.render_page(
        "report.html.j2",
        {
            "palettes": PALETTES,
            "name": history.run.name,
            "subtitle": _subtitle(history),
            "facts": facts(history),
            "pictures": pictures,
            "timeline": timeline(history),
            "why_no_curves": _why_no_curves(history),
            "attempts": _newest_first(
                [_attempt_row(attempt, history.at) for attempt in history.attempts], MOST_SHOWN
            ),
            "evals": [_eval_row(name, series) for name, series in history.evals.items() if len(series)],
            "evaluations": _evaluations(history),
            "typed": _shown(history.provenance.get("typed")) or _shown(history.provenance.get("command")),
            "command": _shown(history.provenance.get("command")),
            "versions": _versions(history),
            "launches": _newest_first(
                [_launch(attempt) for attempt in history.attempts if attempt.launched], MOST_LAUNCHES
            ),
            "config": json.dumps(history.config, indent=2, ensure_ascii=False) if history.config else "",
            "config_name": history.run.files.config.name,
            "trouble": history.trouble,
            "source": _source_in_words(history),
            "footer": (
                f"Made by medarc_plugin {medarc_plugin.__version__} at {moment(history.at)} UTC "
                f"from {history.run.run_dir}"
            ),
        },
    )


def picture(history: History) -> str | None:
    """Make one SVG picture of all curves, of a history that is rid of secrets; `None` without curves."""
    pictures = [draw(chart) for chart in charts(history)]
    if not pictures:
        return None
    placed: list[tuple[Picture, float, float, list[str]]] = []
    top = HEAD
    for row in (pictures[first : first + COLUMNS] for first in range(0, len(pictures), COLUMNS)):
        notes = [wrap(" ".join(each.notes), NOTE_LETTERS) for each in row]
        placed += [
            (each, GAP + place * (WIDTH + GAP), top, lines)
            for place, (each, lines) in enumerate(zip(row, notes, strict=True))
        ]
        top += max(each.height for each in row) + NOTE_HEIGHT * max(map(len, notes)) + GAP
    return render.render_page(
        "report.svg.j2",
        {
            "palette": PALETTES["light"],
            "title": history.run.name,
            "subtitle": _subtitle(history),
            "width": GAP + min(COLUMNS, len(pictures)) * (WIDTH + GAP),
            "height": top,
            "placed": placed,
            "note_height": NOTE_HEIGHT,
        },
    )


COLUMNS, GAP, HEAD = 2, 20.0, 64.0
NOTE_HEIGHT, NOTE_LETTERS = 14.0, 84

PALETTES = {
    "light": {
        "paper": "#ffffff",
        "card": "#ffffff",
        "ink": "#1b1f24",
        "soft": "#57606a",
        "line": "#d8dee4",
        "c1": "#0072b2",
        "c2": "#d55e00",
        "c3": "#00855f",
        "c4": "#b1569a",
        "c5": "#b7791f",
        "c6": "#3d9bd0",
        "c7": "#8a8f96",
        "c8": "#882255",
    },
    "dark": {
        "paper": "#0f1318",
        "card": "#171c23",
        "ink": "#e6e9ed",
        "soft": "#9aa4af",
        "line": "#313842",
        "c1": "#56b4e9",
        "c2": "#ff8a4c",
        "c3": "#35c79a",
        "c4": "#e39cc4",
        "c5": "#f2be4b",
        "c6": "#9ad1f5",
        "c7": "#8d96a0",
        "c8": "#d97da8",
    },
}
"""Colours that people with most kinds of colour blindness can tell apart (after Okabe and Ito)."""


def _subtitle(history: History) -> str:
    words = [history.run.entrypoint, state_in_words(history)]
    if history.step is not None:
        words.append(f"step {history.step}" + (f" of {history.max_steps}" if history.max_steps else ""))
    words.append(f"as of {moment(history.at)} UTC")
    return " \u00b7 ".join(words)


def facts(history: History) -> list[tuple[str, str]]:
    """The figures that a reader looks for first."""
    held = history.last_attempt.gpus if history.last_attempt else _planned_gpus(history)
    found = [
        ("GPU hours", f"{history.gpu_hours:.2f}"),
        ("attempts", str(len(history.attempts))),
        ("GPUs", str(held)),
        ("time of all attempts", duration(sum(attempt.seconds or 0.0 for attempt in history.attempts))),
    ]
    return found if history.run.entrypoint == "inference" else [*_training_facts(history), *found]


def _training_facts(history: History) -> list[tuple[str, str]]:
    step, most = history.step, history.max_steps
    found = [("step", "-" if step is None else f"{step}" if most is None else f"{step} of {most}")]
    for name, series in (
        ("reward, last", history.reward),
        ("loss, last", history.loss),
        ("validation loss, last", history.validation_loss),
    ):
        if len(series):
            found.append((name, figure(series.last)))
    for name, series in (
        ("time of a step, median", history.step_seconds.whole),
        ("throughput, median", history.throughput),
    ):
        if len(series):
            found.append((name, figure(statistics.median(series.values), series.unit)))
    return found


def _planned_gpus(history: History) -> int:
    gpus = history.run.plan.get("gpus")
    count = gpus.get("count") if isinstance(gpus, dict) else None
    return count if isinstance(count, int) else 0


def _why_no_curves(history: History) -> str:
    """Say why there are no curves of steps; empty when there are some."""
    if any(map(len, (history.reward, history.loss, history.step_seconds.whole, *history.evals.values()))):
        return ""
    if history.run.entrypoint == "inference":
        return "A server makes no steps."
    if not history.attempts:
        return "The run has not begun."
    return "No step was made yet, as far as the run's metrics and logs tell."


def _source_in_words(history: History) -> str:
    if history.source == "logs":
        return (
            "This run writes no metrics file: the curves are read from its logs, which do not tell the parts "
            "of a step."
        )
    return ""


def _newest_first(rows: list[dict[str, Any]], most: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Turn rows round: those that are shown at once, and the rest."""
    turned = rows[::-1]
    return turned[:most], turned[most:]


MOST_SHOWN, MOST_LAUNCHES = 12, 3
"""Attempts that are shown without being asked for, and of how many the commands."""


def _attempt_row(attempt: Attempt, now: float) -> dict[str, Any]:
    record = attempt.record
    steps, resumed, checkpoint = (record.get(name) for name in ("steps", "resumed_from", "checkpoint"))
    began = "-" if steps is None else "the beginning"
    without_reason = "" if attempt.over else "runs" if attempt.is_alive(now) else "its end was not recorded"
    return {
        "number": attempt.number,
        "job": record.get("job_id") or "-",
        "host": record.get("host") or "-",
        "gpus": ", ".join(map(str, record.get("gpus") or [])) or "-",
        "began": moment(attempt.started),
        "lasted": "-" if attempt.seconds is None else duration(attempt.seconds),
        "gpu_hours": f"{attempt.gpu_hours:.2f}",
        "steps": "-" if steps is None else f"{steps}, to step {record.get('step')}" if steps else "0",
        "resumed_from": began if resumed is None else f"step {resumed}",
        "checkpoint": "-" if checkpoint is None else f"step {checkpoint}",
        "reason": attempt.reason or without_reason,
        "why": _why(attempt),
    }


def _why(attempt: Attempt) -> list[str]:
    """Say why an attempt ended, a sentence each."""
    record = attempt.record
    words = [REASONS.get(attempt.reason or "", "")]
    words.append(str(record.get("failure") or ""))
    if record.get("unexported"):
        words.append(f"its weights were not exported then: {record['unexported']}")
    words += [f"check {check}" for check in record.get("failed") or [] if isinstance(check, str)]
    if record.get("signals"):
        words.append(f"signals: {', '.join(map(str, record['signals']))}")
    if record.get("exit_code"):
        words.append(f"exit code {record['exit_code']}")
    if record.get("requeued") and attempt.reason != "requeued":
        words.append("the job went back into the queue")
    return [word for word in words if word]


def _eval_row(name: str, series: Series) -> dict[str, str]:
    best = max(range(len(series)), key=series.values.__getitem__)
    return {
        "name": name,
        "count": str(len(series)),
        "first": f"{figure(series.values[0])} (step {series.steps[0]:g})",
        "best": f"{figure(series.values[best])} (step {series.steps[best]:g})",
        "last": f"{figure(series.values[-1])} (step {series.steps[-1]:g})",
    }


MOST_EVALUATIONS = 500


def _evaluations(history: History) -> list[tuple[str, str, str]]:
    """Every evaluation: step, environment, reward; of very many the newest."""
    found = [
        (step, name, value)
        for name, series in history.evals.items()
        for step, value in zip(series.steps, series.values, strict=True)
    ]
    found.sort(key=lambda each: (each[0], each[1]))
    return [(f"{step:g}", name, figure(value)) for step, name, value in found[-MOST_EVALUATIONS:]]


def _shown(command: object) -> str:
    return shlex.join(map(str, command)) if isinstance(command, list) else ""


def _is_taken_up(history: History) -> bool:
    """Whether the run was launched with the recorded command of another one, or of itself."""
    typed = history.provenance.get("typed")
    return typed is not None and typed != history.provenance.get("command")


def _versions(history: History) -> list[tuple[str, str]]:
    provenance, run = history.provenance, history.run
    host = provenance.get("prime_rl")
    found: list[tuple[str, object]] = [
        ("run directory", run.run_dir),
        ("typed in", provenance.get("typed_in") or provenance.get("working_directory")),
        ("relative paths are from", provenance.get("working_directory") if _is_taken_up(history) else None),
        ("medarc_plugin", provenance.get("medarc_plugin")),
        ("Python of medarc_plugin", provenance.get("python")),
    ]
    if isinstance(host, dict):
        changes = ", with local changes" if host.get("local_changes") else ""
        commit = host.get("commit")
        found += [
            ("prime-rl", host.get("directory") or host.get("python")),
            ("prime-rl's commit", f"{commit}{changes}" if commit else None),
            ("prime-rl's interpreter", host.get("python")),
        ]
    found += [
        ("shape of the config", provenance.get("shape")),
        ("checked by prime-rl", "yes" if provenance.get("checked") else "no"),
    ]
    if run.submission is not None:
        cluster = f" on {run.submission.cluster}" if run.submission.cluster else ""
        found += [
            ("newest job", f"{run.submission.job_id}{cluster} ({run.submission.backend})"),
            ("submitted", run.submission.submitted_at),
            ("script", run.submission.script),
        ]
    warnings = provenance.get("warnings")
    found += [("warning of prime-rl", each) for each in (warnings if isinstance(warnings, list) else ())]
    return [(name, str(value)) for name, value in found if value not in (None, "")]


def _launch(attempt: Attempt) -> dict[str, Any]:
    launched = attempt.launched
    commands = [_shown(launched.get(name)) for name in ("server_command", "command")]
    environment = launched.get("environment")
    return {
        "number": attempt.number,
        "commands": [command for command in commands if command],
        "directory": str(launched.get("working_directory") or ""),
        "environment": [(name, str(value)) for name, value in environment.items()]
        if isinstance(environment, dict)
        else [],
    }


# Files


def default_path(history: History) -> Path:
    """Where the page goes: where prime-rl's guard of the run directory and `--clean` allow it."""
    return history.run.files.launch / "report.html"


def write(path: Path, content: str | bytes) -> None:
    """Write a page or a picture, whole or not at all.

    Raises:
        UsageError: It cannot be written.
    """
    # A record may hold what is no text; it is shown as a question mark.
    data = content if isinstance(content, bytes) else content.encode("utf-8", "replace")
    with _refusing(path):
        if _is_special(path):
            # A device or a pipe, which a file must not take the place of.
            path.write_bytes(data)
        else:
            rundir.write_whole(path.resolve(), data)


def refuse_unwritable(path: Path) -> None:
    """Refuse a place where nothing can be written.

    Raises:
        UsageError: It is one.
    """
    with _refusing(path):
        special = _is_special(path)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not special and not os.access(path.resolve().parent, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, _why_not(path.resolve().parent))


def _why_not(folder: Path) -> str:
    """Say why nothing can be written into a folder."""
    return os.strerror(errno.EACCES if os.access(folder, os.F_OK) else errno.ENOENT)


def _is_special(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


@contextlib.contextmanager
def _refusing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror or error}", hint="choose another place"
        ) from None


def png(svg: str) -> bytes:
    """Turn a picture into PNG.

    Raises:
        UsageError: What draws it is not installed.
    """
    try:
        import resvg_py
    except ImportError:
        raise UsageError(
            "a PNG is drawn by resvg, which is not installed",
            hint="`uv sync --extra png` in a checkout, or `pip install 'medarc-plugin[png]'`",
        ) from None
    text = _NOT_IN_XML.sub("?", svg)
    return bytes(
        resvg_py.svg_to_bytes(svg_string=text, zoom=2, font_files=[str(FONT)], font_family=FONT_NAME)
    )


_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")

FONT, FONT_NAME = Path(__file__).with_name("font.ttf"), "DejaVu Sans"
"""Login nodes seldom have fonts."""
