"""`medarc_slurm options`: every option with its value, and where the value comes from."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medarc_plugin.cli import arguments, entrypoints, output

if TYPE_CHECKING:
    from medarc_plugin.profiles import Settled

FORMAT = 1


def options(
    context: typer.Context,
    profile: Annotated[
        str | None,
        typer.Option("--profile", metavar="NAME", help="Section of medarc.toml to take options from too."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List every option with its value and where the value comes from.

    Takes every option that a launch takes, `CONFIG --partition gpu`, and shows what would hold there.
    """
    from medarc_plugin import launch

    parsed = arguments.parse(context.args)
    given = [part for path in parsed.positional for part in ("@", path)] + parsed.passed
    entrypoints.warn_of_near_misses(parsed.passed)
    settled = launch.with_host(launch.settle_values(tuple(given), parsed.options, profile=profile))
    if as_json:
        output.document(document(settled), indent=1)
    elif sys.stdout.isatty():
        _print_table(settled)
    else:
        _print_lines(settled)


def document(settled: Settled) -> dict[str, Any]:
    """Put options into a document.

    Args:
        settled: The options and where they came from.
    """
    from medarc_plugin.options import SlurmOptions, flag, knobs

    fields = SlurmOptions.model_fields
    return {
        "format": FORMAT,
        "options": [
            {
                "name": name,
                "option": flag(name),
                "value": _plain(getattr(settled.options, name)),
                "source": source,
                "default": _plain(fields[name].default),
                "group": knobs()[name].group,
                "help": " ".join((fields[name].description or "").split()),
            }
            for name, source in settled.sources.items()
        ],
    }


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def _print_table(settled: Settled) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from medarc_plugin import profiles

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("option", "value", "source"):
        table.add_column(heading, overflow="fold")
    for option, value, source in _rows(settled):
        # As text: rich would read `[slurm]` and `node[1-4]` as markup.
        style = None if source != profiles.BUILT_IN else "dim"
        table.add_row(option, Text(value), Text(source), style=style)
    # rich itself would leave bold and dim in place.
    Console(color_system=None if os.environ.get("NO_COLOR") else "auto").print(table)


def _print_lines(settled: Settled) -> None:
    """Print a line for each, whole: whoever reads a pipe has no width."""
    rows = [("option", "value", "source"), *_rows(settled)]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for option, value, source in rows:
        output.fact(f"{option.ljust(widths[0])}  {value.ljust(widths[1])}  {source}")


def _rows(settled: Settled) -> list[tuple[str, str, str]]:
    from medarc_plugin.options import flag

    return [
        (flag(name), _shown(getattr(settled.options, name)), source)
        for name, source in settled.sources.items()
    ]


def _shown(value: object) -> str:
    if value is None or value == ():
        return "-"
    if isinstance(value, bool):
        return "on" if value else "off"
    text = " ".join(map(shlex.quote, value)) if isinstance(value, tuple) else str(value)
    return text.replace("\n", "\\n")
