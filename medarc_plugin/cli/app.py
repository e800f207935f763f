"""The commands of `medarc_slurm` beside the launches."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medarc_plugin import __version__
from medarc_plugin.cli import again, entrypoints, output, reading, report, seeing, steering, why
from medarc_plugin.cli.completion import completion
from medarc_plugin.cli.doctor import doctor
from medarc_plugin.cli.init import init
from medarc_plugin.cli.listing import options
from medarc_plugin.models import ENTRYPOINTS, Entrypoint

if TYPE_CHECKING:
    from medarc_plugin.sandbox import Sandbox, SandboxStatus

PASS_THROUGH = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "help_option_names": [],
}

app = typer.Typer(
    name="medarc_slurm",
    help="Run prime-rl on SLURM nodes that are shared with others.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
sandbox_app = typer.Typer(
    help="A real one-machine SLURM in a folder, to try things out where there is no cluster.",
    no_args_is_help=True,
)
app.add_typer(sandbox_app, name="sandbox")

Directory = Annotated[Path, typer.Option("--dir", "-D", metavar="DIR", help="The sandbox's folder.")]
IN_HERE = Path(".slurm-sandbox")


def run() -> int:
    """Run the command line.

    Returns:
        The exit code.
    """
    try:
        code = app(standalone_mode=False)
    except typer.Exit as exit_:
        return exit_.exit_code
    except typer.Abort:
        return output.INTERRUPTED
    except Exception as error:
        # click's own errors know how to show themselves; anything else keeps its traceback.
        if not hasattr(error, "show"):
            raise
        error.show()
        return int(getattr(error, "exit_code", 2))
    return code if isinstance(code, int) else 0


def _show_version(wanted: bool) -> None:
    if wanted:
        output.fact(f"medarc_plugin {__version__}")
        raise typer.Exit


@app.callback()
def _everywhere(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    del version


def _listed(name: Entrypoint) -> None:
    """List a launch in the help; `medarc_slurm.main` takes it before typer is imported."""

    @app.command(name, context_settings=PASS_THROUGH, help=entrypoints.SUMMARY[name])
    def _launch(context: typer.Context) -> None:
        from medarc_plugin.cli.medarc_slurm import launch

        raise typer.Exit(launch(name, context.args))


for _name in ENTRYPOINTS:
    _listed(_name)


# The help lists them in this order: the way of a run, then what is around it.
for _commands in (seeing, reading, why, steering, again, report):
    _commands.register(app)


@app.command("export")
def export(
    named: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="A run directory or job id. Default: the project's newest run."),
    ] = None,
    step: Annotated[
        int | None, typer.Option(metavar="N", help="Step of the checkpoint. Default: the newest whole one.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write the weights anew.")] = False,
) -> None:
    """Write the weights of a run's checkpoint as Hugging Face safetensors, and print where.

    They go to RUN/weights/step_N, with config and tokenizer. Needs prime-rl, and no GPU.
    """
    from medarc_plugin import runs
    from medarc_plugin.export import export as write

    # A folder may also be a run that prime-rl itself launched.
    is_folder = named is not None and Path(named).is_dir()
    run_dir = Path(named) if named is not None and is_folder else runs.find(named).run_dir
    raise typer.Exit(write(run_dir, step, force=force))


app.command("options", context_settings={**PASS_THROUGH, "help_option_names": ["--help", "-h"]})(options)
app.command("init")(init)
app.command("doctor")(doctor)
app.command("completion")(completion)


@sandbox_app.command("up")
def sandbox_up(
    directory: Directory = IN_HERE,
    nodes: Annotated[int | None, typer.Option(help="Nodes. Default: 1.")] = None,
    cpus: Annotated[int | None, typer.Option(help="CPUs of each node. Default: 64.")] = None,
    gpus: Annotated[
        int | None,
        typer.Option(help="GPUs of each node. Default: the real ones, or 8 stand-ins."),
    ] = None,
    gpu_type: Annotated[str | None, typer.Option(help="Type of stand-in GPUs. Default: h100.")] = None,
) -> None:
    """Start the sandbox, or what of it is not running."""
    from medarc_plugin.sandbox import SandboxSpec

    spec = None
    if (nodes, cpus, gpus, gpu_type) != (None, None, None, None):
        default = SandboxSpec()
        spec = SandboxSpec(
            nodes=default.nodes if nodes is None else nodes,
            cpus=default.cpus if cpus is None else cpus,
            gpus=gpus,
            gpu_type=gpu_type,
        )
    sandbox = _sandbox(directory)
    status = sandbox.up(spec)
    _describe(status)
    output.say("use it with --sandbox, or in a shell:")
    _export(sandbox)
    # It was up, or `up` would have failed: something has ended since, or could not be asked.
    raise typer.Exit(0 if status.state == "up" else 1)


@sandbox_app.command("down")
def sandbox_down(directory: Directory = IN_HERE) -> None:
    """End its jobs, stop it, and remove the folder."""
    sandbox = _sandbox(directory)
    named = sandbox.environment().items() <= os.environ.items()
    sandbox.down()
    output.say(f"{directory} is gone")
    if named:
        output.say("this shell still names it to SLURM's commands: unset SLURM_CONF")


@sandbox_app.command("status")
def sandbox_status(
    directory: Directory = IN_HERE,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show what runs and what the nodes have. Exit code 1 when it is not up."""
    status = _sandbox(directory).status()
    if as_json:
        _print_as_json(status)
    else:
        _describe(status)
    raise typer.Exit(0 if status.state == "up" else 1)


def _print_as_json(status: SandboxStatus) -> None:
    from dataclasses import asdict

    known = asdict(status)
    del known["started"]  # of `up` alone
    output.document({"format": 1, **known}, indent=1)


@sandbox_app.command("env")
def sandbox_env(directory: Directory = IN_HERE) -> None:
    """Print the line that points a shell's SLURM commands at it: eval "$(... sandbox env)"."""
    sandbox = _sandbox(directory)
    _export(sandbox)
    if sandbox.status().state != "up":
        output.warn(f"{directory} is not up: `medarc_slurm sandbox up` starts it")


def _sandbox(directory: Path) -> Sandbox:
    from medarc_plugin.sandbox import Sandbox

    return Sandbox(directory.absolute())


def _export(sandbox: Sandbox) -> None:
    for name, value in sandbox.environment().items():
        output.fact(f"export {name}={shlex.quote(value)}")


def _describe(status: SandboxStatus) -> None:
    kind = "real" if status.real_gpus else "stand-in"
    output.say(f"sandbox {status.state}: {status.directory}")
    for daemon in status.daemons:
        state = f"pid {daemon.pid}" if daemon.alive else "not running"
        output.say(f"  {daemon.name:<14} {state}")
    for node in status.nodes:
        output.say(
            f"  {node.name:<14} {node.state}, {node.cpus} CPUs, {node.memory_mib // 1024} GiB, "
            f"{node.gres} ({kind} GPUs)"
        )
    if status.queue_length is not None:
        output.say(f"  {'queue':<14} {status.queue_length} job{'' if status.queue_length == 1 else 's'}")
