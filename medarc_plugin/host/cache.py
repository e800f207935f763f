"""Configs that prime-rl has resolved before: kept by what they came from, and used while that is the same.

Two things say so. The key is everything that is known before prime-rl is asked: what was typed and what the
plugin sets, the bytes of the config files, prime-rl's commit and local changes, its interpreter and the
packages there, and our own code that asks. And an entry tells what else was read: the resolver looks on while
prime-rl works, and lists the files, folders and variables (the source of an environment that the config
names, for one). The files of prime-rl's own imports are thousands, and the same for all configs: they have an
entry of their own, which the others name. An answer that came from the network, from another program or from
chance is not kept, nor is a refusal.

A cache is never the reason that a launch fails: what cannot be read is not there, what cannot be written is
left out.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import stat
import tempfile
import time
import zlib
from contextlib import suppress
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medarc_plugin.host import fields, resolver
from medarc_plugin.options import holds_secret
from medarc_plugin.process import run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from medarc_plugin.models import Host

FORMAT = 2
"""Raised when entries are written differently."""

MOST_ENTRIES = 512
MOST_BYTES = 64 * 2**20
"""Of all entries together. One takes about 10 kB, and one of prime-rl's imports 35."""

MOST_ENTRY_BYTES = 4 * 2**20
MOST_TEXT_BYTES = 64 * 2**20
"""Of one entry, as it lies there and unpacked; a larger one is not ours."""

MOST_CONFIG_BYTES = 16 * 2**20
"""Of the config files of a request; a config that is larger is resolved each time."""

JUST_NOW = 2.0
"""Seconds: what changed this shortly before prime-rl was asked may have changed while it read. Clocks of file
servers differ, and some count whole seconds."""


FAULTS = (OSError, ValueError, TypeError, KeyError, AttributeError, zlib.error, RecursionError)
"""What an entry raises that is not there or not whole."""


class Imports:
    """The files of the modules that prime-rl imports for any config.

    Args:
        paths: Their paths.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths

    @cached_property
    def key(self) -> str:
        """The name of their entry."""
        return _digest(["imports", *self.paths])


class Cache:
    """The entries of a user.

    Args:
        folder: Where they are; made when the first is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._state_of_path = cache(_state_of_path)
        self._state_of_folder = cache(_state_of_folder)
        self._imports = cache(self._read_imports)
        self._states: dict[str, str] = {}

    def get(self, key: str, environment: Mapping[str, str]) -> dict[str, Any] | None:
        """Return an answer that still holds.

        Args:
            key: From `Surroundings.key`.
            environment: What prime-rl would be asked in.

        Returns:
            The resolver's answer, or `None`: never asked, or something that it came from has changed.
        """
        try:
            entry = unpacked(self._read(key))
            if entry["state"] != self._state(entry["read"], self._imports(entry["imports"]), environment):
                return None
            answer: dict[str, Any] = entry["answer"]
        except FAULTS:
            return None
        with suppress(OSError):
            os.utime(self.folder / key)  # what was used last goes last
        return answer

    def put(
        self,
        key: str,
        answer: Mapping[str, Any],
        imports: Imports,
        environment: Mapping[str, str],
        began: float,
    ) -> bool:
        """Keep an answer, where that is safe.

        Args:
            key: From `Surroundings.key`, the same before and after prime-rl was asked.
            answer: The resolver's.
            imports: What prime-rl's interpreter had imported for it.
            environment: What prime-rl was asked in.
            began: When it was asked, in seconds since the epoch.

        Returns:
            Whether it is kept.
        """
        read = answer.get("read")
        if answer.get("kind") != "resolved" or not read or read["hindrance"]:
            return False
        bare = {name: value for name, value in answer.items() if name not in {"read", "imports"}}
        sources = itertools.chain(read["paths"], imports.paths)
        if holds_secret(bare, environment) or self._changed_since(sources, began):
            return False
        state = self._state(read, imports, environment)
        entry = {"answer": bare, "read": read, "imports": imports.key, "state": state}
        try:
            self._keep_imports(imports)
            self._write(key, packed(entry))
            self._prune()
        except (OSError, ValueError):
            return False
        return True

    def _keep_imports(self, imports: Imports) -> None:
        try:
            self._imports(imports.key)
        except FAULTS:
            self._write(imports.key, packed({"paths": list(imports.paths)}))

    def _read_imports(self, key: str) -> Imports:
        imports = Imports(unpacked(self._read(key))["paths"])
        if imports.key != key:
            raise ValueError
        with suppress(OSError):
            os.utime(self.folder / key)
        return imports

    def _state_of_imports(self, imports: Imports) -> str:
        if imports.key not in self._states:
            self._states[imports.key] = _digest([self._state_of_path(path) for path in imports.paths])
        return self._states[imports.key]

    def _state(self, read: Mapping[str, Any], imports: Imports, environment: Mapping[str, str]) -> str:
        """Put what an answer came from in one word: one for all, which tells no value of a variable."""
        state = [
            self._state_of_imports(imports),
            [self._state_of_path(path) for path in read["paths"]],
            [self._state_of_folder(path) for path in read["folders"]],
            [environment.get(name) for name in read["variables"]],
        ]
        return _digest(state)

    def _changed_since(self, paths: Iterable[str], began: float) -> bool:
        written, changed = (began - JUST_NOW) * 1e9, began * 1e9

        def is_new(path: str) -> bool:
            kind, *times = self._state_of_path(path)[:3]
            return bool(kind == "file" and (times[0] > written or times[1] > changed))

        return any(is_new(path) for path in paths)

    def _read(self, key: str) -> bytes:
        if not _is_private(self.folder):
            raise PermissionError
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        with open(os.open(self.folder / key, flags), "rb") as file:  # noqa: PTH123 - flags
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid():
                raise PermissionError
            return file.read(MOST_ENTRY_BYTES + 1)

    def _write(self, key: str, data: bytes) -> None:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        if not _is_private(self.folder):
            raise PermissionError
        if len(data) > MOST_ENTRY_BYTES:
            raise ValueError
        handle, name = tempfile.mkstemp(prefix=".new-", dir=self.folder)  # 0600
        try:
            with open(handle, "wb") as file:  # noqa: PTH123 - a descriptor
                file.write(data)
            if (self.folder / key).is_dir() and not (self.folder / key).is_symlink():
                # No entry, and it would be in the way for ever.
                shutil.rmtree(self.folder / key)
            Path(name).replace(self.folder / key)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _prune(self) -> None:
        """Remove what was not used for longest, and what a process that died was writing."""
        found: list[tuple[float, int, Path]] = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with suppress(OSError):
                    about = entry.stat(follow_symlinks=False)
                    if not entry.name.startswith(".new-"):
                        found.append((about.st_mtime, about.st_size, Path(entry.path)))
                    elif about.st_mtime < time.time() - 3600:
                        Path(entry.path).unlink()
        found.sort(reverse=True)
        size = 0
        for index, (_, own, path) in enumerate(found):
            size += own
            if index >= MOST_ENTRIES or size > MOST_BYTES:
                with suppress(OSError):
                    path.unlink()


UNSEEN = ("PYTHON", "TZ", "LANG", "LC_")
"""Beginnings of variables that Python itself looks up, past all that looks on."""


class Surroundings:
    """Where configs are resolved: what all requests to one prime-rl have in common, looked up once.

    Args:
        host: prime-rl, with its commit.
    """

    def __init__(self, host: Host) -> None:
        self._host = host

    def key(
        self,
        entrypoint: str,
        arguments: Sequence[str],
        wishes: Mapping[str, Any],
        environment: Mapping[str, str],
    ) -> str | None:
        """Name a request by everything that is known of it without prime-rl.

        Args:
            entrypoint: `rl`, `sft` or `inference`.
            arguments: What is prime-rl's on the command line.
            wishes: What the plugin sets.
            environment: What prime-rl is asked in.

        Returns:
            A word; `None` where a config cannot be read whole.
        """
        try:
            configs = _configs(arguments)
            own = [self._common, os.getcwd(), configs]  # noqa: PTH109 - its text alone
        except (OSError, ValueError):
            return None
        unseen = {name: value for name, value in environment.items() if name.startswith(UNSEEN)}
        return _digest([FORMAT, entrypoint, list(arguments), dict(wishes), unseen, *own])

    @cached_property
    def _common(self) -> list[object]:
        host = self._host
        prefix = host.python.parent.parent
        return [
            *(str(host.python), str(host.python.resolve()), _state_of_path(str(host.python.resolve()))),
            *(_text(prefix / "pyvenv.cfg"), _installed(prefix)),
            *(str(host.directory), host.commit, _changes(host) if host.dirty else None),
            _own_code(),
        ]


def _configs(arguments: Sequence[str]) -> list[list[str]]:
    """Digest every file that a token may name."""
    digests: list[list[str]] = []
    left = MOST_CONFIG_BYTES
    for before, token in zip(["", *arguments], arguments, strict=False):
        if not resolver.is_file(before, token):
            continue
        name = token if before == "@" else token.rpartition("@")[2]
        try:
            with open(os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123
                data = file.read(left + 1) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            data = b""
        if data is None or len(data) > left:
            raise ValueError
        left -= len(data)
        digests.append([token, hashlib.sha256(data).hexdigest()])
    return digests


def _installed(prefix: Path) -> list[object]:
    """List what is in site-packages, and when it was put there.

    Versions are among the names. A package that is installed again in the same version has a new RECORD, and
    what a `.pth` file names is imported from elsewhere.
    """
    folders = sorted(prefix.glob("lib*/python3*/site-packages"))
    found: list[object] = []
    for folder in map(str, folders):
        names = _state_of_folder(folder)
        found.append(names)
        for name in names:
            if name.endswith((".dist-info", ".pth")):
                record = "/RECORD" if name.endswith(".dist-info") else ""
                found.append(_state_of_path(f"{folder}/{name}{record}"))
    return found


def _changes(host: Host) -> list[object]:
    """Say what is changed in a checkout: which files, and their state; not their text, however much it is."""
    status = ["git", "-C", str(host.directory), "status", "--porcelain", "--untracked-files=no", "-z"]
    done = run(status, timeout=30)
    if not done.ok:
        raise ValueError(done.describe())
    names = [line[3:] if line[2:3] == " " else line for line in done.stdout.split("\0")]
    return [done.stdout, [_state_of_path(f"{host.directory}/{name}") for name in names if name]]


def _own_code() -> str:
    """Digest the code of ours that runs in prime-rl's interpreter."""
    files = [Path(resolver.__file__), *sorted(Path(fields.__file__).parent.glob("*.py"))]
    return _digest([[file.name, file.read_text(encoding="utf-8")] for file in files])


def _state_of_path(path: str) -> list[Any]:
    """Tell whether something is there, and of a file which: with its text change inode, size and times.

    Of a link its target counts too. The time of the last change is nobody's to set back. It is left out for a
    file of several names: installers link packages from a store of theirs, and each link changes it.
    """
    link = None
    try:
        about = os.lstat(path)
        if stat.S_ISLNK(about.st_mode):
            link = os.readlink(path)  # noqa: PTH115 - thousands of them
            about = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return ["missing", link]
    if not stat.S_ISREG(about.st_mode):
        return ["other", about.st_mode, link]
    changed = about.st_ctime_ns if about.st_nlink == 1 else 0
    return ["file", about.st_mtime_ns, changed, about.st_size, about.st_ino, link]


def _state_of_folder(path: str) -> list[str]:
    """List a folder's names, but what Python itself puts there."""
    try:
        return sorted(name for name in os.listdir(path) if name != "__pycache__")  # noqa: PTH208
    except (OSError, ValueError):
        return ["", "missing"]


def _is_private(folder: Path) -> bool:
    """Whether a folder is this user's alone: who can write there decides what is submitted."""
    about = folder.lstat()
    return stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid() and not about.st_mode & 0o077


def packed(entry: Mapping[str, Any]) -> bytes:
    """Write an entry: a digest, and what it is of."""
    data = zlib.compress(json.dumps(entry).encode(), 1)
    return hashlib.sha256(data).digest() + data


def unpacked(data: bytes) -> dict[str, Any]:
    """Read an entry; whatever is not whole is none."""
    digest, data = data[:32], data[32:]
    if hashlib.sha256(data).digest() != digest:
        raise ValueError
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(data, MOST_TEXT_BYTES)
    if unpacker.unconsumed_tail:
        raise ValueError
    entry: dict[str, Any] = json.loads(text)
    return entry


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def folder_for(environment: Mapping[str, str] = os.environ) -> Path:
    """The user's folder of resolved configs: under MEDARC_CACHE_DIR, else under the user's cache folder.

    MEDARC_CACHE_DIR may be set for everybody, so that each user has a folder of their own in it. A relative
    path is no valid one, of either: it would be another folder wherever a command is typed.
    """
    place = os.path.expanduser(environment.get("MEDARC_CACHE_DIR") or "")  # noqa: PTH111 - the other raises
    if os.path.isabs(place):  # noqa: PTH117 - may be no path at all
        return Path(place, f"configs-{os.geteuid()}")
    import platformdirs

    folder = platformdirs.user_cache_path("medarc")
    return Path(folder if folder.is_absolute() else Path.home() / ".cache" / "medarc", "configs")
