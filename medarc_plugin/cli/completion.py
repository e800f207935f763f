"""`medarc_slurm completion`: prints the script that lets a shell complete."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from medarc_plugin.cli import completing, output
from medarc_plugin.errors import UsageError


def completion(
    shell: Annotated[
        str | None,
        typer.Argument(metavar="{bash,zsh,fish}", help="The shell. Default: the one that SHELL names."),
    ] = None,
    scripts: Annotated[
        bool,
        typer.Option("--scripts", help="For the scripts rl, sft and inference too, behind --backend."),
    ] = False,
) -> None:
    """Print a script that lets your shell complete commands, options and their values.

    In ~/.bashrc, or ~/.zshrc behind compinit: source <(medarc_slurm completion)
    In ~/.config/fish/config.fish: medarc_slurm completion | source
    """
    name = shell or Path(os.environ.get("SHELL") or "").name
    if name not in completing.SHELLS:
        said = (
            f"{shell!r} is none of them" if shell else f"SHELL names none of them ({name or 'it is not set'})"
        )
        raise UsageError(f"which shell? {said}", hint=f"name one: {', '.join(completing.SHELLS)}")
    names = (completing.OURS, *(completing.LAUNCHES if scripts else ()))
    output.fact(completing.script(name, _own_path(), names).rstrip("\n"))


def _own_path() -> str:
    """Where this program is, for the commands that are not called like it."""
    typed = shutil.which(sys.argv[0]) or sys.argv[0]
    return str(Path(typed).absolute())
