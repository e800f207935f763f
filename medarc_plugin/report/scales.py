"""The arithmetic of charts, on paper or in a terminal: ticks, figures as text, running means, thinning."""

from __future__ import annotations

import bisect
import datetime as dt
import itertools
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FEWEST_FOR_MEAN = 8
"""Values from which on a running mean says something."""


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """Take the mean of the values around each value.

    Near the ends fewer are taken, as many on one side as on the other, so that no value is pulled
    towards what lies on one side of it: the first and the last stay as they are.

    Args:
        values: The values.
        width: How many values a mean is taken of; an odd number.
    """
    sums = list(itertools.accumulate(values, initial=0.0))
    half, last = width // 2, len(values) - 1
    means = []
    for place in range(len(values)):
        reach = min(half, place, last - place)
        means.append((sums[place + reach + 1] - sums[place - reach]) / (2 * reach + 1))
    return means


def mean_width(count: int) -> int:
    """Choose how many values a running mean is taken of: a twentieth, and at least five."""
    return max(5, count // 40 * 2 + 1)


def thin(xs: Sequence[float], ys: Sequence[float], most: int) -> tuple[list[float], list[float]]:
    """Leave so many points that a chart of them looks the same: extremes stay, and so do both ends.

    Args:
        xs: Places, ascending.
        ys: Values; NaN is a gap, and stays one.
        most: About how many points to leave.
    """
    if len(xs) <= most:
        return list(xs), list(ys)
    kept: list[int] = []
    for begin, end in buckets(xs, most // 2):
        places = [place for place in range(begin, end) if not math.isnan(ys[place])]
        gaps = [place for place in range(begin, end) if math.isnan(ys[place])]
        extremes = {min(places, key=ys.__getitem__), max(places, key=ys.__getitem__)} if places else set()
        kept.extend(sorted({*extremes, *gaps[:1]}))
    kept = sorted({0, *kept, len(xs) - 1})
    return [xs[place] for place in kept], [ys[place] for place in kept]


def buckets(xs: Sequence[float], most: int) -> list[tuple[int, int]]:
    """Divide ascending places into stretches of the same length.

    Args:
        xs: The places.
        most: How many stretches at most; those without a place are left out.

    Returns:
        Of each stretch the index of its first place, and the one behind its last.
    """
    if not xs:
        return []
    if len(xs) <= most:
        return [(place, place + 1) for place in range(len(xs))]
    length = (xs[-1] - xs[0]) / most
    edges = [bisect.bisect_left(xs, xs[0] + length * number) for number in range(1, most)]
    found = zip([0, *edges], [*edges, len(xs)], strict=True)
    return [(begin, end) for begin, end in found if end > begin]


def nice_step(span: float, count: int) -> float:
    """Choose a distance between ticks, 1, 2, 2.5 or 5 times a power of ten.

    Args:
        span: What the ticks reach over.
        count: About how many there should be.
    """
    if not span > 0 or not math.isfinite(span):
        return 1.0
    raw = span / max(1, count)
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if raw <= factor * power * 1.0001)


def ticks(low: float, high: float, count: int, smallest: float = 0.0) -> list[float]:
    """Choose round numbers between two bounds.

    Args:
        low: The lower bound.
        high: The upper bound.
        count: About how many.
        smallest: The least distance between two: 1 for steps.
    """
    step = max(nice_step(high - low, count), smallest)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Choose powers of ten between two positive bounds, with 2 and 5 times them where there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1,) if last - first > 3 else (1, 2, 5)  # noqa: PLR2004 - decades that leave room for no more
    every = max(1, (last - first) // 6)
    found = [factor * 10.0**power for power in range(first, last + 1, every) for factor in factors]
    return [value for value in found if low * 0.999 <= value <= high * 1.001]


_LARGE = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def tick_texts(values: Sequence[float]) -> list[str]:
    """Write ticks with as many digits as tell them apart."""
    if not values:
        return []
    most = max(map(abs, values))
    scale, letter = next(((scale, letter) for scale, letter in _LARGE if most >= 10 * scale), (1.0, ""))
    if 0 < most < 1e-3 or most >= 1e15:  # noqa: PLR2004 - these are shorter with an exponent
        return [f"{value:.3g}" for value in values]
    scaled = [value / scale for value in values]
    for digits in range(6):
        texts = [f"{value:.{digits}f}" for value in scaled]
        if all(
            abs(float(text) - value) <= 1e-6 * most / scale for text, value in zip(texts, scaled, strict=True)
        ):
            break
    return [f"{text}{letter}" if float(text) else "0" for text in texts]


def figure(value: float | None, unit: str = "") -> str:
    """Write a figure with four digits or so, and its unit."""
    if value is None or math.isnan(value):
        return "-"
    size = abs(value)
    if size >= 10_000:  # noqa: PLR2004 - from here on thousands are set apart
        text = f"{value:,.0f}".replace(",", "\u202f")
    elif size >= 1000 or value == int(value):  # noqa: PLR2004
        text = f"{value:.0f}"
    elif size >= 1e-3:  # noqa: PLR2004
        text = f"{value:.4g}"
    else:
        text = f"{value:.3g}"
    return f"{text} {unit}".rstrip()


def moment(epoch: float | None) -> str:
    """Write a time in UTC, to the second."""
    if epoch is None or math.isnan(epoch):
        return "-"
    try:
        return dt.datetime.fromtimestamp(epoch, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, OSError, ValueError):
        return "-"


def steps_in_words(steps: Iterable[float], most: int = 5) -> str:
    """Name some steps: `step 3`, `steps 3, 4 and 12 more`."""
    found = [f"{step:g}" for step in steps]
    if len(found) == 1:
        return f"step {found[0]}"
    if len(found) > most:
        return f"steps {', '.join(found[:most])} and {len(found) - most} more"
    return f"steps {', '.join(found[:-1])} and {found[-1]}"


TIME_UNITS = ((86400.0, "days", 3.0), (3600.0, "hours", 3.0), (60.0, "minutes", 3.0), (1.0, "seconds", 0.0))


def time_unit(span: float) -> tuple[float, str]:
    """Choose the unit in which a stretch of time is written.

    Args:
        span: Its length in seconds.

    Returns:
        Seconds of the unit, and its name.
    """
    return next((size, name) for size, name, least in TIME_UNITS if span >= least * size)
