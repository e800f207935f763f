"""The command that shows logs, and how a run is followed: `logs`, and `--follow` of a launch."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from medarc_plugin.cli import output
from medarc_plugin.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from medarc_plugin.logs import LogFile
    from medarc_plugin.runs import Run
    from medarc_plugin.standing import RunStatus

COLOURS = {
    "job": "1",
    "trainer": "32",
    "orchestrator": "34",
    "inference": "35",
    "evals": "33",
    "env": "36",
}
"""Of the marks before each component's lines, as terminals number them."""

LABEL = 12
"""Columns of a mark at least: the longest component's name."""

LAST = 20
"""Lines of each log that are shown unless said otherwise."""


class ReaderGoneError(Exception):
    """Whoever read the output has gone away, as `head` does."""


RunName = Annotated[
    str | None,
    typer.Argument(metavar="RUN", help="A run directory or job id. Default: the project's newest run."),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("logs")(logs)


def logs(
    named: RunName = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run is over; waits while it is pending.")
    ] = False,
    component: Annotated[
        list[str] | None,
        typer.Option(
            "--component", "-c", metavar="NAME", help="trainer, orchestrator, inference, evals, env or job."
        ),
    ] = None,
    attempt: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Of this attempt. Default: the newest.")
    ] = None,
    lines: Annotated[
        int, typer.Option("-n", "--lines", metavar="LINES", min=0, help="Last lines of each log.")
    ] = LAST,
) -> None:
    """Show the last lines of a run's logs, and with -f what comes.

    Ctrl-C ends the showing; the run goes on.
    """
    from medarc_plugin import records, runs
    from medarc_plugin.logs import COMPONENTS, find, last_lines, of_attempt

    unknown = [name for name in component or () if name not in COMPONENTS]
    if unknown:
        raise UsageError(
            f"there is no component {unknown[0]!r}", hint=f"the components are {', '.join(COMPONENTS)}"
        )
    wanted = tuple(component or COMPONENTS)
    run = runs.find(named)
    show = printer(wanted)
    if follow:
        raise typer.Exit(0 if follow_run(run, wanted, attempt, lines) else output.INTERRUPTED)
    told = records.read(run)
    known = [each.number for each in told.attempts]
    if attempt is not None and attempt not in known:
        raise UsageError(
            f"{run.run_dir} has no attempt {attempt}",
            hint=f"its attempts are {', '.join(map(str, known))}" if known else "it has not begun yet",
        )
    chosen = of_attempt(find(run, told, wanted), told, attempt)
    with contextlib.suppress(ReaderGoneError):
        for log in chosen:
            show(log, last_lines(log, lines, attempt)[0])
    if not chosen:
        _say_why_none(run, wanted)


def follow_run(
    run: Run, components: Collection[str], attempt: int | None = None, lines: int = LAST
) -> RunStatus | None:
    """Follow a run to its end; Ctrl-C leaves it running and says how to come back.

    Returns:
        How it stands then; `None` after Ctrl-C, and when nobody reads any more.
    """
    from medarc_plugin.cli.board import place
    from medarc_plugin.logs import Follower
    from medarc_plugin.process import show as quoted

    try:
        return Follower(run, components, attempt, lines, printer(components), output.say).follow()
    except KeyboardInterrupt:
        command = quoted(["medarc_slurm", "logs", "-f", place(run.run_dir)])
        output.say(f"\nthe run goes on; come back with: {command}")
    except ReaderGoneError:
        pass
    return None


def printer(components: Collection[str]) -> Callable[[LogFile, Sequence[bytes]], None]:
    """Make what prints lines, each marked with whose it is where that is not plain.

    Args:
        components: Whose lines there will be.
    """
    from medarc_plugin.tails import text_of

    marked = len(components) > 1 or "env" in components
    colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def show(log: LogFile, lines: Sequence[bytes]) -> None:
        mark = ""
        if marked:
            mark = f"{output.shown(log.label):<{LABEL}} | ".replace("\n", " ")
            if colours:
                mark = f"\x1b[{COLOURS[log.component]}m{mark}\x1b[0m"
        _write("".join(f"{mark}{text_of(line, colours=colours)}\n" for line in lines))

    return show


def _write(text: str) -> None:
    """Print.

    Raises:
        ReaderGoneError: Nobody reads it any more.
        OutputLostError: Standard output takes it no more.
    """
    if not output.stream(text):
        raise ReaderGoneError


def _say_why_none(run: Run, wanted: Sequence[str]) -> None:
    from medarc_plugin import standing
    from medarc_plugin.logs import ending, waiting

    status = standing.look_at(run)
    whose = "" if len(wanted) > 1 else f" of {wanted[0]}"
    how = waiting(status) if status.state == standing.PENDING else ending(status)
    output.say(f"there is no log{whose} yet: {how}")
