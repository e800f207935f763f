"""prime-rl's environment: what the job was given, with what prime-rl must find changed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .launch import Launch

MEND = "uv sync --all-extras --all-packages --inexact"
"""What puts prime-rl's environment right, in its checkout, and keeps what else is installed there."""


def prime_rl_environment(
    launch: Launch, given: Mapping[str, str], gpus: Sequence[int] | None, run_id: str
) -> dict[str, str]:
    """Make prime-rl's environment.

    Args:
        launch: The plan.
        given: The environment as the job found it.
        gpus: Ids of the allocated GPUs; `None` when they are not known.
        run_id: The name of this run for prime-rl and Weights & Biases, the same in every attempt.
    """
    variables = dict(given)
    # It would send prime-rl's interpreter to another one's standard library.
    variables.pop("PYTHONHOME", None)
    variables.setdefault("PYTHONUNBUFFERED", "1")
    # It would send the `inference` that prime-rl starts by name to a backend once more.
    variables.pop("MEDARC_BACKEND", None)
    for name, value in launch.fields.run_id.items():
        variables.setdefault(name, value.format(run_id))
    # setproctitle would otherwise write titles over the environment, by which the guardian knows the
    # run's processes (https://github.com/dvarrazzo/py-setproctitle#environment-variables).
    variables["SPT_NOENV"] = "1"
    if gpus is not None:
        # As prime-rl reads them: first those of inference, then the trainer's.
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpus))
    if launch.python is not None:
        # prime-rl starts `inference`, `orchestrator`, `env-server` and `torchrun` by name.
        binaries = launch.python.parent
        paths = variables.get("PATH", os.defpath).split(os.pathsep)
        kept = [path for path in paths if path and path != str(binaries)]
        variables["PATH"] = os.pathsep.join([str(binaries), *kept])
        # The submitter's own is another environment; prime-rl must not take it for its own.
        variables.pop("VIRTUAL_ENV", None)
        if (binaries.parent / "pyvenv.cfg").is_file():
            variables["VIRTUAL_ENV"] = str(binaries.parent)
    return variables


def inference_environment(config: Mapping[str, Any], variables: Mapping[str, str]) -> dict[str, str]:
    """Make the environment of an inference server that is started by itself.

    prime-rl's launcher gives it the run's `env_vars`; what is the server's own it takes from its config.

    Args:
        config: The resolved config of the run.
        variables: prime-rl's environment.
    """
    shared = config.get("env_vars")
    return {**variables, **{name: str(value) for name, value in (shared or {}).items()}}


def is_folder(path: Path) -> bool:
    """Whether the path is a folder that this user can reach."""
    try:
        return path.is_dir()
    except OSError:
        return False


def is_executable(path: Path) -> bool:
    """Whether the path is a file that this user may run."""
    try:
        return path.is_file() and os.access(path, os.X_OK)
    except OSError:
        # A folder on the way that this user may not search.
        return False
