"""Charts in a terminal: dots of braille, or plain letters where those cannot be printed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING

from medarc_plugin.report.pictures import Axis, bounds, far_above, mean_of, reach
from medarc_plugin.report.scales import log_ticks, mean_width, thin, tick_texts, ticks

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from medarc_plugin.report.pictures import Chart

LETTERS = "\u2840\u2502\u2524\u2514\u2500\u252c"
"""What has to be printable for a chart of braille."""

HEIGHT = 12
"""Rows of a plot."""

NARROWEST = 12
"""Columns of a plot at least."""

ABANDONED, RAW, MEAN = "abandoned", "raw", "mean"
"""Layers of a plot, each over those before."""

SIGNS = "ox+#@%&"
"""What marks the further lines, which have few points."""

_BRAILLE = 0x2800
# Dots of a cell by column and row: https://www.unicode.org/charts/PDF/U2800.pdf
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_COLOURS = {ABANDONED: "2", RAW: "36", MEAN: "1;36"}
_SIGN_COLOURS = ("33", "32", "35", "31")


@dataclass(frozen=True)
class Style:
    """What a terminal can show.

    Attributes:
        width: Its columns.
        braille: Whether it can print dots and lines that are not ASCII.
        colour: Whether colours are wanted.
    """

    width: int
    braille: bool
    colour: bool


def draw(chart: Chart, style: Style) -> list[str]:
    """Draw a chart that is not empty.

    Returns:
        Its lines.
    """
    return _Plot(chart, style).text()


class _Plot:
    """One chart on its way to lines of text."""

    def __init__(self, chart: Chart, style: Style) -> None:
        self.chart, self.style = chart, style
        low, high = bounds(chart)
        self.y_values = log_ticks(low, high) if chart.logarithmic else ticks(low, high, HEIGHT // 2)
        self.y_texts = tick_texts(self.y_values)
        self.margin = max(map(len, [*self.y_texts, "    "])) + 1
        self.columns = max(NARROWEST, style.width - self.margin - 1)
        self.across, self.down = (2, 4) if style.braille else (1, 1)
        first, last = reach(chart)
        self.x = Axis(first, last if last > first else first + 1, 0.0, self.columns * self.across - 1.0)
        self.y = Axis(low, high, HEIGHT * self.down - 1.0, 0.0, chart.logarithmic)
        self.cells: dict[tuple[int, int], dict[str, int]] = {}
        self.signs: dict[tuple[int, int], tuple[str, str]] = {}
        self.legend: list[tuple[str, str]] = []
        self._fill()

    def text(self) -> list[str]:
        chart = self.chart
        unit = f", {chart.unit}" if chart.unit else ""
        kind = ", logarithmic" if chart.logarithmic else ""
        named = {round(self.y.place(value)) // self.down: text for value, text in self._y_ticks()}
        wall, tick = ("│", "┤") if self.style.braille else ("|", "+")
        lines = [self._painted(f"{chart.title}{unit}{kind}", "1")]
        for row in range(HEIGHT):
            mark = tick if row in named else wall
            cells = "".join(self._cell(column, row) for column in range(self.columns))
            lines.append(f"{named.get(row, ''):>{self.margin}}{mark}{cells}".rstrip())
        lines += self._x_axis()
        below = [*self._legend(), *(line for note in self._notes() for line in wrap(note, self.columns))]
        return [*lines, *(f"{'':{self.margin + 1}}{line}" for line in below)]

    def _notes(self) -> list[str]:
        notes = [far_above(self.chart, line, self.y.high) for line in self.chart.lines]
        return [note for note in (*self.chart.notes, *notes) if note]

    def _legend(self) -> list[str]:
        """The legend, in as many lines as it needs."""
        lines: list[list[str]] = [[]]
        length = 0
        for text, code in self.legend:
            if lines[-1] and length + len(text) > self.columns:
                lines.append([])
                length = 0
            lines[-1].append(self._painted(text, code))
            length += len(text) + 3
        return ["   ".join(line) for line in lines if line]

    def _y_ticks(self) -> Iterable[tuple[float, str]]:
        # A row has room for one: the later ones go over the earlier.
        return zip(self.y_values, self.y_texts, strict=True)

    def _x_axis(self) -> list[str]:
        least = 1.0 if self.chart.whole else 0.0
        values = ticks(self.x.low, self.x.high, max(2, self.columns // 10), least)
        corner, flat, down = ("└", "─", "┬") if self.style.braille else ("+", "-", "+")
        axis, names = [flat] * self.columns, [" "] * (self.columns + 8)
        free = 0
        for value, text in zip(values, tick_texts(values), strict=True):
            column = round(self.x.place(value)) // self.across
            axis[column] = down
            begin = max(0, min(column - len(text) // 2, self.columns - len(text)))
            if begin >= free:
                names[begin : begin + len(text)] = text
                free = begin + len(text) + 1
        label = self.chart.x_label
        line = "".join(names).rstrip()
        # Behind the last name, where there is room for it.
        if len(line) + 2 + len(label) <= self.columns:
            line = f"{line:<{self.columns - len(label)}}{label}"
        return [f"{'':{self.margin}}{corner}{''.join(axis)}", f"{'':{self.margin + 1}}{line}"]

    def _fill(self) -> None:
        xs, ys, label = self.chart.dots
        for x, y in zip(xs, ys, strict=True):
            self._dot(ABANDONED, self.x.place(x), self.y.place(y))
        signs = 0
        for line in self.chart.lines:
            mean = mean_of(line)
            if mean:
                # Of many, the highest and lowest of each column: a cloud would hide the line.
                for x, y in zip(*thin(line.xs, line.ys, 2 * self.columns), strict=True):
                    self._dot(RAW, self.x.place(x), self.y.place(y))
                self._connect(line.xs, mean)
                self.legend.append((f"{self._sample(RAW)} {line.label}", _COLOURS[RAW]))
                words = f"{self._sample(MEAN)} mean of {mean_width(len(line.ys))}"
                self.legend.append((words, _COLOURS[MEAN]))
            elif line is self.chart.lines[0]:
                self._connect(line.xs, line.ys)
                self.legend.append((f"{self._sample(MEAN)} {line.label}", _COLOURS[MEAN]))
            else:
                sign, colour = SIGNS[signs % len(SIGNS)], _SIGN_COLOURS[signs % len(_SIGN_COLOURS)]
                signs += 1
                self._mark(line.xs, line.ys, sign, colour)
                self.legend.append((f"{sign} {line.label}", colour))
        if label:
            self.legend.append((f"{self._sample(ABANDONED)} {label}", _COLOURS[ABANDONED]))

    def _dot(self, layer: str, x: float, y: float) -> None:
        across, down = round(x), round(y)
        if not (0 <= across < self.columns * self.across and 0 <= down < HEIGHT * self.down):
            return
        column, place = divmod(across, self.across)
        row, height = divmod(down, self.down)
        cell = self.cells.setdefault((column, row), {})
        cell[layer] = cell.get(layer, 0) | _DOTS[place][height]

    def _connect(self, xs: Sequence[float], ys: Sequence[float]) -> None:
        before: tuple[float, float] | None = None
        for x, y in zip(*thin(xs, ys, 4 * self.columns), strict=True):
            if math.isnan(y):
                before = None
                continue
            point = self.x.place(x), self.y.place(y)
            before = before or point
            count = max(1, math.ceil(max(abs(point[0] - before[0]), abs(point[1] - before[1]))))
            for number in range(count + 1):
                share = number / count
                self._dot(
                    MEAN,
                    before[0] + share * (point[0] - before[0]),
                    before[1] + share * (point[1] - before[1]),
                )
            before = point

    def _mark(self, xs: Sequence[float], ys: Sequence[float], sign: str, colour: str) -> None:
        for x, y in zip(xs, ys, strict=True):
            if math.isfinite(y):
                column = round(self.x.place(x)) // self.across
                row = min(HEIGHT - 1, max(0, round(self.y.place(y)) // self.down))
                self.signs[column, row] = sign, colour

    def _cell(self, column: int, row: int) -> str:
        if (column, row) in self.signs:
            return self._painted(*self.signs[column, row])
        layers = self.cells.get((column, row))
        if not layers:
            return " "
        layer = next(layer for layer in (MEAN, RAW, ABANDONED) if layer in layers)
        if not self.style.braille:
            return self._painted(self._sample(layer), _COLOURS[layer])
        return self._painted(chr(_BRAILLE + layers[layer]), _COLOURS[layer])

    def _sample(self, layer: str) -> str:
        """How a layer looks in the legend, and where there is no braille."""
        braille, plain = {ABANDONED: ("⠂", ","), RAW: ("⠒", "."), MEAN: ("⠤⠤", "*")}[layer]
        return braille if self.style.braille else plain

    def _painted(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self.style.colour and text else text
