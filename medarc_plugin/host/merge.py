"""Read a run's files and overrides without prime-rl, through prime-rl's own config library.

Good for two things: the `[slurm]` table, which is ours to read before anything slow happens, and a
preview of the config where there is no prime-rl. Nothing is validated here beyond what the library
itself refuses.
"""

from __future__ import annotations

import codecs
import difflib
import hashlib
import itertools
import json
import os
import shlex
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medarc_plugin.errors import UsageError
from medarc_plugin.host import fields

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def read_files(arguments: Sequence[str]) -> dict[str, Any]:
    """Merge the `@ FILE`s of a command line that are for the root or for `--slurm`, nothing else of it.

    Raises:
        UsageError: A file is missing or is not what its suffix says.
    """
    files: list[str] = []
    tokens = ["", *arguments, ""]
    for before, token, after in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if token == "@" and not before.startswith("--"):
            files += [token, after] if after else [token]
        elif before == "--slurm" and token.startswith("@"):
            files += [before, token, after] if token == "@" else [before, token]
    return _load(files)


def fingerprints(arguments: Sequence[str]) -> dict[str, str | None]:
    """Digest every file that a command line names behind an `@`; `None` for one that cannot be read.

    Args:
        arguments: What is prime-rl's on the command line.

    Raises:
        UsageError: One is no file.
    """
    names = _named(arguments)
    _refuse_what_is_no_file(names)
    return {name: _digest(name) for name in names}


def _named(arguments: Sequence[str]) -> list[str]:
    """List the files that a command line names behind an `@`."""
    pairs = itertools.pairwise([*arguments, ""])
    names = [token[1:] or after for token, after in pairs if token.startswith("@")]
    return [name for name in names if name]


SUFFIXES = frozenset({".toml", ".json", ".yaml", ".yml"})
"""Of what the library reads."""

NO_FILE: Sequence[tuple[Callable[[int], bool], str, str]] = (
    (stat.S_ISDIR, "a folder", "name a file in it"),
    (
        stat.S_ISFIFO,
        "a pipe",
        "write it to a file: a config is read several times, and a pipe, as <(...) is one, only once",
    ),
    (lambda mode: not stat.S_ISREG(mode), "a device or a socket", "write the config to a file"),
)
"""What may be found in a config's place, and the way out."""


def _refuse_what_is_no_file(names: Sequence[str]) -> None:
    """Refuse what would be read for ever, or not twice, before anything reads it."""
    for name in names:
        try:
            mode = os.stat(name).st_mode  # noqa: PTH116 - a name that is no path is an error like any other
        except (OSError, ValueError):
            continue
        for is_one, what, hint in NO_FILE:
            if is_one(mode):
                raise UsageError(f"{name} is {what}, not a regular file", hint=hint)


def _digest(name: str) -> str | None:
    try:
        with open(name, "rb") as file:  # noqa: PTH123 - as above
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None


def merge(arguments: Sequence[str]) -> dict[str, Any]:
    """Merge files and overrides as prime-rl's library does when it knows no schema.

    Overrides stay text: only a schema could tell a number from a name.

    Raises:
        UsageError: A file is missing or is not what its suffix says, or an argument is no override.
    """
    plain, lists = _split_lists(arguments)
    document = _load(plain, mode="json")
    for path, values in lists.items():
        fields.put(document, path, values)
    return document


def _split_lists(arguments: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Take out overrides with several values: without a schema the library reads only one."""
    plain: list[str] = []
    lists: dict[str, list[str]] = {}
    index = 0
    while index < len(arguments):
        token = arguments[index]
        end = index + 1
        while end < len(arguments) and not arguments[end].startswith("--"):
            end += 1
        values = list(arguments[index + 1 : end])
        if token.startswith("--") and "=" not in token and len(values) > 1 and "@" not in values:
            lists[token[2:].replace("-", "_")] = values
            index = end
        else:
            plain.append(token)
            index += 1
    return plain, lists


def _load(arguments: list[str], mode: Literal["python", "json"] = "python") -> dict[str, Any]:
    from pydantic import ConfigDict
    from pydantic_config import BaseConfig, ConfigFileError, cli

    class Anything(BaseConfig):  # type: ignore[misc] # the library ships no types
        model_config = ConfigDict(extra="allow")

    _refuse_what_is_no_file(_named(arguments))

    def read(part: list[str]) -> dict[str, Any]:
        document: dict[str, Any] = cli(Anything, args=part).model_dump(mode=mode)
        # What cannot be written any more ends here, and not half-way through a launch.
        json.dumps(document, default=str)
        return document

    try:
        return read(arguments)
    except ConfigFileError as error:
        raise UsageError(error.message, hint=_hint(arguments)) from None
    except Exception as error:
        name = _at_fault(arguments, read)
        raise UsageError(_words(name, error), hint=_hint(["@", name])) from None


def _at_fault(arguments: list[str], read: Callable[[list[str]], object]) -> str:
    """Name the file that cannot be read by itself; all of them where each can."""
    names = _named(arguments)
    for name in names:
        try:
            read(["@", name])
        except Exception:
            return name
    return ", ".join(names) or "the command line"


def _words(name: str, error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{name} cannot be read: {error.strerror}"
    if isinstance(error, RecursionError):
        return f"{name} is nested too deeply to be a config"
    if isinstance(error, UnicodeDecodeError):
        return f"{name} is not UTF-8 text: {error}"
    if isinstance(error, AttributeError | TypeError):
        # The library takes a file's content for a table without looking.
        return f"{name} holds something that is not a table"
    return f"{name} holds a value that cannot be read: {str(error).partition(';')[0]}"


def _hint(arguments: list[str]) -> str | None:
    """Say the way out where the file itself shows one."""
    for name in _named(arguments):
        path, quoted = Path(name), shlex.quote(name)
        try:
            beginning = _beginning(path)
        except FileNotFoundError:
            return _where_to_look(path)
        except (OSError, ValueError):
            return f"see its permissions, and those of {path.parent}"
        if beginning.startswith(codecs.BOM_UTF8):
            return (
                f"it begins with a byte order mark, which TOML has none of: `tail -c +4 {quoted}` is without"
            )
        if beginning.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return f"`iconv -f UTF-16 -t UTF-8 {quoted}` prints it as UTF-8"
        try:
            path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            return f"save it as UTF-8; `iconv -f WINDOWS-1252 -t UTF-8 {quoted}` prints what it probably is"
    return None


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)


def _where_to_look(path: Path) -> str:
    """Say of a file that is not there what is beside it."""
    if not path.parent.is_dir():
        return f"there is no folder {path.parent} in {Path.cwd()}"
    names = [entry.name for entry in path.parent.iterdir() if entry.suffix in SUFFIXES]
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.75)
    return (
        f"did you mean {path.parent / near[0]}?"
        if near
        else f"{path.parent.absolute()} has none of that name"
    )
