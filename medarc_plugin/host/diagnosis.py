"""What is wrong with a prime-rl that gives no config, and the command that mends it."""

from __future__ import annotations

import itertools
import re
import shlex
import tomllib
from typing import TYPE_CHECKING, Any

from medarc_plugin.errors import HostBrokenError
from medarc_plugin.host.locate import MEND, SYNC
from medarc_plugin.process import MOST_SHOWN, TIMED_OUT, ending_of, killed_by, run_apart, show

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from medarc_plugin.models import Host
    from medarc_plugin.process import Completed

REPAIR = f"`{MEND}` in prime-rl's checkout repairs its environment"

CRASHES = frozenset({"SIGSEGV", "SIGILL", "SIGBUS", "SIGFPE", "SIGABRT"})
"""Signals that a program earns itself."""

VERSION_TIMEOUT = 10.0
"""Seconds for an interpreter to say its version."""


def of_failure(host: Host, done: Completed) -> HostBrokenError:
    """Say why an interpreter gave no answer.

    Args:
        host: prime-rl.
        done: How its interpreter ended.
    """
    if done.returncode == TIMED_OUT:
        return of_patience(host, done, show([str(host.python), "-c", "import prime_rl.configs.rl"]))
    if done.ok:
        return HostBrokenError(
            f"{host.interpreter} gave no answer: `{show(done.argv)}` ended well and printed:\n"
            f"{_printed(done)}",
            hint=is_it_one(host),
        )
    if not done.started:
        reason = done.stderr.rpartition(": ")[2]
        return HostBrokenError(f"{host.interpreter} cannot be started: {reason}", hint=is_it_one(host))
    words = last_words(done.stderr) or _printed(done)
    ending = ending_of(done.returncode)
    if killed_by(done.returncode):
        message = f"{host.interpreter} {ending}: `{show(done.argv)}`; it printed:\n{words}"
        return HostBrokenError(message, hint=_after(done.returncode))
    wrong = wrong_version(host)
    how = f"is {wrong}" if wrong else "failed"
    return HostBrokenError(
        f"{host.interpreter} {how}: `{show(done.argv)}` {ending}:\n{words}",
        hint=_repair(host, wrong),
    )


def _after(code: int) -> str:
    """Say what to do about an interpreter that a signal ended."""
    if killed_by(code) in CRASHES:
        return f"a compiled package of its environment does not fit this machine: {REPAIR}"
    return "try again; where memory is short (`ulimit -v`, or a login node's limit), on another machine"


def of_patience(host: Host, done: Completed, command: str, during: str = "") -> HostBrokenError:
    """Say that an interpreter did not come to an end.

    Args:
        host: prime-rl.
        done: How it was ended.
        command: What to try by hand.
        during: What it was at.
    """
    return HostBrokenError(
        f"{host.interpreter} gave {done.stderr.partition(chr(10))[0]}{during}; it printed:\n{_printed(done)}",
        hint=f"`{command}` should come back: what hangs in it may be a file system, or what its "
        "site-packages run at every start",
    )


def of_end(
    host: Host, entrypoint: str, arguments: Sequence[str], code: int | None, words: str
) -> HostBrokenError:
    """Say which config it was at which an interpreter ended: nobody else's doing than that config's.

    Args:
        host: prime-rl.
        entrypoint: `rl`, `sft` or `inference`.
        arguments: What is prime-rl's on the command line.
        code: The exit code, negative for a signal; `None` where the words tell.
        words: What it printed.
    """
    how = "was asked to end" if code is None else ending_of(code)
    name = None if code is None else killed_by(code)
    own = f"`{own_command(host, entrypoint, arguments)}` is the same without this plugin"
    hint = f"what the packages of its environments do when they are imported may end it: {own}"
    if name is not None and name not in CRASHES:
        hint = f"{_after(code or 0)}; {own}"
    said = last_words(words)
    return HostBrokenError(
        f"{host.interpreter} {how} while it resolved "
        f"{configs_in(arguments)}" + (f":\n{said}" if said else ", and printed nothing"),
        hint=hint,
    )


def own_command(host: Host, entrypoint: str, arguments: Sequence[str]) -> str:
    """Write prime-rl's own dry run of a config, for a shell."""
    return show([str(host.python), "-m", f"prime_rl.entrypoints.{entrypoint}", *arguments, "--dry-run"])


def configs_in(arguments: Sequence[str]) -> str:
    """Name the config files of a command line, or show it where it names none."""
    files = [after for token, after in itertools.pairwise(arguments) if token == "@"]
    return " and ".join(files) or f"`{show(arguments)}`"


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
    named = f"{host.python_source} " if host.python_source else ""
    return HostBrokenError(
        f"prime-rl ({host.source}, {named}{host.python}{which}) cannot be imported:\n"
        f"{answer['message'].strip()}",
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
        hint = f"{_fill(host, empty)}; another one: `uv pip install --no-deps --python {python} FOLDER`"
    else:
        hint = (
            f"`{MEND}` in prime-rl's checkout installs the environments that it ships; "
            f"another one: `uv pip install --no-deps --python {python} FOLDER`"
        )
    return HostBrokenError(message, hint=hint)


def wrong_version(host: Host) -> str | None:
    """Say which Python an interpreter is and which one prime-rl wants; `None` where it fits or is unknown."""
    wanted = _wanted_python(host.directory)
    if wanted is None:
        return None
    question = "import sys; print('Python %d.%d.%d' % tuple(sys.version_info[:3]))"
    done = run_apart([str(host.python), "-IS", "-c", question], timeout=VERSION_TIMEOUT)
    found = re.findall(r"^Python (\d+)\.(\d+)\.\d+$", done.stdout, re.MULTILINE)
    if not found or all(_fits(found[-1], clause) for clause in wanted.split(",")):
        return None
    return f"Python {'.'.join(found[-1])}, and prime-rl asks for {wanted}"


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


def is_it_one(host: Host) -> str:
    """Ask of what is no interpreter, and say how another is named."""
    if host.python_source:
        return f"is it a Python for this machine? {host.python_source} names it"
    return "is it a Python for this machine? PRIME_RL_PYTHON names another"


def _repair(host: Host, wrong: str | None) -> str:
    empty = empty_submodules(host)
    if host.python_source:
        todo = "name one that fits" if wrong else "install prime-rl there"
        return f"{host.python_source} names it: {todo}, or unset it for the one in {host.directory}"
    if wrong:
        return f"`{SYNC}` in {host.directory} makes one that fits; PRIME_RL_PYTHON names another"
    return _fill(host, empty) if empty else REPAIR


def _fill(host: Host, empty: list[str]) -> str:
    return (
        f"{', '.join(empty)} in {host.directory} {'is' if len(empty) == 1 else 'are'} empty: `git submodule "
        f"update --init` and `{MEND}` there"
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
