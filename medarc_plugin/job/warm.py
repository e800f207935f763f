"""The warm copy: what earlier runs of this user have compiled, one tar file for each kind of node.

Compilers keep the absolute paths of their own files, in text and in pickles (`Relocation`). A job's
folder has another name each time, and the same length: so the old name can be replaced by the new
one in any file without moving a byte. In a copy, a word of that length stands for the name, which
makes copies of different jobs alike. torch does the same when it bundles Triton's files
(`torch/_inductor/triton_bundler.py`, `_REPLACE_BYTES`).

A copy is code that runs: it is taken only from a file and a folder that nobody else can write.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import sys
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

FORMAT = 1
"""Part of every key: a later layout of the copies starts with none."""

COMPILERS = ("torch", "triton", "vllm", "flashinfer-python", "tilelang")
"""Packages whose versions make a key; others are covered by the keys that compilers keep themselves."""

RELOCATED = ("triton/", "inductor/", "extensions/", "vllm/", "flashinfer/")
"""Where files hold their own folder's name; others are taken as they are."""

END = ".end"
"""The last member of a copy: how much there is, and its checksum. Without it a copy is torn."""

CHUNK = 1 << 18
STALE_SECONDS = 24 * 3600.0

# Of no use to another run, or harmful there: a lock file that was left behind makes torch's
# extension builder wait for ever (torch/utils/cpp_extension.py, FileBaton); which GPUs reach each
# other and how much memory was free is true of one node (vllm/distributed/device_communicators/
# all_reduce_utils.py, vllm/v1/worker/startup_plan.py).
_LEFT_OUT = re.compile(
    r"(^|/)(locks?|tmp|dummy_cache|startup_plan)/"
    r"|(^|/)(lock|[^/]*\.lock|[^/]*\.tmp|\.end|gpu_p2p_access_cache_for_[^/]*)$"
    r"|(^|/)tmp\.pid_[^/]*/"
)

LIBRARIES = "flashinfer_libraries"
"""Where a copy has the libraries that FlashInfer built, as NAME/NAME.so.

ninja would build them again under another path, because its log holds a hash of each command, with
absolute paths in it (flashinfer/jit/cpp_ext.py, generate_ninja_build_for_op). FlashInfer takes ones
that are built already from the package flashinfer-jit-cache, in this layout (flashinfer/jit/env.py,
_get_aot_dir, and flashinfer/jit/core.py, aot_path): see `caches`, which offers them that way.
"""

_BUILT = re.compile(r"flashinfer/\.cache/flashinfer/[^/]+/[^/]+/(cached_ops|generated)/(.*)")
_LIBRARY = re.compile(r"([^/]+)/\1\.so")


class TornError(Exception):
    """A copy is not whole, or holds what no copy holds."""


class StoppedEarlyError(Exception):
    """The caller had no more time."""


@dataclass(frozen=True)
class Warm:
    """Where the warm copy for this kind of node is.

    Attributes:
        folder: The user's folder of copies.
        key: Name of the copy, without suffix.
        most: Bytes that all copies may take together.
    """

    folder: Path
    key: str
    most: int

    @property
    def path(self) -> Path:
        """The copy's file."""
        return self.folder / f"{self.key}.tar"

    @classmethod
    def find(cls, given: Mapping[str, str], gpu_names: Iterable[str], most: int) -> Warm:
        """Find the copy for this node.

        Args:
            given: The environment as the job found it.
            gpu_names: Product names of the run's GPUs.
            most: Bytes that all copies may take together.
        """
        # What FlashInfer takes from a copy it does not compare with how it would build.
        names = sorted(name for name in given if name.startswith("FLASHINFER_") or name in ("CC", "CXX"))
        wishes = json.dumps([(name, given[name]) for name in names])
        return cls(warm_folder(given), warm_key(gpu_names, flashinfer=wishes), most)


@dataclass(frozen=True)
class Relocation:
    """The name of the compile folder, and the word that stands for it in a copy.

    Attributes:
        folder: The folder, absolute.
    """

    folder: Path

    @property
    def name(self) -> bytes:
        """The folder's name as the compilers write it."""
        return os.fsencode(self.folder)

    @property
    def word(self) -> bytes:
        """What stands for it; of the same length."""
        return b"/the-folder-of-this-job".ljust(len(self.name), b"_")[: len(self.name)]


class Seen(NamedTuple):
    """A file as it was extracted; a tuple, because there are tens of thousands.

    Attributes:
        size: Bytes.
        modified: Time of its last change, in ns.
        checksum: CRC-32 of its content.
    """

    size: int
    modified: int
    checksum: int


@dataclass(frozen=True)
class Seeds:
    """What a folder was seeded with.

    Attributes:
        files: By name below the folder.
        source: What tells the file that it came from: inode and size; `None` when there was none.
    """

    files: Mapping[str, Seen]
    source: tuple[int, int] | None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(seen.size for seen in self.files.values())


def warm_folder(given: Mapping[str, str]) -> Path:
    """The user's folder of warm copies: under MEDARC_CACHE_DIR, else under the user's cache folder.

    MEDARC_CACHE_DIR may be set for everybody, so that each user has a folder of their own in it. A relative
    path is no valid one, as for XDG_CACHE_HOME.
    """
    place = Path(os.path.expanduser(given.get("MEDARC_CACHE_DIR") or ""))  # noqa: PTH111 - the other raises
    if place.is_absolute():
        return place / f"compile-{os.geteuid()}"
    return cache_home(given) / "medarc" / "compile"


def cache_home(given: Mapping[str, str]) -> Path:
    """The user's cache folder, before it is moved.

    A relative path is no valid one (https://specifications.freedesktop.org/basedir-spec).
    """
    named = Path(given.get("XDG_CACHE_HOME") or "")
    if named.is_absolute():
        return named
    return Path(given.get("HOME") or os.path.expanduser("~")) / ".cache"  # noqa: PTH111 - no HOME


def warm_key(gpu_names: Iterable[str], search: Collection[str] | None = None, **more: str) -> str:
    """Name the kind of node and environment that a warm copy is good for.

    Args:
        gpu_names: Product names of the run's GPUs.
        search: Folders to look for packages in; this interpreter's when `None`.
        more: Further facts that what is compiled depends on.

    Returns:
        A word that is the same for the same GPU types, versions of torch, triton, vLLM, FlashInfer,
        TileLang and Python, and prime-rl's environment.
    """
    facts: dict[str, Any] = {
        "format": FORMAT,
        "gpus": sorted(set(gpu_names)),
        "packages": installed(COMPILERS, sys.path if search is None else search),
        "python": sys.version.split()[0],
        "machine": os.uname().machine,
        # vLLM's own keys hold the paths of the files that it traced.
        "prefix": sys.prefix,
        **more,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def installed(names: Collection[str], search: Iterable[str]) -> dict[str, str]:
    """Find the versions of packages by the names of their metadata folders, importing nothing.

    Args:
        names: Packages.
        search: Folders that packages are imported from; the first one that has a package counts.
    """
    found: dict[str, str] = {}
    for folder in search:
        with contextlib.suppress(OSError), os.scandir(folder or ".") as entries:
            for entry in entries:
                name, dash, version = entry.name.partition("-")
                package = re.sub(r"[-_.]+", "-", name).lower()
                if dash and version.endswith(".dist-info") and package in names:
                    found.setdefault(package, version[: -len(".dist-info")])
    return found


def never() -> bool:
    """Whether to stop early: no."""
    return False


def extract(warm: Warm, folder: Path, stopped: Callable[[], bool] = never) -> Seeds:
    """Fill an empty folder from the warm copy.

    Args:
        warm: The copy.
        folder: Where to; its name has the length of every such folder.
        stopped: Asked now and then; when it says so, extraction ends.

    Returns:
        What is there now; nothing where there is no copy.

    Raises:
        TornError: The copy is not whole; it is removed.
        StoppedEarlyError: `stopped` said so.
        OSError: It cannot be read, or there is no room for it.
    """
    try:
        descriptor = _open_own(warm)
    except FileNotFoundError:
        return Seeds({}, None)
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        room = os.statvfs(folder)
        if room.f_bavail * room.f_frsize < 2 * facts.st_size:
            raise OSError(f"{folder} has no room for {facts.st_size >> 20} MiB")
        # What was used last goes last when there are too many.
        with contextlib.suppress(OSError):
            os.utime(descriptor)
        try:
            files = _extracted(file, folder, stopped)
        except TornError:
            _remove_same(warm.path, facts)
            raise
    return Seeds(files, (facts.st_ino, facts.st_size))


def _open_own(warm: Warm) -> int:
    """Open a copy that nobody but this user can have written.

    Raises:
        OSError: There is none, or it is another's.
    """
    _check_own(warm.folder.lstat(), warm.folder, stat.S_ISDIR)
    descriptor = os.open(warm.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        facts = os.fstat(descriptor)
        _check_own(facts, warm.path, stat.S_ISREG)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _check_own(facts: os.stat_result, path: Path, is_kind: Callable[[int], bool]) -> None:
    if not is_kind(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
        raise OSError(f"{path} is another user's, can be written by others, or is something else")


def _remove_same(path: Path, facts: os.stat_result) -> None:
    """Remove a file unless another has taken its place."""
    with contextlib.suppress(OSError):
        if path.lstat().st_ino == facts.st_ino:
            path.unlink()


def _extracted(file: IO[bytes], folder: Path, stopped: Callable[[], bool]) -> dict[str, Seen]:
    relocation = Relocation(folder)
    files: dict[str, Seen] = {}
    made: set[Path] = set()
    with contextlib.closing(_Reader(file)) as copy:
        for member in copy:
            path = folder / _safe_name(member)
            if path.parent not in made:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                made.add(path.parent)
            mode = 0o700 if member.mode & 0o100 else 0o600
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            checksum = 0
            with os.fdopen(os.open(path, flags, mode), "wb") as written:
                for block in replaced(copy.blocks(stopped), relocation.word, relocation.name):
                    checksum = zlib.crc32(block, checksum)
                    written.write(block)
            # Read later than this, it was used: most file systems note the first read after a change.
            modified = int(member.mtime) * 10**9
            os.utime(path, ns=(0, modified))
            files[member.name] = Seen(member.size, modified, checksum)
    return files


def _safe_name(member: tarfile.TarInfo) -> str:
    parts = member.name.split("/")
    if not member.isreg() or not all(parts) or {".", ".."} & set(parts) or "\0" in member.name:
        raise TornError(f"it holds {member.name!r}, which no warm copy does")
    return member.name


class _Reader:
    """Reads a copy from front to end, and knows at the end whether it was whole.

    Args:
        file: The copy, at its beginning.
    """

    def __init__(self, file: IO[bytes]) -> None:
        import tarfile

        self._torn = (tarfile.TarError, EOFError, UnicodeError, ValueError, zlib.error)
        self._file = file
        self._checksum = 0
        self._count = 0
        self._member: tarfile.TarInfo | None = None
        try:
            self._tar = tarfile.open(fileobj=file, mode="r|", bufsize=CHUNK)  # noqa: SIM115
        except self._torn as error:
            raise TornError(str(error)) from error

    def close(self) -> None:
        """End reading; the file stays open."""
        with contextlib.suppress(*self._torn):
            self._tar.close()

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        """Yield the members; `blocks` reads the one that was yielded last.

        Raises:
            TornError: Something is missing, or changed.
        """
        while True:
            try:
                self._member = self._tar.next()
            except self._torn as error:
                raise TornError(str(error)) from error
            # It would keep every member in memory.
            self._tar.members.clear()  # type: ignore[attr-defined]
            if self._member is None:
                raise TornError("its end is missing")
            if self._member.name == END:
                break
            self._count += 1
            yield self._member
        said = b"".join(self.blocks(never))
        if said != _end(self._count, self._checksum):
            raise TornError("its checksum is wrong")

    def blocks(self, stopped: Callable[[], bool]) -> Iterator[bytes]:
        """Yield the content of the member, in blocks.

        Raises:
            TornError: It is shorter than it should be.
            StoppedEarlyError: `stopped` said so.
        """
        member = self._member
        if member is None:
            raise AssertionError("no member was yielded")
        rest = member.size
        if member.name != END:
            self._checksum = zlib.crc32(member.name.encode("utf-8", "surrogateescape"), self._checksum)
        try:
            content = self._tar.extractfile(member)
            while content is not None and rest:
                if stopped():
                    raise StoppedEarlyError
                block = content.read(min(CHUNK, rest))
                if not block:
                    raise TornError(f"{member.name} is cut short")
                rest -= len(block)
                if member.name != END:
                    self._checksum = zlib.crc32(block, self._checksum)
                yield block
        except self._torn as error:
            raise TornError(str(error)) from error


def _end(count: int, checksum: int) -> bytes:
    return json.dumps({"files": count, "crc32": checksum}).encode()


def replaced(blocks: Iterable[bytes], old: bytes, new: bytes) -> Iterator[bytes]:
    """Replace a word in a stream, also where it lies across two blocks.

    Args:
        blocks: The stream.
        old: The word.
        new: What takes its place; of the same length.
    """
    keep = len(old) - 1
    rest = b""
    for block in blocks:
        data = (rest + block).replace(old, new)
        cut = max(0, len(data) - keep)
        yield data[:cut]
        rest = data[cut:]
    yield rest


def give_back(warm: Warm, folder: Path, seeds: Seeds, stopped: Callable[[], bool] = never) -> str:
    """Replace the warm copy by what a folder holds now.

    What another run has given back meanwhile stays in it. A copy that would grow beyond its limit
    keeps what this run has used, and loses the rest.

    Args:
        warm: The copy.
        folder: Where this run's caches were.
        seeds: What the folder was seeded with.
        stopped: Asked now and then; when it says so, the copy stays as it was.

    Returns:
        What was done, in a few words.

    Raises:
        StoppedEarlyError: `stopped` said so.
        OSError: The copy cannot be written.
    """
    files = dict(_listing(folder))
    changed = {name for name, found in files.items() if _is_changed(name, found, seeds)}
    if not changed and (not files or warm.path.exists()):
        return "nothing new was compiled"
    kept = files
    if _total(files) > warm.most:
        kept = _used(files, changed)
    if _total(kept) > warm.most:
        return (
            f"not given back: {_total(kept) >> 20} MiB are more than the {warm.most >> 20} MiB of "
            "--warm-cache-size"
        )
    _make_own(warm.folder)
    draft = warm.folder / f".{warm.key}-{os.urandom(6).hex()}"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
            writer = _Writer(file)
            for name in sorted(kept):
                writer.add_file(folder, name, kept[name].path, stopped)
            _merge(writer, warm, seeds, kept, stopped)
            writer.finish()
            file.flush()
            os.fsync(file.fileno())
        draft.replace(warm.path)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()
    _prune(warm)
    return f"{len(changed)} new of {len(kept)} files given back ({_total(kept) >> 20} MiB)"


class Found(NamedTuple):
    """A file that belongs in a copy.

    Attributes:
        path: Where it is.
        size: Bytes.
        modified: Time of its last change, in ns.
        used: Whether it was read since it was seeded, or was not seeded at all.
    """

    path: str
    size: int
    modified: int
    used: bool


def _listing(folder: Path, below: str = "") -> Iterator[tuple[str, Found]]:
    """Yield the files of a folder that belong in a copy, by their names there."""
    with os.scandir(folder / below) as entries:
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            try:
                facts = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISDIR(facts.st_mode):
                if not _LEFT_OUT.search(f"{path}/"):
                    yield from _listing(folder, path)
            elif stat.S_ISREG(facts.st_mode):
                name = _name_in_copy(path)
                if name is not None:
                    yield name, Found(entry.path, facts.st_size, facts.st_mtime_ns, facts.st_atime_ns > 0)


def _name_in_copy(path: str) -> str | None:
    """The name that a file has in a copy; `None` for one that has no place there."""
    if _LEFT_OUT.search(path):
        return None
    built = _BUILT.fullmatch(path)
    if built is None:
        return path
    is_library = built[1] == "cached_ops" and _LIBRARY.fullmatch(built[2])
    return f"{LIBRARIES}/{built[2]}" if is_library else None


def _is_changed(name: str, found: Found, seeds: Seeds) -> bool:
    """Whether a file is new or holds something else; one that was written again may not."""
    seen = seeds.files.get(name)
    if seen is None or seen.size != found.size:
        return True
    if seen.modified == found.modified:
        return False
    checksum = 0
    with open(found.path, "rb") as file:  # noqa: PTH123 - a name as the folder has it
        for block in iter(lambda: file.read(CHUNK), b""):
            checksum = zlib.crc32(block, checksum)
    return checksum != seen.checksum


def _total(files: Mapping[str, Found]) -> int:
    return sum(found.size for found in files.values())


def _used(files: Mapping[str, Found], changed: Collection[str]) -> dict[str, Found]:
    """The folders with a file that this run has read or written; what lies together is used together."""
    used = (name for name, found in files.items() if name in changed or found.used)
    folders = {name.rpartition("/")[0] for name in used}
    return {name: found for name, found in files.items() if name.rpartition("/")[0] in folders}


def _make_own(folder: Path) -> None:
    """Make the user's folder of copies, or make sure that it is theirs alone.

    Raises:
        OSError: It cannot be made, or is another's.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid():
        raise OSError(f"{folder} is not a folder of this user")
    if facts.st_mode & 0o077:
        folder.chmod(0o700)


def _merge(
    writer: _Writer, warm: Warm, seeds: Seeds, kept: Collection[str], stopped: Callable[[], bool]
) -> None:
    """Take over what another run has given back since this one was seeded, as far as there is room."""
    try:
        descriptor = _open_own(warm)
    except OSError:
        return
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if (facts.st_ino, facts.st_size) == seeds.source or writer.size + facts.st_size > warm.most:
            return
        mark = writer.mark()
        try:
            with contextlib.closing(_Reader(file)) as copy:
                for member in copy:
                    blocks = copy.blocks(stopped)
                    if _safe_name(member) in kept:
                        for _ in blocks:
                            pass
                    else:
                        writer.add(member.name, member.mode, int(member.mtime), member.size, blocks)
        except TornError:
            writer.back_to(mark)


class _Writer:
    """Writes a copy.

    Args:
        file: An empty file.
    """

    def __init__(self, file: IO[bytes]) -> None:
        import tarfile

        self._tarfile = tarfile
        self._file = file
        self._checksum = 0
        self._count = 0

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._file.tell()

    def mark(self) -> tuple[int, int, int]:
        """Where it stands, for `back_to`."""
        return self._file.tell(), self._count, self._checksum

    def back_to(self, mark: tuple[int, int, int]) -> None:
        """Take back all that was written since."""
        place, self._count, self._checksum = mark
        self._file.seek(place)
        self._file.truncate()

    def add_file(self, folder: Path, name: str, path: str, stopped: Callable[[], bool]) -> None:
        """Write a file of the folder, with the word in place of the folder's name."""
        relocation = Relocation(folder)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            facts = os.fstat(descriptor)
            blocks = _read(file, stopped)
            if name.startswith(RELOCATED) and not _is_sealed(file):
                blocks = replaced(blocks, relocation.name, relocation.word)
            self.add(name, facts.st_mode, int(facts.st_mtime), facts.st_size, blocks)

    def add(self, name: str, mode: int, modified: int, size: int, blocks: Iterable[bytes]) -> None:
        """Write a file.

        Args:
            name: Its name below the folder.
            mode: Its permissions, of which only the owner's right to run it is kept.
            modified: Time of its last change, in s: builds compare those of their files.
            size: Bytes that the blocks must come to.
            blocks: Its content.

        Raises:
            OSError: It cannot be written, or is of another size.
        """
        self._header(name, mode, modified, size)
        self._checksum = zlib.crc32(name.encode("utf-8", "surrogateescape"), self._checksum)
        self._count += 1
        written = 0
        for block in blocks:
            self._checksum = zlib.crc32(block, self._checksum)
            self._file.write(block)
            written += len(block)
        if written != size:
            raise OSError(f"{name} changed while it was read")
        self._pad(size)

    def finish(self) -> None:
        """Write the end."""
        said = _end(self._count, self._checksum)
        self._header(END, 0o600, 0, len(said))
        self._file.write(said)
        self._pad(len(said))
        self._file.write(b"\0" * (2 * self._tarfile.BLOCKSIZE))

    def _header(self, name: str, mode: int, modified: int, size: int) -> None:
        member = self._tarfile.TarInfo(name)
        member.size, member.mtime = size, modified
        member.mode = 0o700 if mode & 0o100 else 0o600
        self._file.write(member.tobuf(self._tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))

    def _pad(self, size: int) -> None:
        self._file.write(b"\0" * (-size % self._tarfile.BLOCKSIZE))


def _is_sealed(file: IO[bytes]) -> bool:
    """Whether a file begins with the CRC-32 of its rest.

    torch's portable artifacts do (torch/utils/_appending_byte_serializer.py), and are refused when
    it is wrong. They need no relocation: torch writes them out anew where they are loaded.
    """
    said = file.read(4)
    checksum = 0
    for block in iter(lambda: file.read(CHUNK), b""):
        checksum = zlib.crc32(block, checksum)
    file.seek(0)
    return len(said) == 4 and int.from_bytes(said, "big") == checksum  # noqa: PLR2004


def _read(file: IO[bytes], stopped: Callable[[], bool]) -> Iterator[bytes]:
    for block in iter(lambda: file.read(CHUNK), b""):
        if stopped():
            raise StoppedEarlyError
        yield block


def _prune(warm: Warm) -> None:
    """Remove the copies used longest ago until the rest keeps the limit, and what crashed runs left."""
    with contextlib.suppress(OSError):
        drafts = [path for path in warm.folder.iterdir() if path.name.startswith(".")]
        for path in drafts:
            if path.lstat().st_mtime < time.time() - STALE_SECONDS:
                path.unlink()
        copies = [path for path in warm.folder.glob("*.tar") if path != warm.path]
        facts = {path: path.lstat() for path in copies}
        room = warm.most - warm.path.lstat().st_size
        for path in sorted(copies, key=lambda path: -facts[path].st_mtime):
            room -= facts[path].st_size
            if room < 0:
                path.unlink()
