"""Profiles: option values that a project, a user or a site keeps in a `medarc.toml`.

A file has values for every run in `[slurm]`, with the keys of a run's own `[slurm]` table, and named sections
for `--profile NAME`:

    default_profile = "h100"    # used when neither --profile nor MEDARC_PROFILE names one

    [slurm]
    account = "lab"

    [profile.h100]
    partition = "shared"
    gpu_type = "h100"

The project's file wins over the user's, and that over the site's; within a file the named section wins.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medarc_plugin import project
from medarc_plugin.errors import UsageError
from medarc_plugin.options import is_path, knobs
from medarc_plugin.profiles import Layer, meant, settle, spelled, unknown_keys

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

VARIABLE = "MEDARC_PROFILE"
DEFAULT = "default_profile"
EVERY_RUN = "slurm"
SECTIONS = "profile"
UNSET = "None"
"""How prime-rl's config language writes that a key is not set, here as in a run's own `[slurm]`."""

MOST_BYTES = 1024 * 1024

_NAME = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


@dataclass(frozen=True)
class ProfileFile:
    """A profile that was read and holds no key that nobody knows.

    Attributes:
        path: The file.
        every_run: Values for every run, by field name of `SlurmOptions`.
        named: Values of each named section.
        default: The section that holds when none is named.
    """

    path: Path
    every_run: Mapping[str, Any]
    named: Mapping[str, Mapping[str, Any]]
    default: str | None = None


def layers(
    name: str | None = None,
    environment: Mapping[str, str] = os.environ,
    folder: Path | None = None,
) -> list[Layer]:
    """Read the profiles and lay them in order, highest first.

    Args:
        name: The section that `--profile` names.
        environment: Where `MEDARC_PROFILE` may name one.
        folder: A folder of the project; the current one unless given.

    Raises:
        UsageError: A file cannot be read or holds what nobody knows, or there is no such section.
    """
    return layers_of(read_all(folder), name, environment)


def is_source(source: str) -> bool:
    """Whether the place of a value is a profile."""
    return f"/{project.PROFILE} [" in source


def read_all(folder: Path | None = None) -> list[ProfileFile]:
    """Read every profile that is there.

    Raises:
        UsageError: One cannot be read, or holds what nobody knows.
    """
    found = [read(path) for path in dict.fromkeys(project.profile_places(folder)) if os.path.lexists(path)]
    return [file for file in found if file is not None]


def layers_of(
    files: Sequence[ProfileFile], name: str | None, environment: Mapping[str, str] = os.environ
) -> list[Layer]:
    """Lay profiles in order; see `layers`."""
    wanted, said_by = name, "--profile"
    if wanted is None:
        wanted, said_by = environment.get(VARIABLE) or None, VARIABLE
    if wanted is None:
        choosing = next((file for file in files if file.default is not None), None)
        if choosing is not None:
            wanted, said_by = choosing.default, f"{DEFAULT} of {choosing.path}"
    if wanted is not None and not any(wanted in file.named for file in files):
        raise _no_section(wanted, said_by, files)
    found = []
    for file in files:
        if wanted is not None and wanted in file.named:
            found.append(Layer(f"{file.path} [{SECTIONS}.{wanted}]", file.named[wanted]))
        found.append(Layer(f"{file.path} [{EVERY_RUN}]", file.every_run))
    return found


def _no_section(wanted: str, said_by: str, files: Sequence[ProfileFile]) -> UsageError:
    known = sorted({name for file in files for name in file.named})
    near = difflib.get_close_matches(wanted, known, n=1)
    if near:
        hint = f"did you mean {near[0]}? The profiles are: {', '.join(known)}"
    elif known:
        hint = f"the profiles are: {', '.join(known)}"
    elif files:
        name = wanted if _NAME.fullmatch(wanted) else "NAME"
        hint = f"no {project.PROFILE} has a [{SECTIONS}.NAME]: add [{SECTIONS}.{name}] to {files[0].path}"
    else:
        hint = f"there is no {project.PROFILE}; `medarc_slurm init` proposes one"
    return UsageError(f"there is no profile {wanted!r} (from {said_by})", hint=hint)


def read(path: Path) -> ProfileFile | None:
    """Read a profile; `None` for one that vanished.

    Raises:
        UsageError: It cannot be read, or holds what nobody knows: names line, key and the nearest right one.
    """
    text = _text(path)
    if text is None:
        return None
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{path} is no TOML: {error}", hint="mend the file; `medarc_slurm init` shows one"
        ) from None
    _refuse_unknown({key: key for key in document}, (DEFAULT, EVERY_RUN, SECTIONS), path, text, ())
    default = document.get(DEFAULT)
    if default is not None and not isinstance(default, str):
        raise UsageError(
            f"{path}{_line(text, (), DEFAULT)}: {DEFAULT} must be a profile's name, not {default!r}"
        )
    sections = _table(document, SECTIONS, path, text)
    named = {}
    for name in sections:
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{path}: {name!r} is no name for a profile", hint="use letters, digits, - and _"
            )
        named[name] = _values(_table(sections, name, path, text, (SECTIONS,)), path, text, (SECTIONS, name))
    file = ProfileFile(
        path, _values(_table(document, EVERY_RUN, path, text), path, text, (EVERY_RUN,)), named, default
    )
    _refuse_bad_values(file, text)
    return file


def _text(path: Path) -> str | None:
    try:
        if not path.is_file():
            raise UsageError(f"{path} is not a regular file", hint="a profile is a TOML file")
        if path.stat().st_size > MOST_BYTES:
            raise UsageError(f"{path} is larger than {MOST_BYTES} bytes", hint="that is no profile")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: {error.reason}", hint="save it as UTF-8") from None
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}", hint="mend its permissions, or take it away"
        ) from None


def _table(
    document: Mapping[str, Any], name: str, path: Path, text: str, header: tuple[str, ...] = ()
) -> Mapping[str, Any]:
    table = document.get(name, {})
    if not isinstance(table, dict):
        where = f"{path}{_line(text, header, name)}: "
        if header:
            raise UsageError(
                f"{where}[{SECTIONS}] has the key {name}, and takes sections alone",
                hint=f"[{EVERY_RUN}] is for every run, [{SECTIONS}.NAME] for --profile NAME",
            )
        raise UsageError(f"{where}{name} must be a table, not {table!r}")
    return table


def _values(table: Mapping[str, Any], path: Path, text: str, header: tuple[str, ...]) -> dict[str, Any]:
    """Take a table's values, with paths as seen from the profile's folder."""
    names = spelled(table, lambda key: f"{path}{_line(text, header, key)}: [{'.'.join(header)}]")
    _refuse_unknown(names, tuple(knobs()), path, text, header)
    return {
        name: _seen_from(path.parent, table[key]) if is_path(name) else table[key]
        for name, key in names.items()
        if table[key] != UNSET
    }


def _seen_from(folder: Path, value: object) -> object:
    if not isinstance(value, str) or not value:
        return value
    return value if value.startswith("~") else str(folder / value)


def _refuse_unknown(
    names: Mapping[str, str], known: Sequence[str], path: Path, text: str, header: tuple[str, ...]
) -> None:
    """Refuse keys that nobody knows; `names` says how each is written."""
    unknown = {name: key for name, key in names.items() if name not in known}
    if not unknown:
        return
    name, key = next(iter(unknown.items()))
    where = f"[{'.'.join(header)}]" if header else "the file"
    hint = meant(name, known) or _what_is_known(known, header)
    if not header and any(each in knobs() for each in unknown):
        hint = f"options stand in [{EVERY_RUN}] or [{SECTIONS}.NAME]"
    message = unknown_keys(where, unknown, known)
    raise UsageError(f"{path}{_line(text, header, key)}: {message}", hint=hint)


def _what_is_known(known: Sequence[str], header: tuple[str, ...]) -> str:
    return "`medarc_slurm options` lists all keys" if header else f"known are: {', '.join(known)}"


def _refuse_bad_values(file: ProfileFile, text: str) -> None:
    """Say at once what is wrong, and where, also in a section that no run has used yet."""
    sections = ((EVERY_RUN,), file.every_run), *(((SECTIONS, name), it) for name, it in file.named.items())
    for header, values in sections:
        try:
            settle([Layer("", values)])
        except UsageError as error:
            # An error begins with the option that it is about.
            option = re.match(r"--([a-z-]+)", error.message)
            key = option[1] if option else ""
            line = _line(text, header, key.replace("-", "_")) or _line(text, header, key)
            where = f"{file.path}{line}: [{'.'.join(header)}]"
            raise UsageError(f"{where} {error.message}", hint=error.hint) from None


_HEADER = re.compile(r"\s*\[\s*([^\[\]#]+?)\s*\]\s*(?:#.*)?")


def _line(text: str, header: tuple[str, ...], key: str) -> str:
    """Say in which line a key stands, as `:7`; nothing where that is not plain to see."""
    at: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if found := _HEADER.fullmatch(line):
            at = tuple(part.strip().strip("\"'") for part in found[1].split("."))
            if at == (*header, key):
                return f":{number}"
        elif at == header and re.match(rf"""\s*["']?{re.escape(key)}["']?\s*[=.]""", line):
            return f":{number}"
    return ""
