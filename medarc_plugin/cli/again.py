"""The commands that take up what was recorded of a run: `resume`, `rerun` and `diff`."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from medarc_plugin.cli import arguments, entrypoints, output, seeing
from medarc_plugin.errors import RunDirectoryError, UsageError
from medarc_plugin.models import ENTRYPOINTS, GpuRequest, Request

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from medarc_plugin.difference import Difference
    from medarc_plugin.launch import Prepared
    from medarc_plugin.models import Entrypoint
    from medarc_plugin.runs import Run

PASS_THROUGH = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "help_option_names": ["--help", "-h"],
}

DIFFERENT = 1
"""Exit code of `diff` for runs that differ."""

FROM_ELSEWHERE = "--resume.dir"
"""prime-rl's flag for a checkpoint of another run: where such a run begins is part of what it is."""

OF_ONE_SUBMISSION = frozenset({"dependency", "begin"})
"""Options that say when one job was to start: SLURM refuses to wait for a job that it has forgotten."""

FROM_STEP = "--resume.step"
"""prime-rl's flag for an earlier checkpoint."""

MOST_NAMED = 5
"""Paths of a config that a warning names."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    usage = "[OPTIONS] [OVERRIDES]"
    resumed, rerun_ = f"[RUN] {usage}", f"[RUN] --output-dir DIR {usage}"
    app.command("resume", context_settings=PASS_THROUGH, options_metavar=resumed)(resume)
    app.command("rerun", context_settings=PASS_THROUGH, options_metavar=rerun_)(rerun)
    app.command("diff")(diff)


def resume(context: typer.Context) -> None:
    """Submit a run again, to go on from its newest checkpoint.

    The recorded command, where it was typed, with --resume and what is given.

    Refused while its job is queued or runs.
    """
    from medarc_plugin.runs import read_table

    run, extra, here = _taken_apart(context.args)
    if extra.run_dir is not None:
        raise UsageError(
            "resume goes on in the run's own directory, and takes no --output-dir",
            hint="rerun RUN --output-dir DIR begins the same run elsewhere",
        )
    if extra.clean:
        raise UsageError("resume and --clean contradict each other: one deletes what the other goes on with")
    _refuse_while_it_lives(run)
    old = recorded(run)
    request = again(replace(old, arguments=tuple(_without_resume(old.arguments))), extra, here)
    goes_on = () if extra.resume else (arguments.PASSED_ON,)
    request = replace(request, run_dir=run.run_dir, resume=True, arguments=(*request.arguments, *goes_on))
    request = _with_its_command(request, here)
    # Read now: the launch writes another one over it.
    before = read_table(run.files.resolved)

    def look(prepared: Prepared) -> None:
        _say_changes(run, before, prepared)
        if not any(word.partition("=")[0] == FROM_STEP for word in extra.arguments):
            _refuse_what_is_complete(run, prepared)

    raise typer.Exit(entrypoints.carry_out(request, look))


def rerun(context: typer.Context) -> None:
    """Submit a run's command again, in another directory.

    Relative paths in it mean what they meant; what is given comes after it.
    """
    from medarc_plugin import project

    run, extra, here = _taken_apart(context.args)
    if extra.run_dir is None:
        raise UsageError("rerun wants a directory of its own", hint="rerun RUN --output-dir DIR")
    if extra.run_dir == run.run_dir:
        raise UsageError(
            f"{run.run_dir} is the directory of the run itself",
            hint="resume goes on there; rerun wants another --output-dir",
        )
    old = recorded(run)
    if not any(word.partition("=")[0] == FROM_ELSEWHERE for word in old.arguments):
        old = replace(old, arguments=tuple(_without_resume(old.arguments)), resume=False)
    if project.root(here) != project.root():
        output.say(f"project     {project.root()}, the one of {run.run_dir}")
    request = replace(again(old, extra, here), run_dir=extra.run_dir, resume=old.resume or extra.resume)
    raise typer.Exit(entrypoints.carry_out(_with_its_command(request, here)))


def diff(
    left: Annotated[str, typer.Argument(metavar="RUN", help="A run directory or job id.")],
    right: Annotated[str, typer.Argument(metavar="RUN", help="Another one.")],
    as_json: seeing.AsJson = False,
) -> None:
    """Show what two runs have not in common: config, options, versions and commits.

    Exit code 0 when they are the same, 1 when they differ.
    """
    from medarc_plugin import runs
    from medarc_plugin.difference import compare

    pair = runs.find(left), runs.find(right)
    for text in (text for run in pair for text in run.trouble):
        output.warn(text)
    found = compare(*pair)
    if as_json:
        document = {
            "format": seeing.FORMAT,
            "runs": [str(run.run_dir) for run in pair],
            "same": not found,
            "differences": [difference.document() for difference in found],
        }
        output.document(document)
    elif found:
        _print(pair, found)
    else:
        output.say("they are the same, but for their names and directories")
    raise typer.Exit(DIFFERENT if found else 0)


def recorded(run: Run) -> Request:
    """Read the command of a run as it was typed, and go to where it was.

    Raises:
        RunDirectoryError: There is no record of it that can be used.
    """
    from medarc_plugin.runs import read_table

    trouble: list[str] = []
    provenance = read_table(run.files.provenance, trouble)
    command, folder = provenance.get("command"), provenance.get("working_directory")
    if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
        said = trouble[0] if trouble else f"{run.files.provenance} has none"
        raise RunDirectoryError(f"how {run.run_dir} was launched is not recorded: {said}", hint=_by_hand(run))
    if not isinstance(folder, str) or not os.path.isdir(folder):  # noqa: PTH112 - as in runs.find
        raise RunDirectoryError(
            f"{run.run_dir} was launched in {folder}, which is not there any more", hint=_by_hand(run)
        )
    try:
        os.chdir(folder)
    except OSError as error:
        raise RunDirectoryError(
            f"{run.run_dir} was launched in {folder}, which cannot be entered: {error.strerror}",
            hint=_by_hand(run),
        ) from None
    program, words = Path(command[0]).name, command[1:]
    config_first = program not in ENTRYPOINTS
    entrypoint: Any = words.pop(0) if config_first and words else program
    if entrypoint not in ENTRYPOINTS:
        raise RunDirectoryError(
            f"the recorded command of {run.run_dir} is no launch: {' '.join(command)}", hint=_by_hand(run)
        )
    backend = run.plan.get("backend")
    default = backend if isinstance(backend, str) and backend else "slurm"
    requests = arguments.requests_from(entrypoint, words, default_backend=default, config_first=config_first)
    own = [request for request in requests if request.run_dir == run.run_dir]
    if len(requests) > 1 and not own:
        raise RunDirectoryError(
            f"{run.run_dir} is none of the runs of its recorded command: {' '.join(command)}",
            hint=_by_hand(run),
        )
    return (own or list(requests))[0]


def again(old: Request, extra: Request, here: Path) -> Request:
    """Put together a recorded command and what is added to it.

    What the recorded one said of deleting, rehearsing and trying out is not part of the run, and neither is
    when its job was to start.

    Args:
        old: The recorded command.
        extra: What was typed now; wins.
        here: Where it was typed: its own paths are relative to that.
    """
    options = {name: value for name, value in old.options.items() if name not in OF_ONE_SUBMISSION}
    for name, value in extra.options.items():
        value = _from(here, value) if _is_path(name) else value  # noqa: PLW2901 - the same, made absolute
        options[name] = (*_kept(name, options, value), *value) if isinstance(value, tuple) else value
    gpus = {each.name: getattr(extra.gpus, each.name) for each in fields(GpuRequest)}
    sandbox = extra.sandbox if extra.sandbox is None else here / extra.sandbox
    return replace(
        extra,
        entrypoint=old.entrypoint,
        backend=extra.backend or old.backend,
        arguments=(*old.arguments, *_files_from(here, extra.arguments)),
        options=options,
        gpus=replace(old.gpus, **{name: count for name, count in gpus.items() if count is not None}),
        check=old.check and extra.check,
        cache=old.cache and extra.cache,
        profile=extra.profile or old.profile,
        sandbox=sandbox if sandbox is not None else old.sandbox,
    )


def command_of(request: Request) -> tuple[str, ...]:
    """Write a request as the one command that means it, for the record."""
    from medarc_plugin.options import flag

    words = [request.entrypoint, "--backend", request.backend]
    if request.run_dir is not None:
        words += ["--output-dir", str(request.run_dir)]
    for name, count in zip(("--gpus", "--train-gpus", "--infer-gpus"), _counts(request.gpus), strict=True):
        words += [] if count is None else [name, str(count)]
    for name, value in request.options.items():
        if isinstance(value, bool):
            words.append(flag(name) if value else f"--no-{flag(name)[2:]}")
        else:
            for each in value if isinstance(value, tuple) else (value,):
                words += [flag(name), str(each)]
    switches = {
        "--clean": request.clean,
        "--dry-run": request.dry_run,
        "--rehearse": request.rehearse,
        "--no-check": not request.check,
        "--no-cache": not request.cache,
    }
    words += [name for name, on in switches.items() if on]
    if request.profile is not None:
        words += ["--profile", request.profile]
    if request.sandbox is not None:
        words.append(f"--sandbox={request.sandbox}")
    return (*words, "--", *request.arguments)


def _with_its_command(request: Request, here: Path) -> Request:
    """Give a request what is recorded of it: the one command that means it, and what was typed."""
    typed = (Path(sys.argv[0]).name, *sys.argv[1:])
    return replace(request, command=command_of(request), typed=typed, typed_in=here)


def _counts(gpus: GpuRequest) -> tuple[int | None, int | None, int | None]:
    return gpus.gpus, gpus.train, gpus.infer


def _taken_apart(words: Sequence[str]) -> tuple[Run, Request, Path]:
    """Find the run, and read what is added to its command, before the folder is another one."""
    from medarc_plugin import runs

    named, rest = (words[0], words[1:]) if words and not words[0].startswith(("-", "@")) else (None, words)
    run = runs.find(named)
    entrypoint: Entrypoint = next(name for name in ENTRYPOINTS if name == run.entrypoint)
    (extra,) = arguments.requests_from(entrypoint, rest, default_backend="", config_first=False)
    return run, extra, Path.cwd()


def _refuse_while_it_lives(run: Run) -> None:
    from medarc_plugin import standing

    status = standing.look_at(run)
    if status.alive:
        raise RunDirectoryError(
            f"{run.run_dir} belongs to job {status.job_id} ({status.state})",
            hint=f"wait for it, or end it with `medarc_slurm cancel {status.job_id or run.run_dir}`",
        )


def _refuse_what_is_complete(run: Run, prepared: Prepared) -> None:
    """Submit no job that would find all steps made."""
    from medarc_plugin import records

    told, most = records.read(run), prepared.plan.resolved.max_steps
    newest, step = told.newest(run.token), records.whole(told.state.get("step"))
    if newest is None or newest.reason != "finished" or step is None or most is None or step < most:
        return
    raise RunDirectoryError(
        f"{run.run_dir} is finished: it has made {step} of {most} steps, and there is nothing to go on with",
        hint=f"--max-steps N, more than {step}, makes it longer; rerun RUN --output-dir DIR begins it anew",
    )


def _say_changes(run: Run, before: Mapping[str, Any], prepared: Prepared) -> None:
    """Say what of the config is another now: files may have been edited since."""
    from medarc_plugin.difference import compare_tables

    planned = run.plan.get("fields")
    resuming = planned.get("resume") if isinstance(planned, dict) else None
    paths = resuming.get("paths") if isinstance(resuming, dict) else None
    own = tuple(map(str, paths)) if isinstance(paths, list) else ()
    found = compare_tables("config", before, prepared.plan.resolved.document) if before else []
    changed = [each for each in found if not each.path.startswith(own)]
    for each in changed[:MOST_NAMED]:
        output.say(f"config      {each.path} was {_value(each.left)}, and is {_value(each.right)} now")
    if len(changed) > MOST_NAMED:
        output.say(f"            and {len(changed) - MOST_NAMED} more fields are not what they were")


def _by_hand(run: Run) -> str:
    return f"launch it with the command that you know, and --resume; or by hand: sbatch {run.files.script}"


def _without_resume(words: Sequence[str]) -> Iterator[str]:
    """Leave out what a command says of resuming: where it began says nothing of another time."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, _ = word.partition("=")
        if word == "@" and rest:
            yield word
            yield rest.pop(0)
        elif name in {arguments.PASSED_ON, f"--no-{arguments.PASSED_ON[2:]}"}:
            if not equals and rest and rest[0].lower() in {"true", "false"}:
                rest.pop(0)
        elif name.startswith(f"{arguments.PASSED_ON}."):
            if not equals and rest:
                rest.pop(0)
        else:
            yield word


def _files_from(here: Path, words: Sequence[str]) -> Iterator[str]:
    """Make the config files among arguments absolute."""
    for before, word in zip(("", *words), words, strict=False):
        yield str(here / word) if before == "@" else word


def _from(here: Path, value: Any) -> Any:  # noqa: ANN401 - as options are typed
    return str(here / Path(value).expanduser()) if isinstance(value, str) and value else value


def _kept(name: str, options: Mapping[str, Any], typed: tuple[str, ...]) -> tuple[str, ...]:
    """What stays of a recorded list; a variable has one value, or is passed on."""
    recorded_: tuple[str, ...] = options.get(name, ())
    if name != "env":
        return recorded_
    named = {each.partition("=")[0] for each in typed}
    return tuple(each for each in recorded_ if each.partition("=")[0] not in named)


def _is_path(name: str) -> bool:
    """Whether an option's value is a path."""
    from medarc_plugin.options import SlurmOptions

    def holds(annotation: object) -> bool:
        return annotation is Path or any(map(holds, get_args(annotation)))

    return holds(SlurmOptions.model_fields[name].annotation)


def _print(pair: tuple[Run, Run], found: Sequence[Difference]) -> None:
    from rich.table import Table
    from rich.text import Text

    from medarc_plugin.cli import board

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("", "", *(board.place(run.run_dir) for run in pair)):
        table.add_column(output.shown(heading), overflow="fold")
    section = None
    for difference in found:
        shown = difference.section if difference.section != section else ""
        section = difference.section
        sides = (Text(output.shown(_value(side))) for side in (difference.left, difference.right))
        table.add_row(Text(shown, style="bold"), output.shown(difference.path), *sides)
    board.show(table, board.console())


def _value(side: tuple[Any, ...]) -> str:
    if not side:
        return "-"
    return side[0] if isinstance(side[0], str) else json.dumps(side[0], ensure_ascii=False)
