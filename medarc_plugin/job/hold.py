"""Holding prime-rl's trainer back, and nothing else, until it may come to the GPU that vLLM measures.

prime-rl's launcher starts orchestrator, environments and trainer at once, each by its name, the trainer by
`torchrun`. A `torchrun` that comes first on its `PATH` waits for a line on standard input, which the launcher
leaves its children as it got it, and becomes the real one. The others import meanwhile, and wait for vLLM
anyway.
"""

from __future__ import annotations

import os
import shlex
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

STARTER = "torchrun"
"""What prime-rl's launcher starts the trainer with (prime_rl/entrypoints/rl.py)."""

GONE = 125
"""Its exit code when the sign will not come."""

_SCRIPT = """#!/bin/sh
# vLLM measures this GPU's free memory: the trainer may come when it has.
read -r sign || exit {gone}
exec {program} "$@" </dev/null
"""


def held_trainer(variables: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Make the environment of a launcher whose trainer waits for a line on its standard input.

    The end of the input is no sign: whoever was to give it is gone, or ends the run.

    Args:
        variables: prime-rl's environment.
        folder: Where to write the `torchrun` that waits; made when it is not there.

    Returns:
        The variables; unchanged where no `torchrun` is found, which the launcher says itself.

    Raises:
        OSError: It cannot be written.
    """
    path = variables.get("PATH", os.defpath)
    program = shutil.which(STARTER, path=path)
    if program is None:
        return dict(variables)
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / STARTER
    script.write_text(_SCRIPT.format(program=shlex.quote(program), gone=GONE), encoding="utf-8")
    script.chmod(0o755)
    return {**variables, "PATH": f"{folder}{os.pathsep}{path}"}
