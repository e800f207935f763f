"""The commands that look at runs: `status` and `list`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medarc_plugin.cli import output
from medarc_plugin.errors import MedarcError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from medarc_plugin.runs import Run
    from medarc_plugin.standing import RunStatus

FORMAT = 1
"""Version of what `--json` prints."""

LOOK_SECONDS = 1.0
"""Between two looks of a watcher at a run's files, and more and more while nothing changes."""

MOST_LOOK_SECONDS = 10.0

RunNames = Annotated[
    list[str] | None,
    typer.Argument(metavar="RUN", help="Run directories or job ids. Default: the project's newest run."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document (docs/runs.md).")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("status")(status)
    app.command("list")(list_)


def status(
    named: RunNames = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Look again and again, until all of them have ended.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say how runs stand: state, progress, node, GPU hours.

    One question to SLURM, whatever the number of runs; where it does not answer, the runs' records do.
    """
    if watch and as_json:
        raise UsageError("--watch and --json contradict each other: JSON is one document")
    found, errors = find(named or [])
    if watch:
        _watch(found)
    elif as_json:
        from medarc_plugin import standing

        print_json(standing.look(found))
    else:
        from medarc_plugin import standing

        _print(standing.look(found))
    for error in errors:
        output.error(error.message, error.hint)
    raise typer.Exit(errors[0].exit_code if errors else 0)


def list_(
    mine: Annotated[bool, typer.Option("--mine", help="All of your runs, of whatever project.")] = False,
    most: Annotated[
        int, typer.Option("--last", "-n", metavar="N", min=0, help="The newest N alone; 0 for all.")
    ] = 50,
    as_json: AsJson = False,
) -> None:
    """List the runs that were submitted from this project, the newest first."""
    from medarc_plugin import project, runs, standing

    entries = runs.of_user() if mine else runs.of_project()
    shown = entries[: most or None]
    found = standing.look(standing.of_entries(shown))
    if as_json:
        print_json(found)
        return
    if not entries:
        output.say("no run was submitted yet" if mine else f"no run was submitted from {project.root()} yet")
        return
    _print(found, always_table=True)
    if len(entries) > len(shown):
        output.say(f"{len(entries) - len(shown)} older ones are not shown: --last 0 lists all")


def find(named: Sequence[str]) -> tuple[list[Run], list[MedarcError]]:
    """Find runs, and say of which names there is none.

    Raises:
        MedarcError: There is none at all.
    """
    from medarc_plugin import runs

    if not named:
        return [runs.find()], []
    found: dict[Any, Run] = {}
    errors: list[MedarcError] = []
    for name in named:
        try:
            run = runs.find(name)
        except MedarcError as error:
            errors.append(error)
        else:
            found.setdefault(run.run_dir, run)
    if not found:
        raise errors[0]
    return list(found.values()), errors


def print_json(found: Sequence[RunStatus]) -> None:
    """Print how runs stand as a JSON document."""
    document = {"format": FORMAT, "runs": [each.document() for each in found]}
    output.document(document)


def _print(found: Sequence[RunStatus], *, always_table: bool = False) -> None:
    from medarc_plugin.cli import board

    console = board.console()
    board.show(_shown(found, console.width, always_table=always_table), console)


def _shown(found: Sequence[RunStatus], width: int, *, always_table: bool = False) -> RenderableType:
    from medarc_plugin.cli import board

    if len(found) == 1 and not always_table:
        return board.block(found[0], width)
    return board.table(found, width)


def _watch(found: Sequence[Run]) -> None:
    from medarc_plugin.cli import board
    from medarc_plugin.watching import Pace, Watcher

    watcher, pace = Watcher(found), Pace(LOOK_SECONDS, MOST_LOOK_SECONDS)
    if not sys.stdout.isatty():
        said: dict[int, str] = {}
        while True:
            seen = watcher.look()
            for place, each in enumerate(seen):
                text = board.line(each)
                if said.get(place) != text:
                    said[place] = text
                    output.fact(text)
            if all(each.over for each in seen):
                return
            time.sleep(pace.after(tuple(said.values())))
    from rich.live import Live

    console = board.console()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            seen = watcher.look()
            live.update(_shown(seen, console.width), refresh=True)
            if all(each.over for each in seen):
                return
            time.sleep(pace.after([board.line(each) for each in seen]))
