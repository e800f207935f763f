"""What is drawn of a run's history: which charts, with which lines."""

from __future__ import annotations

import math
from dataclasses import replace
from textwrap import shorten
from typing import TYPE_CHECKING

from medarc_plugin.report.history import ENDING, STARTING, TRAINING, duration
from medarc_plugin.report.pictures import Bar, Chart, Line, Picture, colour, draw_timeline
from medarc_plugin.report.scales import (
    FEWEST_FOR_MEAN,
    figure,
    mean_width,
    moment,
    steps_in_words,
    time_unit,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medarc_plugin.report.history import Attempt, GpuSeries, History, Parts, Phase, Series

PARTS = {
    "forward_backward": ("forward and backward", "c1"),
    "wait_for_batch": ("waiting for the batch", "c2"),
    "load_data": ("loading", "c6"),
    "broadcast_weights": ("sending weights", "c3"),
    "save_ckpt": ("checkpoint", "c5"),
    "wait_for_policy": ("waiting for the policy", "c2"),
    "pack": ("packing", "c6"),
    "other": ("other", "c7"),
}
"""How the parts of a step are called, in the order in which they are stacked."""

PHASES = {
    STARTING: "c7",
    "waiting for vLLM": "c6",
    "warming up": "c2",
    TRAINING: "c1",
    "evaluating": "c4",
    "exporting": "c3",
    "serving": "c1",
    ENDING: "c5",
}
"""Colours of the phases."""

NEGLIGIBLE = 0.002
"""Share of all steps' time below which a part is not shown."""

LOGARITHMIC_FROM = 50.0
"""How many times the lowest loss the highest must be for a logarithmic axis."""

ENDS = ("done", "ended")
"""Phases that take no time."""

OTHER_PHASE = "c8"

LOWEST_LOGARITHMIC = 1e-300

MOST_ROWS = 30
"""Attempts that the timeline has room for."""


def charts(history: History) -> list[Chart]:
    """Decide what charts there are; none of them is empty."""
    found = [
        _reward_chart(history),
        _loss_chart(history),
        _throughput_chart(history),
        _parts_chart("step-time", "Time of a step", history.step_seconds, history),
        _parts_chart("rollout-time", "Time of a batch of rollouts", history.rollout_seconds, history),
        *_gpu_charts(history),
    ]
    drawn = [chart for chart in found if not chart.is_empty]
    if drawn and drawn[0].rules:
        drawn[0].notes.append("Dotted: there an attempt went on from a checkpoint.")
    return drawn


def metric_chart(series: Series) -> Chart:
    """A chart of any figure; it may be empty."""
    chart = Chart(series.name, series.name, series.unit, "step")
    chart.lines.append(Line("each step", series.steps, series.values, "c1", smooth=True))
    _tell_of(chart, series)
    return chart


def _tell_of(chart: Chart, series: Series) -> None:
    """Add what a line cannot show: values that are no numbers, and branches that were left."""
    if len(series.abandoned_steps) and not chart.dots[2]:
        chart.dots = series.abandoned_steps, series.abandoned_values, "abandoned at a resume"
    if series.not_finite:
        chart.notes.append(f"{series.name}: not a number at {steps_in_words(series.not_finite)}.")


def _by_step(name: str, title: str, history: History, *series: Series, unit: str = "") -> Chart:
    """Begin a chart of some figures by step."""
    chart = Chart(name, title, unit, "step")
    for each in series:
        _tell_of(chart, each)
    chart.rules = [(step + 0.5, f"attempt {number}") for number, step in resumes(history.attempts)]
    return chart


def resumes(attempts: Sequence[Attempt]) -> list[tuple[int, int]]:
    """Find which attempts went on from which steps, as far as what followed was not left again."""
    found: list[tuple[int, int]] = []
    for attempt in attempts:
        if not attempt.record.get("steps"):
            continue
        begin = attempt.record.get("resumed_from") or 0
        found = [(number, other) for number, other in found if other < begin]
        if begin:
            found.append((attempt.number, begin))
    return found


def _reward_chart(history: History) -> Chart:
    chart = _by_step("reward", "Reward", history, history.reward)
    if len(history.reward):
        label = "mean of a step's rollouts"
        chart.lines.append(
            Line(label, history.reward.steps, history.reward.values, "c1", smooth=True, unit="")
        )
    for number, (name, series) in enumerate(history.evals.items(), start=1):
        if len(series):
            css = f"{colour(number)} dashed"
            chart.lines.append(Line(f"evaluation of {name}", series.steps, series.values, css))
    if not history.reward.steps:
        chart.title = "Reward of evaluations"
    return chart


def _loss_chart(history: History) -> Chart:
    chart = _by_step("loss", "Loss", history, history.loss, history.validation_loss)
    if len(history.loss):
        chart.lines.append(Line("each step", history.loss.steps, history.loss.values, "c1", smooth=True))
    if len(history.validation_loss):
        series = history.validation_loss
        chart.lines.append(Line("validation", series.steps, series.values, "c2"))
    values = [value for line in chart.lines for value in line.ys]
    if values and min(values) > LOWEST_LOGARITHMIC and max(values) > LOGARITHMIC_FROM * min(values):
        chart.logarithmic = True
    else:
        chart.leaves_out = 1 + len(history.attempts)
    return chart


def _throughput_chart(history: History) -> Chart:
    series = history.throughput
    chart = _by_step("throughput", "Throughput of the trainer", history, series, unit=series.unit)
    chart.lines.append(Line("each step", series.steps, series.values, "c3", smooth=True, unit=series.unit))
    chart.low = 0.0
    return chart


def _parts_chart(name: str, title: str, parts: Parts, history: History) -> Chart:
    whole = parts.whole
    chart = _by_step(name, title, history, whole, unit="s")
    chart.lines.append(Line("whole", whole.steps, whole.values, "whole", unit="s"))
    total = sum(whole.values)
    for part, (label, css) in PARTS.items():
        series = parts.parts.get(part)
        # Of a run without a metrics file only the whole is known.
        if series is not None and len(series) == len(whole) and sum(series.values) > NEGLIGIBLE * total:
            chart.areas.append((label, css, series.values))
    chart.low = 0.0
    # The first step of each attempt compiles.
    chart.leaves_out = 1 + len(history.attempts)
    return chart


def _gpu_charts(history: History) -> list[Chart]:
    memory = _over_time("gpu-memory", "GPU memory in use", "GiB", history)
    use = _over_time("gpu-use", "GPU use", "%", history)
    beginning = _beginning(history)
    totals = [0.0]
    for number, series in enumerate(history.gpus):
        xs, places = _with_gaps(series, beginning)
        used = [math.nan if place is None else series.memory_used[place] / 1024 for place in places]
        uses = [math.nan if place is None else series.use[place] for place in places]
        label, css = f"GPU {series.index}", colour(number)
        memory.lines.append(Line(label, xs, used, css, unit="GiB"))
        use.lines.append(Line(label, xs, uses, css, smooth=True, unit="%"))
        totals += [total / 1024 for total in series.memory_total if math.isfinite(total)]
    if not history.gpus:
        memory.title = "GPU memory reserved by the trainer"
    memory.lines += _trainer_peak(history, beginning)
    memory.low, memory.high = 0.0, max(totals)
    use.low, use.high = 0.0, 100.0
    if max(totals):
        size = figure(round(max(totals), 1), "GiB")
        memory.notes.append(f"A GPU has {size}. What others use on the same GPU is in it.")
    if history.gpus and len(history.gpus[0].times) >= FEWEST_FOR_MEAN:
        count = mean_width(len(use.lines[0].xs))
        use.mean_of_all = True
        use.notes.append(f"Faint: each sample; strong: the mean of {count} samples, of fewer at the ends.")
    return [memory, use]


def _trainer_peak(history: History, beginning: float) -> list[Line]:
    """What prime-rl's trainer says that it reserved, at the end of each step."""
    peak = history.peak_memory
    timed = sorted(
        (at - beginning, value) for at, value in zip(peak.times, peak.values, strict=True) if at >= beginning
    )
    if not timed:
        return []
    ats, values = zip(*timed, strict=True)
    return [Line("reserved by the trainer at most", ats, values, "c7 dashed", unit="GiB")]


def _over_time(name: str, title: str, unit: str, history: History) -> Chart:
    beginning = _beginning(history)
    ends = [series.times[-1] for series in history.gpus] + list(history.peak_memory.times[-1:])
    ends += [attempt.ended for attempt in history.attempts if attempt.ended is not None]
    span = max([1.0, *(end - beginning for end in ends if math.isfinite(end))])
    size, words = time_unit(span)

    def place_text(begin: float, end: float) -> str:
        until = "" if begin == end else f" to {moment(beginning + end)[11:]}"
        return f"{moment(beginning + begin)}{until} UTC"

    chart = Chart(name, title, unit, f"{words} since the first attempt", place_text=place_text)
    # The same for all of them, so that they can be laid over the timeline of attempts.
    chart.place_unit, chart.whole, chart.reach = size, False, (0.0, span)
    return chart


def _beginning(history: History) -> float:
    """When the first attempt began, or what is known first."""
    starts = [attempt.started for attempt in history.attempts if attempt.started is not None]
    firsts = [series.times[0] for series in history.gpus]
    firsts += [at for at in history.peak_memory.times[:1] if math.isfinite(at)]
    return min([*starts, *firsts], default=0.0)


def _with_gaps(series: GpuSeries, beginning: float) -> tuple[list[float], list[int | None]]:
    """Places of a GPU's samples, and their numbers; `None` between two attempts, where nothing was."""
    xs: list[float] = []
    places: list[int | None] = []
    for place, at in enumerate(series.times):
        if place and series.attempts[place] != series.attempts[place - 1]:
            xs.append(at - beginning)
            places.append(None)
        xs.append(at - beginning)
        places.append(place)
    return xs, places


def timeline(history: History) -> Picture | None:
    """Draw when each attempt was, and what it was at; `None` when no time is known."""
    shown = [attempt for attempt in history.attempts if attempt.phases][-MOST_ROWS:]
    stretches = [
        (row, attempt, phase)
        for row, attempt in enumerate(shown)
        for phase in attempt.phases
        if phase.name not in ENDS
    ]
    if not stretches:
        return None
    bars = [
        Bar(row, phase.began, phase.ended, _phase_colour(phase), _phase_in_words(attempt, phase))
        for row, attempt, phase in stretches
    ]
    legend: dict[str, list[str]] = {}
    for name in dict.fromkeys(phase.name for _, _, phase in stretches):
        legend.setdefault(PHASES.get(name or "", OTHER_PHASE), []).append(name or "not kept")
    ended = max(bar.end for bar in bars)
    picture = draw_timeline(
        "timeline",
        "Attempts and their phases",
        f"{len(shown)} attempts from {moment(bars[0].begin)} to {moment(ended)} UTC.",
        [
            f"{attempt.number}  {shorten(attempt.reason or '', 24, placeholder='...')}".rstrip()
            for attempt in shown
        ],
        bars,
        [(css, " or ".join(names)) for css, names in legend.items()],
        "the first attempt" if len(shown) == len(history.attempts) else f"attempt {shown[0].number}",
    )
    notes = []
    if len(shown) < len(history.attempts):
        notes.append(f"The newest {len(shown)} of {len(history.attempts)} attempts.")
    if not all(attempt.phases_kept for attempt in shown):
        notes.append("Where a job kept no phases, they are told from the times of its steps.")
    return replace(picture, notes=tuple(notes))


def _phase_colour(phase: Phase) -> str:
    return PHASES.get(phase.name or "", OTHER_PHASE)


def _phase_in_words(attempt: Attempt, phase: Phase) -> str:
    lasted = duration(phase.ended - phase.began)
    return f"attempt {attempt.number}: {phase.name or 'not kept'}\nfrom {moment(phase.began)} UTC\n{lasted}"
