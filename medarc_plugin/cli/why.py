"""The command that explains: `why`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from medarc_plugin.cli import output, reading

if TYPE_CHECKING:
    from medarc_plugin.why.answer import Answer

FORMAT = 1
"""Version of what `--json` prints."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("why")(why)


def why(
    named: reading.RunName = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document (docs/why.md).")] = False,
) -> None:
    """Say why a run waits, or why it failed, and what would help.

    Of a job that waits: SLURM's reason in plain words, who holds what it waits for, what would start sooner.
    Of one that failed: which component failed first, its error, the known cause and the setting to change.
    """
    from medarc_plugin import runs
    from medarc_plugin.why import explain

    answer = explain(runs.find(named))
    if as_json:
        output.document({"format": FORMAT, **answer.document()})
        return
    _print(answer)


def _print(answer: Answer) -> None:
    output.fact(answer.headline)
    for line in answer.lines:
        output.fact(f"  {line}")
    for hint in answer.hints:
        output.fact(f"hint: {hint}")
