"""`medarc_slurm report` and `plot`: a run's history as a page, a picture, or charts in the terminal."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from pathlib import Path  # noqa: TC003 - typer looks at it
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medarc_plugin.cli import output
from medarc_plugin.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from medarc_plugin.report.history import History, Series
    from medarc_plugin.report.pictures import Chart
    from medarc_plugin.runs import Run

RUN_HELP = "Run directory or job id. Default: the project's newest run."
WIDEST = 160
"""Columns that a plot takes at most."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("report")(report)
    app.command("plot")(plot)


def report(
    named: Annotated[str | None, typer.Argument(metavar="[RUN]", help=RUN_HELP)] = None,
    output_file: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to write the page. Default: RUN/configs/launch/report.html.",
        ),
    ] = None,
    png: Annotated[
        Path | None, typer.Option("--png", metavar="FILE", help="Write a picture of the curves too.")
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what a report knows as JSON, and write no page.")
    ] = False,
) -> None:
    """Write a run's report, one HTML file that needs nothing beside it, and print its path."""
    from medarc_plugin import runs
    from medarc_plugin.report import document, page

    if as_json and (output_file or png or open_page):
        raise UsageError("--json writes no page: it does not go with --output, --png or --open")
    if output_file is not None and png is not None and output_file.resolve() == png.resolve():
        raise UsageError(f"page and picture would both be {png}", hint="give --png another file")
    history = document.without_secrets(_read(runs.find(named)))
    if as_json:
        output.document(document.document(history), indent=None)
        return
    path = (output_file or page.default_path(history)).absolute()
    # What cannot be made is refused before anything is written.
    for place in filter(None, (path, png)):
        page.refuse_unwritable(place.absolute())
    made = page.page(history)
    svg = page.picture(history) if png is not None else None
    drawn = page.png(svg) if svg is not None else None
    page.write(path, made)
    output.fact(f"{'report':<7} {path}")
    if png is not None and drawn is None:
        output.say("there are no curves yet: no picture is written")
    elif png is not None and drawn is not None:
        page.write(png.absolute(), drawn)
        output.fact(f"{'png':<7} {png.absolute()}")
    if open_page:
        _open(path)


def _read(run: Run) -> History:
    from medarc_plugin.report import history

    found = history.read(run)
    for words in found.trouble:
        output.warn(words)
    return found


def _open(path: Path) -> None:
    import webbrowser

    # Without one of these there may still be a browser in the terminal, which shows no curves.
    seen = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
    try:
        opened = seen and webbrowser.open(path.as_uri())
    except (webbrowser.Error, OSError):
        opened = False
    if not opened:
        output.say("there is no browser here that could open it: copy the file to your own machine")


def plot(
    named: Annotated[str | None, typer.Argument(metavar="[RUN]", help=RUN_HELP)] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", metavar="KEY", help="Draw this figure of prime-rl's metrics instead; repeatable."
        ),
    ] = None,
    names: Annotated[
        bool, typer.Option("--list", help="List what --metric takes, and draw nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what would be drawn as JSON.")] = False,
) -> None:
    """Draw a run's reward and loss in the terminal."""
    from medarc_plugin import runs
    from medarc_plugin.report.charts import charts, metric_chart

    run = runs.find(named)
    if names:
        _list(run, as_json=as_json)
        return
    series: dict[str, Series]
    if metric:
        series = _metrics(run, metric)
        shown = [metric_chart(each) for each in series.values()]
    else:
        history = _read(run)
        series = {"reward": history.reward, "loss": history.loss}
        series |= {"validation_loss": history.validation_loss}
        series |= {f"eval/{name}": each for name, each in history.evals.items()}
        shown = [chart for chart in charts(history) if chart.name in {"reward", "loss"}]
    if as_json:
        output.document(_plotted(run, series), indent=None)
        return
    if not shown:
        output.say(f"{run.name} has made no step yet")
    for words in [note for chart in shown if chart.is_empty for note in chart.notes]:
        output.say(words)
    _print([chart for chart in shown if not chart.is_empty])


def _list(run: Run, *, as_json: bool) -> None:
    from medarc_plugin.report.document import FORMAT
    from medarc_plugin.report.history import metric_keys

    with _refusing():
        known = metric_keys(run)
    if as_json:
        output.document({"format": FORMAT, "run_dir": str(run.run_dir), "metrics": known}, indent=None)
    else:
        for name in known:
            output.fact(name)
        if not known:
            output.say(f"{run.name} has written no metrics yet")


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Say of metrics that cannot be read that this is so.

    Raises:
        UsageError: They cannot.
    """
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{error.filename} cannot be read: {error.strerror}",
            hint="`medarc_slurm report` and `plot` without --metric show what else is there",
        ) from None


def _metrics(run: Run, keys: list[str]) -> dict[str, Series]:
    """Read the figures that were asked for.

    Raises:
        UsageError: One is not there.
    """
    from difflib import get_close_matches

    from medarc_plugin.report.history import metric_keys, metrics_files, read_metrics

    with _refusing():
        found = read_metrics(run, keys)
    missing = [key for key, series in found.items() if not len(series) and not series.not_finite]
    if not missing:
        return found
    known = metric_keys(run)
    if not known:
        files = " and ".join(map(str, metrics_files(run)))
        raise UsageError(
            f"{run.run_dir} has no metrics" + (f" in {files} yet" if files else " file"),
            hint="`medarc_slurm plot` without --metric draws what its logs tell",
        )
    close = [name for key in missing for name in get_close_matches(key, known, n=5)]
    near = f"; near it: {', '.join(dict.fromkeys(close))}" if close else ""
    raise UsageError(
        f"no row of the metrics has a number for {', '.join(missing)}{near}",
        hint=f"`medarc_slurm plot {run.run_dir} --list` names all {len(known)}",
    )


def _plotted(run: Run, series: dict[str, Series]) -> dict[str, Any]:
    from medarc_plugin.report.document import FORMAT, series_document

    return {
        "format": FORMAT,
        "run_dir": str(run.run_dir),
        "name": run.name,
        "series": {name: series_document(each) for name, each in series.items() if len(each)},
    }


def _print(charts: list[Chart]) -> None:
    from medarc_plugin.report import terminal

    style = terminal.Style(
        width=min(WIDEST, shutil.get_terminal_size().columns),
        braille=_can_print(terminal.LETTERS),
        colour=sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb",
    )
    for number, chart in enumerate(charts):
        if number:
            output.fact("")
        for line in terminal.draw(chart, style):
            output.fact(line, coloured=True)


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
