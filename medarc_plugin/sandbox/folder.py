"""The sandbox's folder: whose it is, what may be in it, its record, its lock, its short path.

Everything of a sandbox lies in one folder. SLURM and munge also need a path that is short (for
sockets), has no spaces (slurm.conf) and that everybody may search (munge): a folder of ours under
/tmp holds a link to the real one and munge's socket, and nothing else.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medarc_plugin.errors import SandboxError
from medarc_plugin.sandbox.gpus import Gpu
from medarc_plugin.sandbox.processes import wait_until
from medarc_plugin.sandbox.spec import SandboxSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT = 1
RECORD = "sandbox.json"
LOCK = "lock"
SUBFOLDERS = ("gpu", "log", "munge", "run", "spool", "state")
CONFIGURATION = ("slurm.conf", "gres.conf", "cgroup.conf")
OURS = frozenset({*SUBFOLDERS, *CONFIGURATION, RECORD, LOCK, ".gitignore"})

_LOCK_SECONDS = 60.0
_SHORT_PREFIX = "slurm-sandbox-"
_SHORT_PARENTS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108  mkdtemp makes what is used there
_LINK = "d"
_ANOTHER = "choose another folder with --dir"


@dataclass(frozen=True)
class Record:
    """What was decided when the sandbox was first started, and holds until it is taken down.

    Attributes:
        spec: What was asked for.
        short: The folder under /tmp.
        ports: slurmctld's port, then each node's.
        version: SLURM's version, `(22, 5)`.
        gpus: Every GPU of every node.
        loopback_only: Whether SLURM can be told to listen on 127.0.0.1 alone.
    """

    spec: SandboxSpec
    short: Path
    ports: tuple[int, ...]
    version: tuple[int, int]
    gpus: tuple[Gpu, ...]
    loopback_only: bool

    @property
    def root(self) -> str:
        """The short path of the sandbox's folder."""
        return f"{self.short}/{_LINK}"

    @property
    def munge_socket(self) -> str:
        """Path of munged's socket."""
        return f"{self.short}/munge.socket"


class DamagedRecordError(SandboxError):
    """The record is there and cannot be read."""


def check(directory: Path) -> bool:
    """Make sure that a folder is a sandbox, or could become one.

    Args:
        directory: The folder; it need not exist.

    Returns:
        Whether there is a sandbox in it, if only what is left of one.

    Raises:
        SandboxError: It is a file, somebody else's, or holds other things.
    """
    try:
        owner = directory.stat().st_uid
        names = {entry.name for entry in directory.iterdir()}
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        raise SandboxError(f"{directory} is not a folder", hint=_ANOTHER) from None
    except OSError as error:
        raise SandboxError(
            f"the folder {directory} cannot be read: {error.strerror}", hint=_ANOTHER
        ) from error
    if owner != os.geteuid():
        raise SandboxError(
            f"the folder {directory} belongs to user id {owner}, and you are {os.geteuid()}",
            hint=_ANOTHER,
        )
    if RECORD in names:
        return True
    if others := names - {LOCK, ".gitignore", f"{RECORD}.new"}:
        raise SandboxError(
            f"the folder {directory} holds something else than a sandbox: {', '.join(sorted(others)[:5])}",
            hint=_ANOTHER,
        )
    return bool(names)


@contextmanager
def locked(directory: Path, *, create: bool) -> Iterator[bool]:
    """Hold the folder's lock, so that of two commands at once the second waits.

    Args:
        directory: The folder.
        create: Whether to make it when it does not exist.

    Yields:
        Whether there is a folder; without one nothing is locked.

    Raises:
        SandboxError: The folder cannot be made or written, or somebody holds the lock for long.
    """
    descriptor = _acquire(directory, create=create)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def make(directory: Path) -> None:
    """Make what is missing of the folder's inner structure, and see that it is of use.

    Raises:
        SandboxError: It cannot be written, or its file system knows no sockets.
    """
    try:
        for name in SUBFOLDERS:
            (directory / name).mkdir(exist_ok=True)
        # The daemons' states and logs are private; munge wants its own folder closed as well.
        for name in ("log", "munge", "run", "spool", "state"):
            (directory / name).chmod(0o700)
        write(directory / ".gitignore", "*\n")
        _try_socket(directory)
    except OSError as error:
        raise SandboxError(
            f"the folder {directory} cannot hold a sandbox: {error.strerror}",
            hint=f"{_ANOTHER}, on a local file system",
        ) from error


def write(file: Path, text: str) -> None:
    """Write a file whole or not at all, and only when it changes."""
    if file.is_file() and file.read_text(encoding="utf-8") == text:
        return
    new = file.with_name(f"{file.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(file)


def save(directory: Path, record: Record) -> None:
    """Write the record.

    Raises:
        SandboxError: The folder cannot be written.
    """
    values = {
        "format": FORMAT,
        "about": "a private SLURM for trying and testing; `medarc_slurm sandbox down` removes it",
        "short": str(record.short),
        "ports": record.ports,
        "version": record.version,
        "loopback_only": record.loopback_only,
        "gpus": [asdict(gpu) for gpu in record.gpus],
        "spec": record.spec.to_dict(),
    }
    try:
        write(directory / RECORD, json.dumps(values, indent=2) + "\n")
    except OSError as error:
        raise SandboxError(
            f"{directory / RECORD} cannot be written: {error.strerror}", hint=_ANOTHER
        ) from error


def load(directory: Path) -> Record | None:
    """Read the record.

    Returns:
        The record; `None` when there is none.

    Raises:
        DamagedRecordError: It cannot be understood.
        SandboxError: It is of a newer format.
    """
    file = directory / RECORD
    try:
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if values["format"] > FORMAT:
            raise SandboxError(
                f"{file} has format {values['format']}, and this version knows up to {FORMAT}",
                hint="use the version of medarc_plugin that made it, or another folder with --dir",
            )
        major, minor = values["version"]
        return Record(
            spec=SandboxSpec.from_dict(values["spec"]),
            short=Path(values["short"]),
            ports=tuple(int(port) for port in values["ports"]),
            version=(int(major), int(minor)),
            gpus=tuple(Gpu(**gpu) for gpu in values["gpus"]),
            loopback_only=bool(values["loopback_only"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedRecordError(
            f"{file} is damaged ({error})",
            hint=f"`medarc_slurm sandbox down --dir {directory}` clears what is left of it",
        ) from error


def new_short() -> Path:
    """Make a folder with a short path that nobody can guess.

    Raises:
        SandboxError: None can be made.
    """
    for parent in _SHORT_PARENTS:
        try:
            short = Path(tempfile.mkdtemp(prefix=_SHORT_PREFIX, dir=parent))
        except OSError:
            continue
        short.chmod(0o755)  # munge refuses a socket that others cannot reach
        return short
    raise SandboxError(
        f"no folder can be made under {', '.join(_SHORT_PARENTS)}",
        hint="SLURM needs a short path for its sockets: make /tmp writable",
    )


def point(short: Path, directory: Path) -> bool:
    """Make the short path lead to the folder again, after a reboot or a move of the folder.

    Args:
        short: The folder under /tmp, as recorded.
        directory: The sandbox's folder.

    Returns:
        Whether it does now; not when the short path is another's: of the sandbox that this one is
        a copy of, or of whoever took the name meanwhile.
    """
    link = short / _LINK
    try:
        short.mkdir(mode=0o755, exist_ok=True)
        short.chmod(0o755)
        if short.is_symlink() or short.stat().st_uid != os.geteuid():
            return False
        if link.is_symlink():
            if _same(link, directory):
                return True
            if (link / RECORD).exists():
                return False
            link.unlink()
        link.symlink_to(directory)
    except OSError:
        return False
    return True


def leads_to(short: Path, directory: Path) -> bool:
    """Whether a short path is this folder's own: it leads there, or nowhere at all."""
    link = short / _LINK
    return _same(link, directory) or not (link / RECORD).exists()


def shorts_of(directory: Path) -> list[Path]:
    """Find this user's short paths that lead to a folder, or led there before it was deleted."""
    return [
        short
        for parent in _SHORT_PARENTS
        for short in Path(parent).glob(f"{_SHORT_PREFIX}*")
        if _led_to(short, directory)
    ]


def remove_short(short: Path) -> None:
    """Remove a folder under /tmp, if it is one of ours."""
    if short.name.startswith(_SHORT_PREFIX) and short.is_dir() and not short.is_symlink():
        shutil.rmtree(short, ignore_errors=True)


def clear(directory: Path, names: frozenset[str] = OURS) -> None:
    """Remove the sandbox's own files, and nothing else.

    Args:
        directory: The folder.
        names: What to remove in it.

    Raises:
        SandboxError: Something cannot be removed.
    """
    for entry in directory.iterdir():
        if entry.name.removesuffix(".new") not in names:
            continue
        try:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        except OSError as error:
            raise SandboxError(
                f"{error.filename or entry} cannot be removed: {error.strerror}",
                hint=f"remove {directory} by hand",
            ) from error


def remove(directory: Path) -> None:
    """Remove the sandbox's files, its lock last, and the folder.

    Raises:
        SandboxError: The folder holds files of others, or something cannot be removed.
    """
    clear(directory, OURS - {LOCK})
    others = sorted(entry.name for entry in directory.iterdir() if entry.name != LOCK)
    (directory / LOCK).unlink(missing_ok=True)
    if others:
        raise SandboxError(
            f"the sandbox is down and its own files are gone, but {directory} still holds "
            f"{', '.join(others[:5])}",
            hint="these are not the sandbox's: move them away, then remove the folder",
        )
    directory.rmdir()


def _acquire(directory: Path, *, create: bool) -> int | None:
    opened: list[int] = []
    failures: list[OSError] = []

    def attempt() -> bool:
        try:
            if create:
                directory.mkdir(parents=True, exist_ok=True, mode=0o755)
            elif not directory.is_dir():
                return True
        except OSError as error:
            failures.append(error)
            return True
        try:
            descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            return False  # a `down` removed the folder between the two steps
        except OSError as error:
            failures.append(error)
            return True
        return _lock(descriptor, directory / LOCK, opened, failures)

    if not wait_until(attempt, _LOCK_SECONDS):
        raise SandboxError(
            f"another command has been starting or stopping the sandbox in {directory} for "
            f"{_LOCK_SECONDS:g} s",
            hint="wait for it, or end it",
        )
    if failures:
        raise SandboxError(
            f"the folder {directory} cannot be written: {failures[0].strerror}", hint=_ANOTHER
        ) from failures[0]
    return opened[0] if opened else None


def _lock(descriptor: int, file: Path, opened: list[int], failures: list[OSError]) -> bool:
    """Try to take the lock; what was opened is kept in `opened` or closed again."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The holder before may have removed the file: then this lock is on a file without a name.
        if os.path.samestat(os.fstat(descriptor), file.stat()):
            opened.append(descriptor)
            return True
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError as error:
        os.close(descriptor)
        failures.append(error)
        return True
    os.close(descriptor)
    return False


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _led_to(short: Path, directory: Path) -> bool:
    link = short / _LINK
    try:
        if short.lstat().st_uid != os.geteuid():
            return False
        target = os.readlink(link)  # noqa: PTH115  text, not a path
    except OSError:
        return False
    return _same(link, directory) or (target == str(directory) and not directory.exists())


def _try_socket(directory: Path) -> None:
    """Bind a socket as slurmstepd will; through a descriptor, since the path may be long."""
    folder = os.open(directory / "run", os.O_RDONLY | os.O_DIRECTORY)
    path = f"/proc/self/fd/{folder}/try"
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.bind(path)
        os.unlink(path)  # noqa: PTH108  not a path but a descriptor's entry
    finally:
        os.close(folder)
