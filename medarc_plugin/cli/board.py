"""How runs are shown: one as a block, several as a table, and each in a line where there is no terminal."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from medarc_plugin.cli import output
from medarc_plugin.standing import COMPLETED, GONE, LOST, PENDING, UNKNOWN, UNSUBMITTED, clock, duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import RenderableType

    from medarc_plugin.standing import RunStatus

COLOURS = {
    PENDING: "yellow",
    COMPLETED: "cyan",
    UNSUBMITTED: "dim",
    LOST: "magenta",
    GONE: "magenta",
    UNKNOWN: "magenta",
    "CANCELLED": "magenta",
}
GOING, ENDED = "green", "red"

UNBOUNDED = 1000
"""Columns where nobody looks: whoever reads a pipe wants lines that are not folded."""

REHEARSAL = " (rehearsal)"

BAR = 30
"""Columns of a progress bar at most."""


def console() -> Console:
    """Standard output: coloured and as wide as the terminal, or plain and unbounded without one."""
    there = sys.stdout.isatty()
    return Console(
        width=None if there else UNBOUNDED,
        highlight=False,
        markup=False,
        emoji=False,
        no_color=True if os.environ.get("NO_COLOR") else None,
    )


def show(shown: RenderableType, there: Console) -> None:
    """Print to standard output; without a terminal no line is filled up with blanks.

    Args:
        shown: What to print.
        there: `console()`.
    """
    if there.is_terminal:
        with output.unbroken():
            there.print(shown)
        return
    with there.capture() as captured:
        there.print(shown)
    output.fact("\n".join(line.rstrip() for line in captured.get().splitlines()))


def block(status: RunStatus, width: int) -> RenderableType:
    """Show one run.

    Args:
        status: How it stands.
        width: Columns there are.
    """
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="bold", no_wrap=True)
    rows.add_column(overflow="fold")
    for name, shown in _rows(status, width):
        rows.add_row(name, output.shown(shown) if isinstance(shown, str) else shown)
    return rows


def _rows(status: RunStatus, width: int) -> list[tuple[str, RenderableType]]:
    code = "" if status.exit_code is None else f", exit code {status.exit_code}"
    rows: list[tuple[str, RenderableType]] = [
        (
            "run",
            f"{status.run.name} ({status.run.entrypoint}{', a rehearsal' if status.run.rehearsal else ''})",
        ),
        ("state", Text.assemble((output.shown(status.state), colour(status)), code)),
    ]
    words: list[tuple[str, str | None]] = [
        ("", status.reason),
        ("job", _job(status)),
        ("node", _node(status)),
        ("time", _time(status)),
        ("phase", status.phase),
    ]
    rows += [(name, text) for name, text in words if text]
    if status.step is not None:
        rows.append(("step", _step(status, width)))
    figures = [
        f"{name} {value:.4f}"
        for name, value in (("reward", status.reward), ("loss", status.loss))
        if value is not None
    ]
    words = [
        ("figures", ", ".join(figures)),
        ("GPU hours", f"{status.gpu_hours:.2f}" if status.gpu_hours else None),
        *(("GPU" if place == 0 else "", text) for place, text in enumerate(_gpus(status))),
        ("directory", str(status.run.run_dir)),
        ("log", str(status.run.submission.log) if status.run.submission and status.attempt else None),
        ("note", status.note),
        *(("trouble", text) for text in status.trouble),
    ]
    return rows + [(name, text) for name, text in words if text]


def _job(status: RunStatus) -> str | None:
    if status.job_id is None:
        return None
    submission = status.run.submission
    cluster = f" on {submission.cluster}" if submission and submission.cluster else ""
    partition = f", partition {status.partition}" if status.partition else ""
    attempt = f", attempt {status.attempt}" if status.attempt else ""
    return f"{status.job_id}{cluster}{partition}{attempt}"


def _node(status: RunStatus) -> str | None:
    gpus = None
    if status.gpu_ids:
        gpus = f"GPU{'s' if len(status.gpu_ids) > 1 else ''} {','.join(map(str, status.gpu_ids))}"
    elif status.gpus:
        gpus = f"{status.gpus} GPU{'s' if status.gpus > 1 else ''}"
    return ", ".join(filter(None, (status.node, gpus))) or None


def _time(status: RunStatus) -> str | None:
    now = datetime.now(UTC)
    if status.state == PENDING:
        waited = (
            f"submitted {duration((now - status.submitted).total_seconds())} ago" if status.submitted else ""
        )
        start = f"expected to start {clock(status.estimated_start)}" if status.estimated_start else ""
        return ", ".join(filter(None, (waited, start)))
    if status.started is None:
        return f"ended {clock(status.ended)}, before it began" if status.ended is not None else None
    if status.ended is not None:
        took = duration((status.ended - status.started).total_seconds())
        return f"ended {clock(status.ended)} after {took}"
    if status.over:
        return f"began {clock(status.started)}"
    limit = f", its limit {clock(status.limit)}" if status.limit else ""
    return f"running for {duration((now - status.started).total_seconds())}{limit}"


def _step(status: RunStatus, width: int) -> RenderableType:
    if not status.max_steps:
        return str(status.step)
    left = _left(status)
    row = Table.grid(padding=(0, 1))
    bar = ProgressBar(status.max_steps, status.step or 0, width=max(5, min(BAR, width - 50)))
    row.add_row(steps(status), bar, percent(status), left)
    return row


def steps(status: RunStatus) -> str:
    """`12 of 40`, as far as it is known."""
    if status.step is None:
        return ""
    return f"{status.step} of {status.max_steps}" if status.max_steps else str(status.step)


def percent(status: RunStatus) -> str:
    """How much of the steps is made."""
    if status.step is None or not status.max_steps:
        return ""
    return f"{100 * status.step // status.max_steps} %"


def _left(status: RunStatus) -> str:
    if status.seconds_left is None or status.eta is None:
        return ""
    return f"{duration(status.seconds_left)} left, until {clock(status.eta).removeprefix('at ')}"


def _gpus(status: RunStatus) -> list[str]:
    gpus = status.records.state.get("gpus") if status.phase else None
    lines = []
    for gpu in gpus if isinstance(gpus, list) else ():
        if not isinstance(gpu, dict):
            continue
        used, total, use = (gpu.get(f) for f in ("memory_used_mib", "memory_total_mib", "use_percent"))
        if isinstance(used, int) and isinstance(total, int):
            busy = f", {use} % in use" if isinstance(use, int) else ""
            lines.append(f"{gpu.get('index')}: {used / 1024:.1f} of {total / 1024:.1f} GiB{busy}")
    return lines


def colour(status: RunStatus) -> str:
    """The colour of a state."""
    return COLOURS.get(status.state, ENDED if status.over else GOING)


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        heading: Its heading.
        cell: What stands in it.
        right: Whether it is a number.
        rank: Where there is no room, the highest go first; 0 stays.
        least: Letters to which it may be shortened before others go; 0 for none.
    """

    heading: str
    cell: Callable[[RunStatus], str]
    right: bool = False
    rank: int = 0
    least: int = 0


LEAST = 28
"""Letters of a reason that say something."""


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _age(status: RunStatus) -> str:
    if status.submitted is None:
        return ""
    return duration((datetime.now(UTC) - status.submitted).total_seconds()) + " ago"


def place(run_dir: Path) -> str:
    """A run directory as one would type it here."""
    try:
        return str(run_dir.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(run_dir)


COLUMNS = (
    Column("run", lambda status: place(status.run.run_dir) + (REHEARSAL if status.run.rehearsal else "")),
    Column("job", lambda status: status.job_id or "", rank=2),
    Column("state", lambda status: status.state),
    Column("phase", lambda status: status.phase or "", rank=6),
    Column("step", steps, right=True),
    Column("", percent, right=True, rank=4),
    Column("reward", lambda status: _figure(status.reward), right=True, rank=3),
    Column("loss", lambda status: _figure(status.loss), right=True, rank=7),
    Column(
        "left",
        lambda status: "" if status.seconds_left is None else duration(status.seconds_left),
        right=True,
        rank=5,
    ),
    Column("node", lambda status: status.node or "", rank=9),
    Column("GPUs", lambda status: str(status.gpus or ""), right=True, rank=10),
    Column("attempt", lambda status: str(status.attempt or ""), right=True, rank=11),
    Column("GPU hours", lambda status: f"{status.gpu_hours:.2f}", right=True, rank=8),
    Column("submitted", _age, right=True, rank=12),
    Column("why", lambda status: _one_line(status.reason), rank=1, least=LEAST),
)
GAP = 2


def table(found: Sequence[RunStatus], width: int) -> RenderableType:
    """Show several runs, a line each, with as many columns as there is room for.

    Args:
        found: How they stand.
        width: Columns there are.
    """
    cells = {column.heading: [output.shown(column.cell(status)) for status in found] for column in COLUMNS}
    columns = [column for column in COLUMNS if any(cells[column.heading])]
    widths = {
        column.heading: max(map(len, (column.heading, *cells[column.heading]))) + GAP for column in columns
    }
    whole = dict(widths)
    widths |= {each.heading: min(widths[each.heading], each.least + GAP) for each in columns if each.least}
    while sum(widths[column.heading] for column in columns) > width + GAP and any(c.rank for c in columns):
        columns.remove(max(columns, key=lambda column: column.rank))
    room = max(0, width + GAP - sum(widths[column.heading] for column in columns))
    shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    for column in columns:
        most = min(whole[column.heading], widths[column.heading] + room) - GAP
        shown.add_column(
            column.heading,
            justify="right" if column.right else "left",
            overflow="ellipsis" if column.least else "fold",
            no_wrap=column.heading != "run",
            max_width=most if column.least else None,
        )
    for place_, status in enumerate(found):
        shown.add_row(
            *(
                Text(cells[column.heading][place_], style=colour(status) if column.heading == "state" else "")
                for column in columns
            )
        )
    return Group(shown, *_remarks(found))


def _remarks(found: Sequence[RunStatus]) -> list[Text]:
    """What is to be said beside the table; what is the same for many runs once."""
    whose: dict[str, list[str]] = {}
    for status in found:
        # That SLURM forgets a run which ended long ago is nothing to be told of each.
        note = status.note if status.unanswered or not status.over else None
        for text in filter(None, (note, *status.trouble)):
            whose.setdefault(text, []).append(output.shown(place(status.run.run_dir)))
    many = 3
    return [
        Text(
            ", ".join(names[:many])
            + (f" and {len(names) - many} more" if len(names) > many else "")
            + f": {output.shown(text)}"
        )
        for text, names in whose.items()
    ]


def line(status: RunStatus) -> str:
    """Say in a line how a run stands: for a watcher without a terminal."""
    figures = [
        f"{name} {value:.4f}"
        for name, value in (("reward", status.reward), ("loss", status.loss))
        if value is not None
    ]
    facts = [
        status.phase,
        f"step {steps(status)}" if status.step is not None else None,
        *figures,
        f"attempt {status.attempt}" if status.attempt else None,
        status.reason,
    ]
    return f"{place(status.run.run_dir)}: {status.state}" + "".join(f", {fact}" for fact in facts if fact)
