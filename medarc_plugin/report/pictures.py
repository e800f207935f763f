"""Charts as geometry: from values to paths, boxes and words, so that a template has only to print them.

Lengths are in units of the picture's own width, which is `WIDTH`; whoever shows it scales it.
"""

from __future__ import annotations

import bisect
import itertools
import math
from dataclasses import dataclass, field
from textwrap import shorten
from typing import TYPE_CHECKING

from medarc_plugin.report.scales import (
    FEWEST_FOR_MEAN,
    buckets,
    figure,
    log_ticks,
    mean_width,
    running_mean,
    thin,
    tick_texts,
    ticks,
    time_unit,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WIDTH, HEIGHT = 560.0, 270.0
WIDE = 1140.0
"""Width of a picture that takes a whole row."""

COLOURS = 8
"""Colours that a template has for lines, by the names `c1` to `c8`."""

MOST_POINTS = 2000
"""Points that a line is drawn with at most."""

MOST_STRETCHES = 90
"""Places over which a pointer finds out what is drawn there."""

MOST_BARS = 300
FEW = 60
"""Values up to which each has a dot of its own."""

LINE_HEIGHT = 15.0
LARGEST = 1e300
"""What an axis reaches to at most: beyond, there is no room to reckon with."""

LONGEST_WORDS = 44
"""Letters of an entry of a legend."""

LETTER = 6.8
"""About how wide a letter is."""

DROPPED_SHARE = 0.02
FAR = 3.0
"""How much higher than all but the highest values those may be before the axis leaves them out."""


@dataclass(frozen=True)
class Word:
    """A word in a picture."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Path:
    """A line or an area; `css` says which."""

    css: str
    d: str


@dataclass(frozen=True)
class Box:
    """A box, with what a pointer on it is told."""

    css: str
    x: float
    y: float
    width: float
    height: float
    title: str = ""


@dataclass(frozen=True)
class Key:
    """An entry of the legend: `kind` is `line`, `dots` or `box`."""

    css: str
    kind: str
    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Picture:
    """A chart, ready to be printed.

    Attributes:
        name: Its id.
        title: What it shows, with the unit.
        summary: The same in words, for whoever does not see it.
        width: Its width.
        height: Its height.
        left: Where the plot begins.
        top: Likewise, from above.
        right: Where it ends.
        bottom: Likewise.
        x_ticks: Marks below.
        y_ticks: Marks at the left.
        x_label: What runs from left to right.
        keys: The legend.
        paths: Lines and areas, the lowest first.
        boxes: Boxes, likewise.
        rules: Upright lines, with a word each.
        stretches: Boxes that are seen by a pointer only.
        notes: Sentences that belong below it.
        css: What kind of picture it is.
    """

    name: str
    title: str
    summary: str
    width: float
    height: float
    left: float
    top: float
    right: float
    bottom: float
    x_ticks: tuple[Word, ...]
    y_ticks: tuple[Word, ...]
    x_label: str
    keys: tuple[Key, ...] = ()
    paths: tuple[Path, ...] = ()
    boxes: tuple[Box, ...] = ()
    rules: tuple[Word, ...] = ()
    stretches: tuple[Box, ...] = ()
    notes: tuple[str, ...] = ()
    css: str = "chart"

    @property
    def middle(self) -> float:
        """Half-way from left to right."""
        return (self.left + self.right) / 2

    @property
    def plot_width(self) -> float:
        """Width of what is drawn in."""
        return self.right - self.left

    @property
    def plot_height(self) -> float:
        """Height of what is drawn in."""
        return self.bottom - self.top


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        label: What it is.
        xs: Places, ascending.
        ys: Values; NaN is a gap.
        css: Its colour and kind, for the template.
        smooth: Whether it is drawn faint, with its running mean.
        unit: What its values are in.
        told: Whether a pointer is told its values.
    """

    label: str
    xs: Sequence[float]
    ys: Sequence[float]
    css: str
    smooth: bool = False
    unit: str = ""
    told: bool = True


@dataclass
class Chart:
    """What a chart is to show; `draw` makes a picture of it.

    Attributes:
        name: Its id.
        title: What it shows.
        unit: What its values are in.
        x_label: What runs from left to right.
        lines: Its lines, the lowest first.
        areas: Stacked areas by label, each at the places of the first line.
        dots: Dots that belong to no line: places, values, label.
        rules: Upright lines: place and word.
        low: The lowest value that the axis begins at; `None` leaves it to the values.
        high: The highest value that the axis reaches at least.
        logarithmic: Whether the axis is.
        leaves_out: How many of the highest values the axis may leave out, to show the others.
        place_text: How a place is written for a pointer.
        place_unit: Length of a unit of the axis below.
        reach: The places that the axis below reaches from and to; `None` leaves it to the lines.
        whole: Whether places are whole numbers.
        mean_of_all: The legend need not name the mean of each line: a note does.
        notes: Sentences that belong below it.
        width: The picture's width.
    """

    name: str
    title: str
    unit: str
    x_label: str
    lines: list[Line] = field(default_factory=list)
    areas: list[tuple[str, str, Sequence[float]]] = field(default_factory=list)
    dots: tuple[Sequence[float], Sequence[float], str] = ((), (), "")
    rules: list[tuple[float, str]] = field(default_factory=list)
    low: float | None = None
    high: float | None = None
    logarithmic: bool = False
    leaves_out: int = 0
    place_text: Callable[[float, float], str] = lambda begin, end: (
        f"step {begin:g}" if begin == end else f"steps {begin:g} to {end:g}"
    )
    place_unit: float = 1.0
    reach: tuple[float, float] | None = None
    whole: bool = True
    mean_of_all: bool = False
    notes: list[str] = field(default_factory=list)
    width: float = WIDTH

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(math.isfinite(y) for line in self.lines for y in line.ys)


def colour(number: int) -> str:
    """Name the colour of the line with a number, from 0; when they are used up, the lines are dashed."""
    again = " again" if number % (2 * COLOURS) >= COLOURS else ""
    return f"c{number % COLOURS + 1}{again}"


def mean_of(line: Line) -> list[float] | None:
    """Take the running mean of a line that is to be smoothed and is long enough; `None` for another."""
    if not line.smooth or len(line.ys) < FEWEST_FOR_MEAN:
        return None
    width = mean_width(len(line.ys))
    parts = [(is_gap, list(values)) for is_gap, values in itertools.groupby(line.ys, math.isnan)]
    return [mean for is_gap, part in parts for mean in (part if is_gap else running_mean(part, width))]


def reach(chart: Chart) -> tuple[float, float]:
    """Choose the places that a chart that is not empty reaches from and to."""
    xs = [line.xs for line in chart.lines if len(line.xs)]
    if chart.reach is not None:
        xs.append(chart.reach)
    return min(x[0] for x in xs), max(x[-1] for x in xs)


def bounds(chart: Chart) -> tuple[float, float]:
    """Choose what the axis of a chart that is not empty reaches from and to."""
    values = sorted(value for line in chart.lines for value in line.ys if math.isfinite(value))
    low, high = (min(LARGEST, max(-LARGEST, value)) for value in (values[0], values[-1]))
    kept = values[: len(values) - chart.leaves_out - math.ceil(DROPPED_SHARE * len(values))]
    if chart.leaves_out and len(kept) > FEWEST_FOR_MEAN // 2 and high > FAR * kept[-1] > 0:
        high = max(value for value in values if value <= FAR * kept[-1])
    if chart.logarithmic:
        return low / 1.1, high * 1.1
    if chart.high is not None:
        high = max(high, chart.high)
    room = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    return (min(low, chart.low) if chart.low is not None else low - room), high + room


def far_above(chart: Chart, line: Line, high: float) -> str:
    """Name what a line has above the axis, which reaches up to `high`; empty when there is nothing."""
    above = [(x, y) for x, y in zip(line.xs, line.ys, strict=True) if y > high]
    named = [f"{figure(y, line.unit)} at {chart.place_text(x, x)}" for x, y in above[:3]]
    more = f"; and {len(above) - 3} more" if len(above) > len(named) else ""
    return f"Above the axis: {'; '.join(named)}{more}." if named else ""


def draw(chart: Chart) -> Picture:
    """Make a picture of a chart that is not empty."""
    return _Drawing(chart).picture()


@dataclass(frozen=True)
class Bar:
    """A stretch of a timeline: in which row, from when to when, and what a pointer is told."""

    row: int
    begin: float
    end: float
    css: str
    title: str


ROW = 22.0


def draw_timeline(
    name: str,
    title: str,
    summary: str,
    rows: Sequence[str],
    bars: Sequence[Bar],
    legend: Sequence[tuple[str, str]],
    since: str,
) -> Picture:
    """Make a picture of what happened when, a row for each of several.

    Args:
        name: Its id.
        title: What it shows.
        summary: The same in words.
        rows: The rows' names, from above.
        bars: What happened; times are in seconds.
        legend: Colour and meaning of the bars.
        since: What the times are counted from.
    """
    left = 16 + LETTER * max(map(len, rows))
    keys, lines = _legend([(css, "box", text) for css, text in legend], left, WIDE - 14)
    top = 28 + LINE_HEIGHT * lines
    bottom = top + ROW * len(rows)
    begin, end = min(bar.begin for bar in bars), max(bar.end for bar in bars)
    size, unit = time_unit(end - begin)
    x = Axis(begin, max(end, begin + 1.0), left, WIDE - 14)
    values = ticks(0.0, (x.high - begin) / size, 10)
    return Picture(
        name=name,
        title=title,
        summary=summary,
        width=WIDE,
        height=bottom + 38,
        left=left,
        top=top,
        right=WIDE - 14,
        bottom=bottom,
        x_ticks=tuple(
            Word(x.place(begin + value * size), bottom, text)
            for value, text in zip(values, tick_texts(values), strict=True)
        ),
        y_ticks=tuple(Word(left, top + ROW * (row + 0.5), text) for row, text in enumerate(rows)),
        x_label=f"{unit} since {since}",
        keys=tuple(keys),
        boxes=tuple(_bars(bars, x, top)),
        css="timeline",
    )


def _bars(bars: Sequence[Bar], x: Axis, top: float) -> list[Box]:
    """Place the bars; one that is too narrow to be seen is drawn as wide as can be seen."""
    found: list[Box] = []
    drawn: dict[int, float] = {}
    for bar in bars:
        begin, end = x.place(bar.begin), x.place(bar.end)
        if end - begin < NARROW and end < drawn.get(bar.row, -math.inf) + NARROW:
            continue
        drawn[bar.row] = end
        found.append(
            Box(bar.css, begin, top + ROW * bar.row + 3, max(end - begin, NARROW), ROW - 6, bar.title)
        )
    return found


NARROW = 0.5


def _legend(entries: Sequence[tuple[str, str, str]], left: float, right: float) -> tuple[list[Key], int]:
    """Place a legend below the title, in as many rows as it needs: keys, and the number of rows."""
    keys: list[Key] = []
    x, row = left, 0
    for css, kind, words in entries:
        text = shorten(words, LONGEST_WORDS, placeholder="...")
        length = 26 + LETTER * len(text)
        if x > left and x + length > right + 10:
            x, row = left, row + 1
        keys.append(Key(css, kind, x, 33 + LINE_HEIGHT * row, text))
        x += length
    return keys, row + 1 if keys else 0


@dataclass(frozen=True)
class Axis:
    """Where values lie in a picture: `low` at `begin`, `high` at `end`."""

    low: float
    high: float
    begin: float
    end: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Where a value lies."""
        if self.logarithmic:
            share = math.log(max(value, self.low * 1e-3) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        # What is far outside is cut off; its number need not be long.
        return self.begin + (self.end - self.begin) * min(3.0, max(-2.0, share))


class _Drawing:
    """One chart on its way to a picture."""

    def __init__(self, chart: Chart) -> None:
        self.chart = chart
        self.means = [mean_of(line) for line in chart.lines]
        self.notes = list(chart.notes)
        low, high = bounds(chart)
        self.y_values = log_ticks(low, high) if chart.logarithmic else ticks(low, high, 6)
        self.y_texts = tick_texts(self.y_values)
        self.left = 14 + LETTER * max([4, *map(len, self.y_texts)])
        self.right = chart.width - 14
        self.keys, rows = self._legend()
        self.top = 28 + LINE_HEIGHT * rows
        self.bottom = HEIGHT - 38
        first, last = reach(chart)
        # Room for dots at the ends; a bar reaches half a step to both sides.
        room = 0.5 if chart.areas or first == last else 0.012 * (last - first)
        first, last = first - room, last + room
        self.x = Axis(first, last, self.left, self.right)
        self.y = Axis(low, high, self.bottom, self.top, chart.logarithmic)

    def picture(self) -> Picture:
        chart = self.chart
        x_values = ticks(
            self.x.low / chart.place_unit,
            self.x.high / chart.place_unit,
            max(4, round(chart.width / 90)),
            1.0 if chart.whole else 0.0,
        )
        x_ticks = [
            Word(self.x.place(value * chart.place_unit), self.bottom, text)
            for value, text in zip(x_values, tick_texts(x_values), strict=True)
        ]
        y_ticks = [
            Word(self.left, self.y.place(value), text)
            for value, text in zip(self.y_values, self.y_texts, strict=True)
        ]
        title = f"{chart.title} ({chart.unit})" if chart.unit else chart.title
        return Picture(
            name=chart.name,
            title=title + (", logarithmic" if chart.logarithmic else ""),
            summary=self._summary(),
            width=chart.width,
            height=HEIGHT,
            left=self.left,
            top=self.top,
            right=self.right,
            bottom=self.bottom,
            x_ticks=tuple(x_ticks),
            y_ticks=tuple(y_ticks),
            x_label=chart.x_label,
            keys=tuple(self.keys),
            paths=(*self._areas(), *self._dots(), *self._lines()),
            boxes=tuple(self._left_out()),
            rules=tuple(
                Word(self.x.place(place), self.top, text)
                for place, text in chart.rules
                if self.x.low <= place <= self.x.high
            ),
            stretches=tuple(self._stretches()),
            notes=tuple(self.notes),
        )

    def _legend(self) -> tuple[list[Key], int]:
        """What there is to tell apart."""
        chart = self.chart
        entries: list[tuple[str, str, str]] = []
        if chart.dots[2]:
            entries.append(("abandoned", "dots", chart.dots[2]))
        entries += [(css, "box", label) for label, css, _ in chart.areas]
        for line, mean in zip(chart.lines, self.means, strict=True):
            if not line.label or (chart.areas and len(line.xs) <= MOST_BARS):
                continue
            together = mean and chart.mean_of_all
            entries.append((f"{line.css} {'raw' if mean and not together else 'mean'}", "line", line.label))
            if mean and not together:
                entries.append((f"{line.css} mean", "line", f"mean of {mean_width(len(line.ys))} steps"))
        if len(entries) < 2:  # noqa: PLR2004 - the title says what a single line is
            entries = []
        return _legend(entries, self.left, self.right)

    def _lines(self) -> list[Path]:
        paths = []
        for line, mean in zip(self.chart.lines, self.means, strict=True):
            css = f"line {line.css} {'raw' if mean else 'mean'}{' many' if self.chart.mean_of_all else ''}"
            if self.chart.areas and len(line.xs) <= MOST_BARS:
                continue  # the areas reach up to it
            paths.append(Path(css, self._d(*thin(line.xs, line.ys, MOST_POINTS))))
            if sum(map(math.isfinite, line.ys)) <= FEW:
                paths.append(Path(f"dots {line.css}", self._dots_d(line.xs, line.ys)))
            if mean:
                paths.append(Path(f"line {line.css} mean", self._d(*thin(line.xs, mean, MOST_POINTS // 2))))
        return paths

    def _d(self, xs: Sequence[float], ys: Sequence[float]) -> str:
        words, pen = [], "M"
        for x, y in zip(xs, ys, strict=True):
            if math.isnan(y):
                pen = "M"
                continue
            words.append(f"{pen}{_short(self.x.place(x))} {_short(self.y.place(y))}")
            pen = "L"
        return "".join(words)

    def _dots_d(self, xs: Sequence[float], ys: Sequence[float]) -> str:
        """Lines without length, whose round ends are dots."""
        return "".join(
            f"M{_short(self.x.place(x))} {_short(self.y.place(y))}h0"
            for x, y in zip(xs, ys, strict=True)
            if not math.isnan(y)
        )

    def _dots(self) -> list[Path]:
        xs, ys, _ = self.chart.dots
        if not len(xs):
            return []
        order = sorted(range(len(xs)), key=xs.__getitem__)
        thinned = thin([xs[place] for place in order], [ys[place] for place in order], MOST_POINTS)
        return [Path("dots abandoned", self._dots_d(*thinned))]

    def _areas(self) -> list[Path]:
        """Stack the areas; of many steps that share a place, their mean."""
        chart = self.chart
        if not chart.areas:
            return []
        xs = chart.lines[0].xs
        stretches = buckets(xs, MOST_BARS)
        edges = [self.x.place(xs[begin] - 0.5) for begin, _ in stretches]
        edges.append(self.x.place(xs[-1] + 0.5))
        below, paths = [0.0] * len(stretches), []
        for _, css, values in chart.areas:
            means = [sum(values[begin:end]) / (end - begin) for begin, end in stretches]
            above = [low + mean for low, mean in zip(below, means, strict=True)]
            outline = [*_stairs(edges, above), *reversed(_stairs(edges, below))]
            points = "L".join(f"{_short(x)} {_short(self.y.place(y))}" for x, y in outline)
            paths.append(Path(f"area {css}", f"M{points}Z"))
            below = above
        return paths

    def _left_out(self) -> list[Box]:
        """Mark what the axis does not reach."""
        found = []
        for line in self.chart.lines:
            above = [(x, y) for x, y in zip(line.xs, line.ys, strict=True) if y > self.y.high]
            for x, y in above[:FEW]:
                title = f"{self.chart.place_text(x, x)}: {figure(y, line.unit)}, above the axis"
                found.append(Box("above", self.x.place(x) - 3, self.top, 6, 5, title))
            self.notes += filter(None, [far_above(self.chart, line, self.y.high)])
        return found

    def _stretches(self) -> list[Box]:
        """Cut the plot into upright stretches, each of which tells what is drawn there."""
        chart = self.chart
        told = [line for line in chart.lines if line.told and len(line.xs)]
        if not told:
            return []
        longest = max(told, key=lambda line: len(line.xs))
        found = []
        stretches = buckets(longest.xs, MOST_STRETCHES)
        # Half-way to the neighbours, so that nothing of the plot is deaf.
        centres = [(longest.xs[begin], longest.xs[end - 1]) for begin, end in stretches]
        middles = [(one[1] + other[0]) / 2 for one, other in itertools.pairwise(centres)]
        edges = [self.left, *map(self.x.place, middles), self.right]
        places = [-math.inf, *middles, math.inf]
        for number, (first, last) in enumerate(centres):
            words = [chart.place_text(first, last)]
            for line, mean in zip(chart.lines, self.means, strict=True):
                if line.told:
                    words += _told(line, mean, places[number], places[number + 1])
            for label, _, values in chart.areas:
                begin, end = stretches[number]
                share = sum(values[begin:end]) / (end - begin)
                words.append(f"{label}: {figure(share, chart.unit)}")
            width = edges[number + 1] - edges[number]
            found.append(
                Box("stretch", edges[number], self.top, width, self.bottom - self.top, "\n".join(words))
            )
        return found

    def _summary(self) -> str:
        chart = self.chart
        words = [f"{chart.title}."]
        for line in chart.lines:
            values = [value for value in line.ys if math.isfinite(value)]
            if values and line.told:
                low, high, last = (
                    figure(value, line.unit) for value in (min(values), max(values), values[-1])
                )
                words.append(
                    f"{line.label or chart.title}: {len(values)} values, from {low} to {high}, "
                    f"the last {last}."
                )
        return " ".join(words)


def _told(line: Line, mean: Sequence[float] | None, begin: float, end: float) -> list[str]:
    """What a line has between two places, in words."""
    first, last = bisect.bisect_left(line.xs, begin), bisect.bisect_left(line.xs, end)
    values = [value for value in line.ys[first:last] if math.isfinite(value)]
    if not values:
        return []
    low, high = figure(min(values), line.unit), figure(max(values), line.unit)
    words = f"{line.label}: {low}" + (f" to {high}" if high != low else "")
    if mean:
        words += f", mean {figure(mean[(first + last - 1) // 2], line.unit)}"
    return [words]


def _stairs(edges: Sequence[float], heights: Sequence[float]) -> list[tuple[float, float]]:
    return [
        point
        for place, height in enumerate(heights)
        for point in ((edges[place], height), (edges[place + 1], height))
    ]


def _short(length: float) -> str:
    """Write a length to a tenth, without what need not be there."""
    return f"{length:.1f}".removesuffix(".0")
