"""Programs that come first on prime-rl's `PATH`, see to one thing, and become the real ones.

prime-rl starts trainer and router by their names, and has no setting for what is seen to here.
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

ROUTER = "vllm-router"
"""What stands before vLLM (prime_rl/entrypoints/inference.py)."""

GONE = 125
"""Exit code of a trainer for which the sign will not come."""

_HELD = f"""#!/bin/sh
# vLLM measures this GPU's free memory: the trainer may come when it has.
read -r sign || exit {GONE}
exec {{program}} "$@" </dev/null
"""

_PROMPT = """#!/bin/sh
# Unless told otherwise the router looks for vLLM every 30 s, and opens its own port when it has found it.
option=--worker-startup-check-interval
case " $* " in
    *" $option"*) ;;
    *) {program} --help </dev/null 2>/dev/null | grep -q -e "$option" && set -- "$@" "$option" 1 ;;
esac
# It tells in three lines where each request went, which would be most of vLLM's log.
export RUST_LOG="${{RUST_LOG-vllm_router_rs=info,vllm_router_rs::policies=warn}}"
exec {program} "$@"
"""


def held_trainer(variables: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Make the environment of a launcher whose trainer waits for a line on its standard input.

    prime-rl's launcher starts orchestrator, environments and trainer at once, and leaves its children its
    standard input as it got it. Nothing but the trainer is held back: the others import meanwhile, and wait
    for vLLM anyway. The end of the input is no sign: whoever was to give it is gone, or ends the run.

    Args:
        variables: prime-rl's environment.
        folder: Where to write the `torchrun` that waits; made when it is not there.

    Returns:
        The variables; unchanged where no `torchrun` is found, which the launcher says itself.

    Raises:
        OSError: It cannot be written.
    """
    return _with_first(variables, folder, STARTER, _HELD)


def prompt_router(variables: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Make an environment whose router finds vLLM within a second of its start, and says less.

    By itself it looks every half a minute, and logs where it sent each request. A router without the option
    of the former, or one that is given it already, is started without it; a `RUST_LOG` that is set stays.

    Args:
        variables: prime-rl's environment.
        folder: Where to write the `vllm-router` that adds the option; made when it is not there.

    Returns:
        The variables; unchanged where no `vllm-router` is found.

    Raises:
        OSError: It cannot be written.
    """
    return _with_first(variables, folder, ROUTER, _PROMPT)


def _with_first(variables: Mapping[str, str], folder: Path, name: str, script: str) -> dict[str, str]:
    """Write a script by a program's name into a folder, and put that first on `PATH`."""
    path = variables.get("PATH", os.defpath)
    program = shutil.which(name, path=path)
    if program is None:
        return dict(variables)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_bytes(os.fsencode(script.format(program=shlex.quote(program))))
    file.chmod(0o755)
    return {**variables, "PATH": f"{folder}{os.pathsep}{path}"}
