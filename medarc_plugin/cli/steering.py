"""The commands that steer runs: `cancel` and `wait`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from medarc_plugin.cli import output, reading, seeing
from medarc_plugin.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medarc_plugin.standing import RunStatus

LEFT = 1
"""Exit code of a `cancel` after which something still runs."""

PATIENCE = 120.0
"""Seconds that `cancel` waits: SLURM itself may take KillWait, and a node its epilog."""

Named = Annotated[
    list[str] | None,
    typer.Argument(metavar="RUN", help="Run directories or job ids. Default: the project's newest run."),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("cancel")(cancel)
    app.command("wait")(wait)


def cancel(
    named: Named = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    signal: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Send this signal to the run's owner instead, and do not wait."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="How long to wait for their end.")
    ] = PATIENCE,
    as_json: seeing.AsJson = False,
) -> None:
    """End runs, and wait until nothing of them runs any more.

    A job is ended only when it is surely the run's: ids are used again.

    Exit code 1: something still runs after --timeout.
    """
    from medarc_plugin import process, runs, standing, steering
    from medarc_plugin.cli import board
    from medarc_plugin.logs import who

    found = runs.find_all(named or [])
    if not yes:
        _ask(standing.look(found), signal)
    if signal is not None:
        sent = steering.send_signal(found, signal)
        _report([(status, f"{signal} is sent to {who(status)}", None) for status in sent], as_json=as_json)
        return
    try:
        ended = steering.cancel(found, timeout)
    except KeyboardInterrupt:
        names = [board.place(run.run_dir) for run in found]
        output.say(f"\ninterrupted; what has ended: {process.show(['medarc_slurm', 'status', *names])}")
        raise typer.Exit(output.INTERRUPTED) from None
    _report([(each.status, each.text, each.gone) for each in ended], as_json=as_json)
    raise typer.Exit(0 if all(each.gone for each in ended) else LEFT)


def wait(
    named: reading.RunName = None,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0, help="How long at most. Default: for ever.")
    ] = None,
    as_json: seeing.AsJson = False,
) -> None:
    """Wait for a run's end, across its requeues, and end with its exit code.

    124: --timeout is over. 125: nobody knows how it ended.
    """
    from medarc_plugin import runs, steering
    from medarc_plugin.logs import ending, going

    run = runs.find(named)
    status, code = steering.wait(run, timeout, output.say)
    if as_json:
        document = {"format": seeing.FORMAT, "run": status.document(), "code": code}
        output.document(document)
    elif code == steering.TIMED_OUT and not status.over:
        output.say(f"{going(status)}, after {timeout:g} s of waiting")
    else:
        output.fact(ending(status))
    raise typer.Exit(code)


def _ask(found: Sequence[RunStatus], signal: str | None) -> None:
    """Show what would be ended, and ask.

    Raises:
        UsageError: There is nobody to ask.
        typer.Exit: The answer is no.
    """
    from medarc_plugin.cli import board
    from medarc_plugin.logs import who

    going = [status for status in found if not status.over]
    if not going:
        return
    if not (sys.stdin and sys.stdin.isatty()):
        raise UsageError("there is no terminal to ask in", hint="add --yes")
    for status in going:
        output.say(f"{who(status)}, {board.line(status)}")
    what = f"send {signal} to" if signal else "end"
    which = "it" if len(going) == 1 else f"these {len(going)}"
    try:
        agreed = typer.confirm(f"{what} {which}?", err=True)
    except typer.Abort:
        output.say("\nnothing is done")
        raise typer.Exit(output.INTERRUPTED) from None
    if not agreed:
        output.say("nothing is done")
        raise typer.Exit(UsageError.exit_code)


def _report(told: Sequence[tuple[RunStatus, str, bool | None]], *, as_json: bool) -> None:
    from medarc_plugin.cli import board

    if not as_json:
        for status, text, _ in told:
            output.fact(f"{board.place(status.run.run_dir)}: {text}")
        return
    runs = [{**status.document(), "gone": gone, "message": text} for status, text, gone in told]
    output.document({"format": seeing.FORMAT, "runs": runs})
