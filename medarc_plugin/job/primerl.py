"""Asking prime-rl's own interpreter what it can import, without importing any of it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .child import ask

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from .launch import Launch

# An environment on a network file system that is cold takes tens of seconds to start from.
SECONDS = 120.0
SECONDS_VARIABLE = "MEDARC_PROBE_SECONDS"

LAST_LINES = 5

# A module is looked for part by part: importing `verifiers.v1` to look inside costs seconds. An
# environment may be one that ships with verifiers.
QUESTION = r"""
import json, sys
from importlib.util import module_from_spec

def spec_of(name, path):
    for finder in sys.meta_path:
        spec = finder.find_spec(name, path)
        if spec is not None:
            return spec

def found(name):
    parts = name.split(".")
    path = None
    for count in range(1, len(parts) + 1):
        part = ".".join(parts[:count])
        spec = spec_of(part, path)
        if spec is None:
            return False
        if count < len(parts):
            # A package with its path and without its code: namespace packages ask their parent.
            sys.modules[part] = module_from_spec(spec)
            path = getattr(sys.modules[part], "__path__", [])
    return True

asked = json.loads(sys.argv[1])
print("\n" + json.dumps({
    "version": sys.version.split()[0],
    "module": found(asked["module"]),
    "environments": {
        name: found(name) or found("verifiers.v1.tasksets." + name)
        for name in asked["environments"]
    },
}))
"""


@dataclass(frozen=True)
class PrimeRl:
    """What the interpreter said.

    Attributes:
        version: Its Python version; empty when it could not be asked.
        module: Whether it finds prime-rl's entry point.
        environments: For each environment's module, whether it finds it.
        problem: Why it could not be asked.
        killed: Whether that is a signal which ended it.
    """

    version: str = ""
    module: bool = False
    environments: Mapping[str, bool] | None = None
    problem: str = ""
    killed: bool = False


def ask_prime_rl(
    launch: Launch, variables: Mapping[str, str], meanwhile: Callable[[], object] | None = None
) -> PrimeRl:
    """Ask what prime-rl's interpreter finds, in the environment that prime-rl will have.

    Args:
        launch: The plan; its `python` must not be `None`.
        variables: prime-rl's environment.
        meanwhile: Called every second until it answers.
    """
    question = json.dumps(
        {"module": launch.module, "environments": [_module(n) for n in launch.environments]}
    )
    seconds = _patience(variables)
    try:
        answer = ask(
            (str(launch.python), "-c", QUESTION, question),
            variables,
            launch.working_directory,
            seconds,
            meanwhile=meanwhile,
        )
    except OSError as error:
        return PrimeRl(problem=f"{launch.python} cannot be started: {error.strerror}")
    if answer.code is None:
        return PrimeRl(problem=f"{launch.python} did not answer within {seconds:g} s")
    if answer.code != 0:
        last = "\n".join(answer.output.strip().splitlines()[-LAST_LINES:])
        words = f":\n{last}" if last else ""
        return PrimeRl(problem=f"{launch.python} {answer.ending}{words}", killed=answer.killed)
    try:
        said = json.loads(answer.output.strip().splitlines()[-1])
        return PrimeRl(said["version"], said["module"], said["environments"])
    except (IndexError, KeyError, TypeError, ValueError):
        return PrimeRl(problem=f"{launch.python} is no Python that answers: {answer.output!r:.200}")


def _patience(variables: Mapping[str, str]) -> float:
    try:
        return float(variables.get(SECONDS_VARIABLE) or SECONDS)
    except ValueError:
        return SECONDS


def _module(name: str) -> str:
    return name.replace("-", "_")


# As Python, torch, ZMQ, uvicorn and the router word it.
_IN_USE = re.compile(rb"address already in use|EADDRINUSE|errno:? 98\b", re.IGNORECASE)
_TAIL = 256 * 1024


def address_in_use(*folders: Path) -> str | None:
    """Name the component of the newest launch whose log says that its port was taken.

    Args:
        folders: Where its logs are.

    Returns:
        The log's name below its folder, or `None` when none says so.
    """
    for folder in folders:
        for path in sorted(folder.rglob("*.log")):
            try:
                with path.open("rb") as file:
                    file.seek(max(0, path.stat().st_size - _TAIL))
                    if _IN_USE.search(file.read()):
                        return str(path.relative_to(folder))
            except OSError:
                continue
    return None


def metrics_size(run_dir: Path) -> int:
    """How many bytes of metrics there are: what an attempt starts behind."""
    try:
        return (run_dir / "metrics.jsonl").stat().st_size
    except OSError:
        return 0


def trained(run_dir: Path, since: int) -> bool:
    """Whether the trainer has made a step: it then has a row with a loss in `metrics.jsonl`.

    Args:
        run_dir: The run directory.
        since: Size of the file at the attempt's start.
    """
    try:
        with (run_dir / "metrics.jsonl").open("rb") as file:
            file.seek(since)
            return any(b'"loss/mean"' in line for line in file)
    except OSError:
        return False
