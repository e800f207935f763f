"""`medarc_slurm doctor`: a line for each thing that a run needs, with the way out where it is missing."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections import Counter
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medarc_plugin.cli import output

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from medarc_plugin.doctor import Check, Examined

FORMAT = 1

FAILED_CODE = 1
"""Exit code when something failed."""

COLOURS = {"ok": "32", "warning": "33", "failed": "31", "skipped": "2"}

STATUS, NAME = 9, 18
"""Columns of a line's first two parts."""


def doctor(
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="CONFIG", help="Look for the environments that this config names."),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option("--profile", metavar="NAME", help="Section of medarc.toml to take options from."),
    ] = None,
    prime_rl_dir: Annotated[
        Path | None, typer.Option("--prime-rl-dir", metavar="DIR", help="prime-rl's checkout with its .venv.")
    ] = None,
    deep: Annotated[
        bool,
        typer.Option(
            "--deep", help="Take nothing from caches, and import torch and vLLM too: up to minutes."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Look at the whole chain: this machine, settings, the cluster, prime-rl.

    Exit code 1 when something failed.
    """
    from medarc_plugin.doctor import FAILED, Subject, examine
    from medarc_plugin.errors import UsageError

    if config is not None and not config.is_file():
        raise UsageError(f"--config {config}: there is no such file")
    shows = not as_json and sys.stdout.isatty()
    examined = examine(
        Subject(profile, prime_rl_dir, config, deep=deep), waiting=_show_waiting if shows else None
    )
    counts = _print_json(examined) if as_json else _print_lines(examined)
    if counts[FAILED]:
        raise typer.Exit(FAILED_CODE)


def _print_json(examined: Iterable[Examined]) -> Counter[str]:
    rows = [row for one in examined for row in _rows(one)]
    counts = Counter(row["status"] for row in rows)
    document = {
        "format": FORMAT,
        "ok": not counts["failed"],
        "counts": {status: counts[status] for status in COLOURS},
        "checks": rows,
    }
    output.document(document, indent=1)
    return counts


def _rows(one: Examined) -> Iterator[dict[str, Any]]:
    for finding in one.findings:
        yield {
            "group": one.check.group,
            "check": one.check.name,
            "status": finding.status,
            "text": finding.text,
            "hint": finding.hint or None,
            "seconds": round(one.seconds, 3),
        }


def _show_waiting(check: Check) -> None:
    """Say in the line that will hold it which check is waited for."""
    sys.stdout.write(f"  {'...'.ljust(STATUS)}{check.name}\r")
    sys.stdout.flush()


def _print_lines(examined: Iterable[Examined]) -> Counter[str]:
    counts: Counter[str] = Counter()
    group = None
    for one in examined:
        if one.check.group != group:
            if group is not None:
                output.fact("")
            group = one.check.group
            output.fact(output.painted(group, "1", sys.stdout), coloured=True)
        for finding in one.findings:
            counts[finding.status] += 1
            head = output.painted(finding.status.ljust(STATUS), COLOURS[finding.status], sys.stdout)
            lines = _folded(finding.text)
            output.fact(f"  {head}{one.check.name.ljust(NAME)}{lines[0]}".rstrip(), coloured=True)
            for line in lines[1:]:
                output.fact(" " * (2 + STATUS + NAME) + line)
            if finding.hint:
                first, *more = _folded(f"hint: {finding.hint}")
                head = output.painted("hint:", "36", sys.stdout)
                output.fact(" " * (2 + STATUS + NAME) + first.replace("hint:", head, 1), coloured=True)
                for line in more:
                    output.fact(" " * (2 + STATUS + NAME) + line)
    output.say(", ".join(f"{counts[status]} {status}" for status in COLOURS if counts[status]))
    return counts


def _folded(text: str) -> list[str]:
    """Fold a text to a terminal's width; whoever reads a pipe gets the lines whole."""
    lines = text.splitlines() or [""]
    if not sys.stdout.isatty():
        return lines
    width = max(30, shutil.get_terminal_size().columns - 2 - STATUS - NAME)
    return [part for line in lines for part in textwrap.wrap(line, width, break_on_hyphens=False) or [""]]
