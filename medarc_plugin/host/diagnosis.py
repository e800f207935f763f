"""What is wrong with a prime-rl that gives no config, and the command that mends it."""

from __future__ import annotations

import re
import shlex
import tomllib
from typing import TYPE_CHECKING, Any

from medarc_plugin.errors import HostBrokenError
from medarc_plugin.process import MOST_SHOWN, TIMED_OUT, run, show

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from medarc_plugin.models import Host
    from medarc_plugin.process import Completed

REPAIR = "`uv sync --all-extras` in prime-rl's checkout repairs its environment"

VERSION_TIMEOUT = 10.0
"""Seconds for an interpreter to say its version."""


def of_failure(host: Host, done: Completed) -> HostBrokenError:
    """Say why an interpreter gave no answer.

    Args:
        host: prime-rl.
        done: How its interpreter ended.
    """
    where = f"prime-rl's interpreter {host.python} ({host.source})"
    if done.returncode == TIMED_OUT:
        return HostBrokenError(
            f"{where} gave {done.stderr.partition(chr(10))[0]}; it printed:\n{_printed(done)}",
            hint=f"`{shlex.quote(str(host.python))} -c 'import prime_rl.configs.rl'` should come back: what "
            "hangs in it may be a file system, or what its site-packages run at every start",
        )
    if done.ok:
        return HostBrokenError(
            f"{where} gave no answer: `{show(done.argv)}` ended well and printed:\n{_printed(done)}",
            hint="is it a Python? PRIME_RL_PYTHON, or .venv/bin/python in the checkout, names it",
        )
    wrong = wrong_version(host)
    return HostBrokenError(
        f"{where} {f'is {wrong}' if wrong else 'failed'}: `{show(done.argv)}` ended with exit code "
        f"{done.returncode}:\n{last_words(done.stderr) or _printed(done)}",
        hint=_repair(host, wrong),
    )


def of_import(host: Host, answer: Mapping[str, Any]) -> HostBrokenError:
    """Say why prime-rl's config classes cannot be imported.

    Args:
        host: prime-rl.
        answer: What the resolver says: `message`, and `missing`, a module's name or `None`.
    """
    wrong = wrong_version(host)
    missing = answer.get("missing")
    lacks = f"its environment lacks {missing!r}: " if missing and not wrong else ""
    which = f", which is {wrong}" if wrong else ""
    return HostBrokenError(
        f"prime-rl ({host.source}, {host.python}{which}) cannot be imported:\n{answer['message'].strip()}",
        hint=lacks + _repair(host, wrong),
    )


def of_environment(host: Host, answer: Mapping[str, Any]) -> HostBrokenError:
    """Say which environment that a config names is not installed, and how it gets there.

    Args:
        host: prime-rl.
        answer: What the resolver says: `message`, and `missing`, a module's name or `None`.
    """
    missing = answer["missing"]
    named = f"the module {missing!r}" if missing else "a module that the config needs"
    message = f"prime-rl's environment lacks {named}: {answer['message']}"
    python = shlex.quote(str(host.python))
    folder = _package_in(host, missing) if missing else None
    empty = empty_submodules(host)
    if folder is not None:
        hint = f"`uv pip install --no-deps --python {python} {shlex.quote(str(folder))}` installs it there"
    elif empty:
        hint = f"{fill(host, empty)}; another one: `uv pip install --no-deps --python {python} FOLDER`"
    else:
        hint = (
            "`uv sync --all-extras --all-packages` in prime-rl's checkout installs the environments "
            f"that it ships; another one: `uv pip install --no-deps --python {python} FOLDER`"
        )
    return HostBrokenError(message, hint=hint)


def python_version(host: Host) -> str | None:
    """Ask an interpreter for its version, `3.12.1`; `None` when it does not say."""
    question = "import sys; print('Python %d.%d.%d' % tuple(sys.version_info[:3]))"
    done = run([str(host.python), "-IS", "-c", question], timeout=VERSION_TIMEOUT)
    found = re.findall(r"^Python (\d+\.\d+\.\d+)$", done.stdout, re.MULTILINE)
    return str(found[-1]) if found else None


def wrong_version(host: Host, version: str | None = None) -> str | None:
    """Say which Python an interpreter is and which one prime-rl wants; `None` where it fits or is unknown.

    Args:
        host: prime-rl.
        version: The interpreter's, where it is known already.
    """
    wanted = _wanted_python(host.directory)
    if wanted is None:
        return None
    version = version or python_version(host)
    if version is None:
        return None
    major, minor, _ = version.split(".")
    if all(_fits((major, minor), clause) for clause in wanted.split(",")):
        return None
    return f"Python {major}.{minor}, and prime-rl asks for {wanted}"


def _wanted_python(directory: Path | None) -> str | None:
    if directory is None:
        return None
    try:
        project = tomllib.loads((directory / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        wanted = project["requires-python"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return wanted if isinstance(wanted, str) else None


def _fits(version: tuple[str, str], clause: str) -> bool:
    """Whether a minor version meets one clause; one that is not understood is met.

    What the clauses mean: https://packaging.python.org/en/latest/specifications/version-specifiers/
    """
    match = re.fullmatch(r"\s*(~=|==|>=|<=|<)\s*(\d+)\.(\d+)(\.[\d*]+)?\s*", clause)
    if match is None:
        return True
    operator, *wanted, rest = match.groups()
    mine, theirs = tuple(map(int, version)), tuple(map(int, wanted))
    return {
        "~=": mine == theirs if rest else mine >= theirs and mine[0] == theirs[0],
        "==": mine == theirs,
        ">=": mine >= theirs,
        "<=": mine <= theirs,
        "<": mine < theirs,
    }[operator]


def empty_submodules(host: Host) -> list[str]:
    """List the submodules of a checkout that nothing was checked out for."""
    if host.directory is None:
        return []
    try:
        text = (host.directory / ".gitmodules").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return []
    paths = re.findall(r"^\s*path\s*=\s*(\S+)\s*$", text, re.MULTILINE)
    return [path for path in paths if not _has_something(host.directory / path)]


def last_words(text: str) -> str:
    """Take tracebacks out of what a program printed: the exception's own words are what follows one."""
    kept: list[str] = []
    inside = False
    for line in text.strip().splitlines():
        if line.startswith("Traceback ("):
            inside = True
        elif not (inside and line.startswith(" ")):
            inside = False
            kept.append(line)
    return "\n".join(kept)[-MOST_SHOWN:]


def _printed(done: Completed) -> str:
    """What a program wrote, in both streams, without what `run` says itself of one that was ended."""
    errors = done.stderr.partition("\n")[2] if done.returncode == TIMED_OUT else done.stderr
    words = "\n".join(part for part in (done.stdout.strip(), last_words(errors)) if part)
    return words[-MOST_SHOWN:] or "(nothing)"


def _repair(host: Host, wrong: str | None) -> str:
    empty = empty_submodules(host)
    if wrong:
        return (
            f"`uv sync --all-extras` in {host.directory} makes one that fits; PRIME_RL_PYTHON names another"
        )
    return fill(host, empty) if empty else REPAIR


def fill(host: Host, empty: list[str]) -> str:
    """Say how submodules are filled."""
    return (
        f"{', '.join(empty)} in {host.directory} {'is' if len(empty) == 1 else 'are'} empty: `git submodule "
        "update --init` and `uv sync --all-extras --all-packages` there"
    )


def _package_in(host: Host, module: str) -> Path | None:
    """Find the package of an environment among those that come with a checkout."""
    if host.directory is None:
        return None
    for folders in ("environments/*", "environments/*/*", "deps/*/environments/*", "deps/*/environments/*/*"):
        for project in sorted(host.directory.glob(f"{folders}/pyproject.toml")):
            if project.parent.name.replace("-", "_").lower() == module:
                return project.parent
    return None


def _has_something(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except OSError:
        return False
