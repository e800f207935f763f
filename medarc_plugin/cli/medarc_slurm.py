"""`medarc_slurm`: the same launches by their own name, and what goes with them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from medarc_plugin.signals import quiet

with quiet():
    from medarc_plugin.models import ENTRYPOINTS

if TYPE_CHECKING:
    from medarc_plugin.models import Entrypoint


def main() -> None:
    """The script `medarc_slurm`."""
    name, rest = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else (None, [])
    if name == "_complete":
        # At each press of the tab key, which is spared every other import.
        from medarc_plugin.cli import completing

        sys.exit(completing.main(rest))
    with quiet():
        from medarc_plugin.cli import output

    # A launch takes prime-rl's arguments too, which no parser but ours may touch. Everything else is
    # typer's, whose import a launch is spared.
    entrypoint = next((known for known in ENTRYPOINTS if known == name), None)
    if entrypoint is None:
        sys.exit(output.guarded(_others))
    sys.exit(output.guarded(lambda: launch(entrypoint, rest)))


def launch(entrypoint: Entrypoint, argv: list[str]) -> int:
    """`medarc_slurm rl|sft|inference CONFIG ...`, a run for each config.

    Returns:
        The exit code.
    """
    from medarc_plugin.cli import entrypoints

    usage = f"medarc_slurm {entrypoint} CONFIG... --output-dir DIR [OPTIONS] [OVERRIDES]"
    return entrypoints.run(entrypoint, argv, "slurm", usage, config_first=True)


def _others() -> int:
    from medarc_plugin.cli.app import run

    return run()
