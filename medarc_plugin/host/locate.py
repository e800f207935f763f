"""Find prime-rl: its checkout and the interpreter that has its packages."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from medarc_plugin.errors import HostBrokenError, HostNotFoundError
from medarc_plugin.models import Host
from medarc_plugin.process import run

if TYPE_CHECKING:
    from collections.abc import Mapping

BESIDE = Path("prime-rl")
"""A checkout in the current folder."""

SYNC = "uv sync --all-extras --all-packages"
"""What installs prime-rl and the environments of its workspace, in its checkout."""

MEND = f"{SYNC} --inexact"
"""The same where something is installed: it keeps what prime-rl's lock does not name, such as a user's own
environments and this project, which uv would take away."""

GET_PRIME_RL = (
    "clone https://github.com/PrimeIntellect-ai/prime-rl, run `git submodule update --init` and "
    f"`{SYNC}` in it"
)
"""The way to get it; how it is then named depends on who asks."""


def locate(
    option: Path | None, environment: Mapping[str, str] = os.environ, *, source: str | None = None
) -> Host | None:
    """Look for prime-rl in the documented order.

    Args:
        option: The value of `--prime-rl-dir`, wherever it came from.
        environment: Where `PRIME_RL_DIR` and `PRIME_RL_PYTHON` are looked up. The latter names the
            interpreter of a checkout that has no `.venv`.
        source: Where the option's value came from, for messages.

    Returns:
        The first that is there: the option, `PRIME_RL_DIR`, `./prime-rl`, this interpreter; `None` when
        there is none.

    Raises:
        HostBrokenError: A place was named on purpose and holds no prime-rl, or no interpreter.
    """
    if option is not None:
        name = "--prime-rl-dir" if source in (None, "command line") else f"prime_rl_dir in {source}"
        return _checkout(option, name, environment)
    if environment.get("PRIME_RL_DIR"):
        return _checkout(Path(environment["PRIME_RL_DIR"]), "PRIME_RL_DIR", environment)
    if is_checkout(BESIDE):
        return _checkout(BESIDE, f"./{BESIDE}", environment)
    if in_this_interpreter():
        return Host(Path(sys.executable), _checkout_of_this_interpreter(), "this environment")
    return None


def require(host: Host | None, *, option: bool = True) -> Host:
    """Return the host, or say how to get one.

    Args:
        host: What `locate` returned.
        option: Whether the command takes --prime-rl-dir.

    Raises:
        HostNotFoundError: There is none.
    """
    if host is None:
        raise HostNotFoundError(
            f"prime-rl was not found: looked at {'--prime-rl-dir, ' if option else ''}PRIME_RL_DIR, "
            "./prime-rl and this Python environment",
            hint=f"{GET_PRIME_RL}, and name it with {'--prime-rl-dir or ' if option else ''}PRIME_RL_DIR",
        )
    return host


def is_checkout(directory: Path) -> bool:
    """Whether a folder looks like a prime-rl checkout."""
    return (directory / "pyproject.toml").is_file() and any(
        (directory / part).is_dir() for part in ("src/prime_rl", "prime_rl", "packages/prime-rl-configs")
    )


def in_this_interpreter() -> bool:
    """Whether prime-rl is installed in the environment that runs this."""
    try:
        return importlib.util.find_spec("prime_rl.entrypoints.rl") is not None
    except (ImportError, ValueError):
        return False


def _checkout_of_this_interpreter() -> Path | None:
    """Find the checkout whose code is prime-rl here: the one that it is installed from, in an editable way.

    https://packaging.python.org/en/latest/specifications/direct-url-data-structure/
    """
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    try:
        said = json.loads(distribution("prime-rl").read_text("direct_url.json") or "{}")
        url, editable = urlsplit(said["url"]), said["dir_info"]["editable"]
    except (PackageNotFoundError, OSError, ValueError, TypeError, KeyError):
        return None
    directory = Path(url2pathname(url.path))
    return directory if editable is True and url.scheme == "file" and is_checkout(directory) else None


def commit_of(directory: Path | None) -> tuple[str | None, bool]:
    """Return a checkout's commit and whether it has local changes; `(None, False)` outside git."""
    if directory is None or not (directory / ".git").exists():
        return None, False
    head = run(["git", "-C", str(directory), "rev-parse", "HEAD"], timeout=10)
    if not head.ok:
        return None, False
    status = run(["git", "-C", str(directory), "status", "--porcelain", "--untracked-files=no"], timeout=30)
    return head.stdout.strip(), bool(status.stdout.strip())


def _checkout(directory: Path, source: str, environment: Mapping[str, str]) -> Host:
    directory = _expanded(directory)
    if not directory.is_dir():
        raise HostBrokenError(
            f"{source}: {directory} is not a folder", hint=f"{GET_PRIME_RL}, and name that folder"
        )
    if not is_checkout(directory):
        raise HostBrokenError(
            f"{source}: {directory} is not a prime-rl checkout: it has no pyproject.toml beside "
            "src/prime_rl or packages/prime-rl-configs",
            hint=f"name the folder of its pyproject.toml, or {GET_PRIME_RL}",
        )
    named = environment.get("PRIME_RL_PYTHON")
    # The link itself and not what it points to: that is how Python knows its environment.
    python = _expanded(Path(named)) if named else directory / ".venv" / "bin" / "python"
    if not os.access(python, os.X_OK) or python.is_dir():
        if named:
            raise HostBrokenError(
                f"PRIME_RL_PYTHON: {python} is missing or cannot be run",
                hint=f"name an interpreter with prime-rl's packages, or unset it for that of {directory}",
            )
        raise HostBrokenError(
            f"{source}: prime-rl's interpreter {python} is missing or cannot be run",
            hint=f"`git submodule update --init` and `{SYNC}` in {directory} make it; "
            "PRIME_RL_PYTHON names another",
        )
    return Host(python, directory, source, python_source="PRIME_RL_PYTHON" if named else None)


def _expanded(path: Path) -> Path:
    """Make a path absolute; a `~` that names nobody stays, as in a shell."""
    return Path(os.path.expanduser(path)).absolute()  # noqa: PTH111 - the other raises
