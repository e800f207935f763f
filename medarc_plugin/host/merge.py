"""Read a run's files and overrides without prime-rl, through prime-rl's own config library.

Good for two things: the `[slurm]` table, which is ours to read before anything slow happens, and a
preview of the config where there is no prime-rl. Nothing is validated here beyond what the library
itself refuses.
"""

from __future__ import annotations

import hashlib
import itertools
from typing import TYPE_CHECKING, Any

from medarc_plugin.errors import UsageError
from medarc_plugin.host import fields

if TYPE_CHECKING:
    from collections.abc import Sequence


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
    """
    pairs = zip(arguments, [*arguments[1:], ""], strict=True)
    names = [token[1:] or after for token, after in pairs if token.startswith("@")]
    return {name: _digest(name) for name in names}


def _digest(name: str) -> str | None:
    try:
        with open(name, "rb") as file:  # noqa: PTH123 - a name that is no path is an error like any other
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
    document = _load(plain)
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


def _load(arguments: list[str]) -> dict[str, Any]:
    from pydantic import ConfigDict
    from pydantic_config import BaseConfig, ConfigFileError, cli

    class Anything(BaseConfig):  # type: ignore[misc] # the library ships no types
        model_config = ConfigDict(extra="allow")

    try:
        merged = cli(Anything, args=arguments)
    except ConfigFileError as error:
        raise UsageError(error.message) from None
    except OSError as error:
        raise UsageError(f"cannot read {error.filename}: {error.strerror}") from None
    except RecursionError:
        raise UsageError("a config file is nested too deeply to be one") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"a config file is not UTF-8 text: {error}") from None
    except (AttributeError, TypeError):
        # The library takes a file's content for a table without looking.
        files = [after for token, after in itertools.pairwise(arguments) if token == "@"]
        raise UsageError(f"a config file holds something that is not a table: {', '.join(files)}") from None
    document: dict[str, Any] = merged.model_dump()
    return document
