"""The scripts `rl`, `sft` and `inference`: ours with a backend, prime-rl's own without one."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from medarc_plugin.signals import quiet

with quiet():
    from medarc_plugin.cli import arguments, output
    from medarc_plugin.host.importhook import backend_in

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from medarc_plugin.launch import Prepared
    from medarc_plugin.models import Entrypoint, Request

SUMMARY = {
    "rl": "Train with reinforcement learning: trainer, orchestrator and vLLM in one job.",
    "sft": "Fine-tune on demonstrations, in one job.",
    "inference": "Serve a model with vLLM, in one job.",
}


def rl() -> NoReturn:
    """The script `rl`."""
    _run_script("rl")


def sft() -> NoReturn:
    """The script `sft`."""
    _run_script("sft")


def inference() -> NoReturn:
    """The script `inference`."""
    _run_script("inference")


def _run_script(entrypoint: Entrypoint) -> NoReturn:
    """Run one of the three commands and exit.

    In prime-rl's own environment this script stands where prime-rl's would. Without a backend it does what
    that one does, in this process and with nothing of ours around it, whatever PRIME_RL_DIR names.
    """
    if backend_in(sys.argv[1:], os.environ) is None and _in_prime_rls_environment():
        from importlib import import_module

        sys.exit(import_module(f"prime_rl.entrypoints.{entrypoint}").main())
    sys.exit(output.guarded(lambda: main(entrypoint, sys.argv[1:])))


def _in_prime_rls_environment() -> bool:
    from medarc_plugin.host import locate

    return locate.in_this_interpreter()


def main(entrypoint: Entrypoint, argv: Sequence[str]) -> int:
    """Run one of the three commands.

    Returns:
        The exit code; does not return when the command is prime-rl's own.
    """
    backend = backend_in(argv, os.environ)
    if backend is None:
        hand_over(entrypoint, argv)
    usage = f"{entrypoint} --backend {backend or 'NAME'} @ CONFIG --output-dir DIR [OPTIONS] [OVERRIDES]"
    return run(entrypoint, argv, backend, usage, config_first=False)


def run(entrypoint: Entrypoint, argv: Sequence[str], backend: str, usage: str, *, config_first: bool) -> int:
    """Launch through a backend, or show the help.

    Returns:
        The exit code.
    """
    if "--help" in arguments.parse(argv).switches:
        output.fact(arguments.help_text(usage, SUMMARY[entrypoint], config_first=config_first))
        return 0
    from dataclasses import replace

    requests = arguments.requests_from(entrypoint, argv, default_backend=backend, config_first=config_first)
    command = (Path(sys.argv[0]).name, *sys.argv[1:])
    requests = tuple(replace(request, command=command) for request in requests)
    if len(requests) == 1:
        return carry_out(requests[0])
    from medarc_plugin.cli import several

    return several.carry_out_all(requests)


def carry_out(request: Request, look: Callable[[Prepared], None] | None = None) -> int:
    """Prepare, show, and write or submit.

    Args:
        request: The launch.
        look: Called with what is prepared, before anything is written.

    Returns:
        0, or how a run in the foreground ended.
    """
    # Slow imports that the help does without.
    from medarc_plugin import launch
    from medarc_plugin.errors import ConfigRejectedError
    from medarc_plugin.slurm import gateway

    added = point_at_sandbox(request.sandbox) if request.sandbox is not None else {}
    warn_of_ignored_variables()
    starts = None if request.sandbox is None else partial(start_sandbox, request.sandbox)
    try:
        prepared = launch.prepare(request, ready=starts)
    except ConfigRejectedError:
        warn_of_near_misses(request.arguments)
        raise
    output.show_plan(prepared)
    if look is not None:
        look(prepared)
    if not prepared.plan.resolved.checked:
        # Nobody refuses a misspelt flag of ours when prime-rl is not there to say that it is not its own.
        warn_of_near_misses(request.arguments)
    if prepared.dry_run:
        kept = launch.write(prepared, output.say)
        if kept is not None:
            output.say(f"dry run: {kept}, so nothing is written; without --dry-run this is submitted")
            return 0
        doing = "starts" if request.backend == "local" else "submits"
        what = "rehearsal" if request.rehearse else "run"
        output.say(f"dry run: the files are written, nothing is started; this {doing} the {what}:")
        output.fact(gateway.shown_command(prepared.backend.command(prepared.plan), added=added))
        return 0
    secrets = launch.gather_secrets(prepared.plan)
    for name in prepared.plan.launch.passed:
        if name not in secrets:
            output.warn(f"{name} was not found here, so the job will not have it")
    submission = launch.submit(prepared, output.warn, secrets, output.say)
    if submission.exit_code is not None:
        return submission.exit_code
    output.show_submission(prepared.plan, submission)
    return follow(prepared.plan.run_dir) if request.follow else 0


def follow(run_dir: Path) -> int:
    """Show the logs of a run that was just submitted until it is over.

    Returns:
        Its exit code; 130 after Ctrl-C, which leaves it running.
    """
    from medarc_plugin import logs, runs, steering
    from medarc_plugin.cli import reading

    status = reading.follow_run(runs.open_run(run_dir), logs.COMPONENTS)
    return output.INTERRUPTED if status is None else steering.code_of(status)


def point_at_sandbox(directory: Path) -> Mapping[str, str]:
    """Point this process's SLURM commands at the private SLURM, whether or not it is up.

    Returns:
        The variables that do so.
    """
    from medarc_plugin.sandbox import Sandbox

    added = Sandbox(directory.absolute()).environment()
    os.environ.update(added)
    return added


def start_sandbox(directory: Path) -> None:
    """Start the private SLURM, or what of it is not running, and say so."""
    from medarc_plugin.sandbox import Sandbox

    if Sandbox(directory.absolute()).up().started:
        where = "" if directory.name == ".slurm-sandbox" else f" --dir {directory}"
        output.say(f"started a SLURM in {directory}; `medarc_slurm sandbox down{where}` ends it")


def hand_over(entrypoint: Entrypoint, argv: Sequence[str]) -> NoReturn:
    """Become prime-rl's own command: its interpreter, its environment, the arguments as typed.

    Raises:
        HostError: prime-rl is not there, or its interpreter cannot be run.
    """
    from medarc_plugin.errors import HostBrokenError, HostNotFoundError
    from medarc_plugin.host import locate, passthrough

    host = locate.locate(None)
    if host is None:
        raise HostNotFoundError(
            f"`{entrypoint}` without --backend is prime-rl's own command, and prime-rl was not found: "
            "looked at PRIME_RL_DIR, ./prime-rl and this Python environment",
            hint=f"add --backend slurm, or get prime-rl: {locate.GET_PRIME_RL}, and set PRIME_RL_DIR to it",
        )
    command, environment = passthrough.command(host, entrypoint, argv)
    sys.stdout.flush()
    try:
        os.execve(command[0], command, environment)  # noqa: S606 - the same process goes on as prime-rl
    except OSError as error:
        raise HostBrokenError(
            f"prime-rl's interpreter {command[0]} cannot be run: {error.strerror}",
            hint=f"`{locate.MEND}` in prime-rl's checkout repairs its environment",
        ) from None


def warn_of_near_misses(passed: Sequence[str]) -> None:
    """Name the flags that go to prime-rl and look like misspelt ones of ours."""
    import difflib

    ours = [*arguments.option_flags(), *arguments.VALUE_FLAGS, *arguments.SWITCHES]
    for token in passed:
        name = token.partition("=")[0]
        if name.startswith("--") and "." not in name:
            near = difflib.get_close_matches(name, ours, n=1, cutoff=0.8)
            if near:
                output.warn(f"{name} goes to prime-rl as an override of its config; did you mean {near[0]}?")


def warn_of_ignored_variables() -> None:
    """Name the variables of sbatch's that say what the run itself decides, and a cache that is nowhere."""
    from medarc_plugin.profiles import ignored_variables

    cache = os.path.expanduser(os.environ.get("MEDARC_CACHE_DIR") or "/")  # noqa: PTH111 - the other raises
    if not os.path.isabs(cache):  # noqa: PTH117 - may be no path at all
        output.warn(f"MEDARC_CACHE_DIR: {cache!r} is not an absolute path; ignored")
    ignored = ignored_variables(os.environ)
    if ignored:
        output.warn(f"{', '.join(ignored)}: set, but the run decides this; ignored")
