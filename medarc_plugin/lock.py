"""One launch at a time in a run directory, also where files cannot be locked.

Two things hold it. A lock of the kernel's (flock), which sbatch inherits: it is held until sbatch has ended
too, whatever becomes of this process. And a file that names who holds it, made so that of two makers one
fails: it holds where locks are missing or reach no further than one machine, as on some network file systems.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import os
import socket
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from medarc_plugin import json_text
from medarc_plugin.errors import RunDirectoryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

WAIT_SECONDS = 120.0
"""For how long a second launch waits for the first."""

POLL_SECONDS = 0.1

LOCK, OWNER = "lock", "lock.owner"
"""Names of the two files."""


@dataclass(frozen=True)
class Owner:
    """Who holds a run directory.

    Attributes:
        host: The machine's name.
        boot: Its boot and the process namespace there.
        process: The process id.
        start: When that process started, in clock ticks since the boot.
        since: When it took hold, UTC, ISO 8601.
        foreground: It holds on until the run is over.
    """

    host: str
    boot: str
    process: int
    start: str
    since: str
    foreground: bool = False

    @property
    def words(self) -> str:
        """Who it is, for a message."""
        doing = "a run in the foreground" if self.foreground else "another launch"
        return f"{doing} (process {self.process} on {self.host}, since {self.since})"

    @property
    def is_dead(self) -> bool:
        """Whether its process is known to be gone: only this machine's can be seen."""
        boot = _boot()
        if self.host != socket.gethostname() or not (self.boot and boot):
            return False
        if self.boot == boot:
            return _start_of(self.process) != self.start
        # Another boot of this machine ended it; another process namespace may hide it.
        return self.boot.partition("/")[0] != boot.partition("/")[0]


def myself(*, foreground: bool = False) -> Owner:
    """This process."""
    process = os.getpid()
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return Owner(socket.gethostname(), _boot(), process, _start_of(process), since, foreground)


@contextlib.contextmanager
def held(
    folder: Path, say: Callable[[str], None], *, foreground: bool = False, seconds: float | None = None
) -> Iterator[int | None]:
    """Hold a folder against everybody else who does.

    What is made for that goes again when its holder fails and has written nothing.

    Args:
        folder: The folder.
        say: Told, once, that another one is waited for.
        foreground: It will be held until a run is over; nobody waits for that.
        seconds: How long to wait for another one at most; `None` for `WAIT_SECONDS`.

    Yields:
        The descriptor to be inherited by what must have ended before the next one may begin; `None` where
        files cannot be locked.

    Raises:
        RunDirectoryError: Another one holds it, or it cannot be written.
    """
    waiting = _Waiting(folder, say, WAIT_SECONDS if seconds is None else seconds)
    mine = myself(foreground=foreground)
    made: list[Path] = []
    try:
        made += make_folder(folder)
        handle, locked = _open_lock(folder / LOCK, waiting)
    except OSError as error:
        remove_folders(made)
        raise _unwritable(folder, error) from None
    with handle:
        try:
            _sign(folder / OWNER, mine, waiting)
        except OSError as error:
            raise _unwritable(folder, error) from None
        try:
            yield handle.fileno() if locked else None
        except BaseException:
            _unsign(folder / OWNER, mine)
            if made and os.listdir(folder) == [LOCK]:  # noqa: PTH208 - names alone
                (folder / LOCK).unlink()
                remove_folders(made)
            raise
        else:
            _unsign(folder / OWNER, mine)


def make_folder(folder: Path) -> list[Path]:
    """Make a folder, and list what had to be made, from the innermost out."""
    missing = list(itertools.takewhile(lambda place: not place.exists(), (folder, *folder.parents)))
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def remove_folders(folders: Iterable[Path]) -> None:
    """Remove folders that were made for nothing, as far as nobody else has put anything there."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


class _Waiting:
    """The wait for another one, bounded and said once."""

    def __init__(self, folder: Path, say: Callable[[str], None], seconds: float) -> None:
        self._folder = folder
        self._say = say
        self._seconds = seconds
        self._end: float | None = None

    def go_on(self) -> None:
        """Wait a moment.

        Raises:
            RunDirectoryError: It has been long enough.
        """
        owner = _read(self._folder / OWNER)
        who = owner.words if owner else "another launch"
        where = self._folder.parent.parent
        if owner is not None and owner.foreground and not owner.is_dead:
            raise RunDirectoryError(
                f"{who} is at work in {where}", hint="wait until it is over, or choose another --output-dir"
            )
        if self._end is None:
            self._end = time.monotonic() + self._seconds
            self._say(f"{who} is at work in {where}: waiting for it, up to {self._seconds:g} s")
        if time.monotonic() > self._end:
            raise RunDirectoryError(f"{who} is still at work in {where}", hint=self._way_out(owner))
        time.sleep(POLL_SECONDS)

    def _way_out(self, owner: Owner | None) -> str:
        path = self._folder / OWNER
        if not path.exists() or (owner is not None and owner.host == socket.gethostname()):
            return "wait until it is done"
        where = f" on {owner.host}" if owner else ""
        return f"wait until it is done; if there is no such process{where} any more, delete {path}"


def _open_lock(path: Path, waiting: _Waiting) -> tuple[IO[str], bool]:
    """Open and lock a file, and say whether it could be locked.

    Anew when it went meanwhile: a launch that fails takes its lock away.

    Raises:
        OSError: It cannot be opened.
    """
    while True:
        handle = path.open("a")
        try:
            locked = _lock(handle)
            if locked is False or (locked and _is_at(handle, path)):
                return handle, locked
        except BaseException:
            handle.close()
            raise
        handle.close()
        if locked is None:
            waiting.go_on()


def _lock(handle: IO[str]) -> bool | None:
    """Take the kernel's lock; `None` when another one has it, `False` where there is none."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError:
        return False
    return True


def _is_at(handle: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _sign(path: Path, mine: Owner, waiting: _Waiting) -> None:
    """Make the file that names the holder, once nobody else is named there.

    Raises:
        OSError: It cannot be made.
    """
    draft = path.with_name(f".{path.name}-{mine.host}-{mine.process}")
    try:
        draft.write_text(json.dumps(asdict(mine)) + "\n", encoding="utf-8")
        while not _appears(draft, path):
            other = _read(path)
            if other is not None and other.is_dead:
                _set_aside(path, other)
            elif path.exists():
                waiting.go_on()
    finally:
        draft.unlink(missing_ok=True)


def _appears(draft: Path, path: Path) -> bool:
    """Let a file appear under its name, whole; not where there is one already."""
    try:
        os.link(draft, path)
    except FileExistsError:
        # NFS may say so of a link that it has just made.
        return draft.stat().st_nlink > 1
    except OSError:
        # No hard links here.
        try:
            with path.open("x", encoding="utf-8") as handle:
                handle.write(draft.read_text(encoding="utf-8"))
        except FileExistsError:
            return False
    return True


def _set_aside(path: Path, dead: Owner) -> None:
    """Take away what a dead one left, and nothing that a live one has put there meanwhile."""
    aside = path.with_name(f".{path.name}-left-{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        if _read(aside) != dead:
            _appears(aside, path)
        aside.unlink(missing_ok=True)


def _unsign(path: Path, mine: Owner) -> None:
    with contextlib.suppress(OSError):
        if _read(path) == mine:
            path.unlink()


def _read(path: Path) -> Owner | None:
    """Read who holds a folder; `None` when nobody does, or that cannot be read."""
    try:
        document: Any = json_text.parse(path.read_text(encoding="utf-8"))
        owner = Owner(**{name: document[name] for name in Owner.__dataclass_fields__})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    kinds = (owner.host, owner.boot, owner.start, owner.since)
    if isinstance(owner.process, int) and all(isinstance(value, str) for value in kinds):
        return replace(owner, foreground=bool(owner.foreground))
    return None


def _unwritable(folder: Path, error: OSError) -> RunDirectoryError:
    # Elsewhere the run of a launch that was cut off here would be a second one.
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    hint = "free some space, then run the same command again" if full else "choose another --output-dir"
    return RunDirectoryError(f"{folder} cannot be written: {error.strerror}", hint=hint)


def _start_of(process: int) -> str:
    """When a process started, in clock ticks since the boot; empty when it is gone."""
    try:
        stat = Path("/proc", str(process), "stat").read_bytes()
    except OSError:
        return ""
    # The name may hold spaces and brackets; behind it come the state and, as the 20th, the start.
    fields = stat.rpartition(b")")[2].split()
    return "" if not fields or fields[0] in {b"Z", b"X"} else fields[19].decode()


def _boot() -> str:
    """Name this machine's boot and this process's view of its processes."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    return ""
