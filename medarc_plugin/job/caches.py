"""The job's own caches: one folder on this node, for this attempt alone, gone at its end.

Each variable below was looked up in the program that reads it (versions of prime-rl's lock):

| variable | read by | where |
|---|---|---|
| TMPDIR | Python, and vLLM's sockets | `tempfile`; vllm/utils/network_utils.py, get_open_zmq_ipc_path |
| XDG_CACHE_HOME | W&B, matplotlib, outlines, ... | https://specifications.freedesktop.org/basedir-spec |
| TRITON_CACHE_DIR | Triton | triton/knobs.py, cache_knobs |
| TORCHINDUCTOR_CACHE_DIR | torch.compile | torch/_inductor/runtime/cache_dir_utils.py |
| TORCH_EXTENSIONS_DIR | torch's extension builder | torch/utils/cpp_extension.py |
| VLLM_CACHE_ROOT | vLLM | vllm/envs.py |
| FLASHINFER_WORKSPACE_BASE | FlashInfer, in `.cache/flashinfer` below | flashinfer/jit/env.py |
| TILELANG_CACHE_DIR | TileLang | tilelang/env.py |
| DG_JIT_CACHE_DIR | DeepGEMM | vllm/utils/deep_gemm.py |
| CUTE_DSL_CACHE_DIR | CUTLASS' DSL | cutlass/base_dsl/cache_helpers.py |
| FLASH_ATTENTION_CUTE_DSL_CACHE_DIR | FlashAttention | vllm/vllm_flash_attn/cute/cache_utils.py |
| NUMBA_CACHE_DIR | Numba | https://numba.readthedocs.io/en/stable/reference/envvars.html |
| CUDA_CACHE_PATH | the CUDA driver | CUDA C++ Programming Guide, CUDA environment variables |
| HF_DATASETS_CACHE, HF_MODULES_CACHE | datasets, transformers | datasets/config.py |

Three things stay where the user has them. Downloads are large, and their caches are made for many
users at once: the Hugging Face hub's models (HF_HOME, with the token beside them), and what uv, pip
and torch.hub have fetched. Data sets that are prepared already are linked into the job's own folder,
because `datasets` finds them there alone when the hub cannot be reached.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import stat
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .warm import (
    LIBRARIES,
    Seeds,
    StoppedEarlyError,
    TornError,
    Warm,
    cache_home,
    extract,
    give_back,
    installed,
    never,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from .log import Log

NICENESS = 10
"""Of the process that gives back while the run goes on (nice(2))."""

LONGEST_TEMPORARY = 70
"""Characters of TMPDIR: a socket's path has 107 at most (unix(7)), and vLLM puts 37 behind it."""

COMPILE_LENGTH = 96
"""Characters of the folder of compile caches, always: see `warm`."""

NOT_USED = "/nonexistent"
"""A path that is nobody's."""

COMPILED = {
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TORCH_EXTENSIONS_DIR": "extensions",
    "VLLM_CACHE_ROOT": "vllm",
    "FLASHINFER_WORKSPACE_BASE": "flashinfer",
    "TILELANG_CACHE_DIR": "tilelang",
    "DG_JIT_CACHE_DIR": "deep_gemm",
    "CUTE_DSL_CACHE_DIR": "cute",
    "FLASH_ATTENTION_CUTE_DSL_CACHE_DIR": "flash_attention",
    "NUMBA_CACHE_DIR": "numba",
    "CUDA_CACHE_PATH": "cuda",
}
"""What is compiled, and therefore in the warm copy: variable, and name in the folder."""

DOWNLOADS = ("uv", "pip", "torch")
"""Folders of the user's cache folder that the job's own one leads to."""

FLASHINFER_PACKAGE = """\
# FlashInfer asks this package for libraries that are built already; they come from the warm copy.
from flashinfer.version import __version__

def get_jit_cache_dir():
    return {folder!r}
"""

MOST_LINKS = 10_000
"""Files of prepared data sets that are linked; with more, the data sets stay where they are."""

OWNER = "owner"
STALE_SECONDS = 3600.0

_NAME = re.compile(r"medarc-[0-9a-f]{8}")
_UNFINISHED = re.compile(r"\.medarc-[0-9a-f]{8}")


class CachesError(Exception):
    """There is no place for the job's caches; carries what to do about it.

    Args:
        message: What was tried, and why it could not be used.
        hint: The way out.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass
class Caches:
    """The caches of one attempt.

    Attributes:
        root: Their folder on this node.
        variables: What prime-rl's environment needs for them.
        remarks: Sentences for the log: what was seeded, and what could not be.
        warm: The warm copy; `None` to begin and end without one.
        seeds: What was seeded from it.
        lock: Descriptor that holds the folder; no child has it.
    """

    root: Path
    variables: Mapping[str, str]
    lock: int
    warm: Warm | None = None
    seeds: Seeds = field(default_factory=lambda: Seeds({}, None))
    remarks: list[str] = field(default_factory=list)

    def give_back(self, stopped: Callable[[], bool] = never) -> str | None:
        """Replace the warm copy by what was compiled. For a run that ended well.

        Args:
            stopped: Asked now and then; when it says so, the copy stays as it was.

        Returns:
            What came of it, for the log; `None` when there is no warm copy to be.
        """
        if self.warm is None:
            return None
        began = time.monotonic()
        try:
            said = give_back(self.warm, compile_folder(self.root), self.seeds, stopped)
        except StoppedEarlyError:
            said = "not given back: a signal to stop arrived"
        except Exception as error:
            said = f"not given back: {error}"
        return f"compile caches: {said}, in {time.monotonic() - began:.1f} s"

    def give_back_beside(self, log: Log) -> None:
        """Give back in a process beside this one, which goes on; what came of it is said there.

        Args:
            log: The job's own lines.
        """
        try:
            pid = os.fork()
        except OSError as error:
            log.say(f"compile caches: not given back: {error}")
            return
        if pid:
            return  # reaped with whatever else ends below this process
        code = 1
        try:
            # A signal ends it: the copy is replaced in one step, or stays as it was.
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.setpgid(0, 0)
            os.nice(NICENESS)
            said = self.give_back()
            if said:
                log.say(said)
            code = 0
        finally:
            os._exit(code)

    def remove(self) -> str | None:
        """Remove everything.

        Returns:
            What is left all the same, for the log; `None` when nothing is.
        """
        left = None if _removed(self.root) else f"{self.root} could not be removed"
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1
        return left


def make(
    given: Mapping[str, str],
    warm: Warm | None = None,
    kept: Collection[str] = (),
    stopped: Callable[[], bool] = never,
) -> Caches:
    """Make the caches of this attempt.

    Args:
        given: The environment as the job found it.
        warm: The warm copy to seed compile caches from; `None` for none.
        kept: Variables that the user has set with `--env`: left as they are. What a profile or a
            setup line sets is not known from what a site sets for everybody, and is not kept.
        stopped: Asked now and then while caches are seeded; when it says so, they stay empty.

    Returns:
        The caches, held by this process and not by its children.

    Raises:
        CachesError: No place on this node can be used.
    """
    root, lock = _new_folder(given)
    caches = Caches(root, {}, lock, warm)
    try:
        for name in ("t", "x", "h", "h/datasets", "h/modules", "c"):
            (root / name).mkdir(mode=0o700)
        compile_folder(root).mkdir(mode=0o700)
        _seed(caches, stopped)
        for name in COMPILED.values():
            (compile_folder(root) / name).mkdir(mode=0o700, exist_ok=True)
        _lead_to_downloads(cache_home(given), root / "x")
        caches.variables = {
            name: value for name, value in _variables(given, caches).items() if name not in kept
        }
    except OSError as error:
        caches.remove()
        raise CachesError(f"{root} cannot be filled: {error}", "see the node's disk: df, quota") from error
    return caches


def places(given: Mapping[str, str]) -> tuple[Path, ...]:
    """Folders of this node that caches may be made in, the best one first."""
    named = (given.get("SLURM_TMPDIR"), given.get("TMPDIR"), "/tmp")  # noqa: S108 - the last resort
    return tuple(dict.fromkeys(Path(os.path.realpath(name)) for name in named if name and name[0] == "/"))


def compile_folder(root: Path) -> Path:
    """The folder of what is compiled; its name is always of the same length."""
    above = f"{root}/c/"
    return Path(above + "_" * (COMPILE_LENGTH - len(above)))


def _new_folder(given: Mapping[str, str]) -> tuple[Path, int]:
    """Make a folder with a name that nobody can foresee, and hold it.

    It gets its name once it is held, so that a folder of that name without a holder is a dead one's.
    """
    reasons = []
    for place in places(given):
        draft = None
        try:
            _check_place(place)
            draft = place / f".medarc-{os.urandom(4).hex()}"
            draft.mkdir(mode=0o700)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            lock = os.open(draft / OWNER, flags, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.write(lock, f"{os.getpid()} {given.get('SLURM_JOB_ID', '')}\n".encode())
                root = draft.with_name(draft.name[1:])
                draft.rename(root)
            except OSError:
                os.close(lock)
                raise
        except OSError as error:
            if not isinstance(error, FileExistsError) and draft is not None:
                _removed(draft)
            reasons.append(f"{place}: {error.strerror or error}")
            continue
        return root, lock
    raise CachesError(
        "no place for this run's caches: " + "; ".join(reasons),
        "set TMPDIR in the setup lines (--setup) to a folder on the node's own disk that you can write",
    )


def _check_place(place: Path) -> None:
    """Refuse a place that would fail later.

    Raises:
        OSError: What is wrong with it.
    """
    if len(f"{place}/medarc-12345678/t") > LONGEST_TEMPORARY:
        raise OSError("its name is too long for sockets below it")
    if os.statvfs(place).f_flag & os.ST_NOEXEC:
        raise OSError("mounted noexec, so that nothing compiled there can be loaded")


def _seed(caches: Caches, stopped: Callable[[], bool]) -> None:
    """Fill the compile caches; whatever goes wrong, the run starts with empty ones."""
    if caches.warm is None:
        return
    folder = compile_folder(caches.root)
    began = time.monotonic()
    try:
        caches.seeds = extract(caches.warm, folder, stopped)
    except StoppedEarlyError:
        said = "not seeded: a signal to stop arrived"
    except TornError as error:
        said = f"the warm copy was not whole and is removed: {error}"
    except Exception as error:
        said = f"not seeded: {error}"
    else:
        count, size = len(caches.seeds.files), caches.seeds.size >> 20
        said = f"{count} files ({size} MiB) from the warm copy" if count else "no warm copy yet"
        caches.remarks.append(f"compile caches: {said}, in {time.monotonic() - began:.1f} s")
        return
    caches.remarks.append(f"compile caches: {said}")
    # Some of it may be there.
    _removed(folder)
    folder.mkdir(mode=0o700)


def _lead_to_downloads(old: Path, new: Path) -> None:
    """Let the new cache folder lead to what was downloaded into the old one.

    Links and no variables: UV_CACHE_DIR would win over the user's own uv.toml.
    """
    for name in DOWNLOADS:
        with contextlib.suppress(OSError):
            (old / name).mkdir(mode=0o700, parents=True, exist_ok=True)
            (new / name).symlink_to(old / name)


def _variables(given: Mapping[str, str], caches: Caches) -> dict[str, str]:
    root = caches.root
    found = {name: str(compile_folder(root) / folder) for name, folder in COMPILED.items()}
    found["TMPDIR"] = str(root / "t")
    found["XDG_CACHE_HOME"] = str(root / "x")
    libraries = _offer_libraries(root, sys.path)
    if libraries is not None:
        paths = [str(libraries), given.get("PYTHONPATH", "")]
        found["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    # Never used with CUDA, and yet a part of the key under which vLLM finds what it has compiled
    # (vllm/envs.py, compile_factors): its default follows XDG_CACHE_HOME, another in each job.
    found["VLLM_XLA_CACHE_PATH"] = given.get("VLLM_XLA_CACHE_PATH") or NOT_USED
    home = given.get("HF_HOME") or str(cache_home(given) / "huggingface")
    # Named, and not led to: offline, vLLM takes a model's path for its name, and makes it a part of
    # the same key (vllm/engine/arg_utils.py).
    found["HF_HOME"] = home
    found["HF_MODULES_CACHE"] = str(root / "h" / "modules")
    shared = Path(os.path.expanduser(given.get("HF_DATASETS_CACHE") or f"{home}/datasets"))  # noqa: PTH111
    if _link_datasets(shared, root / "h" / "datasets"):
        found["HF_DATASETS_CACHE"] = str(root / "h" / "datasets")
    else:
        caches.remarks.append(f"data sets stay in {shared}: more than {MOST_LINKS} files, or not readable")
        found["HF_DATASETS_CACHE"] = str(shared)
    return found


def _offer_libraries(root: Path, search: Collection[str]) -> Path | None:
    """Offer FlashInfer the libraries of the warm copy as its package of built ones; see `LIBRARIES`.

    Args:
        root: The job's folder.
        search: Folders to look for the real package in, which wins.

    Returns:
        The folder to import the package from; `None` where there is nothing to offer.
    """
    libraries = compile_folder(root) / LIBRARIES
    if not libraries.is_dir() or installed(("flashinfer-jit-cache",), search):
        return None
    folder = root / "p"
    folder.mkdir(mode=0o700)
    text = FLASHINFER_PACKAGE.format(folder=str(libraries))
    (folder / "flashinfer_jit_cache.py").write_text(text, encoding="utf-8")
    return folder


def _link_datasets(shared: Path, own: Path) -> bool:
    """Link the files of prepared data sets, `NAME/CONFIG/VERSION/HASH/FILE`, into the job's own cache.

    What the job derives from them (`map`, `filter`) is written beside the links, into its own folders.

    Returns:
        Whether all of them are there.
    """
    count = 0
    try:
        for folder in _prepared(shared, 4):
            target = own / folder.relative_to(shared)
            target.mkdir(mode=0o700, parents=True)
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries if entry.is_file()]
            for name in names:
                if not name.endswith(".lock"):
                    (target / name).symlink_to(folder / name)
                    count += 1
            if count > MOST_LINKS:
                return False
            facts = folder.stat()
            # The newest one counts when the hub cannot be asked.
            os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    except FileNotFoundError:
        # There is none, or one was replaced just now.
        return count == 0 or shared.is_dir()
    except OSError:
        return False
    return True


def _prepared(folder: Path, depth: int) -> Iterator[Path]:
    """Yield the folders at a depth below a folder, unfinished ones left out."""
    if depth == 0:
        yield folder
        return
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_dir() and not _is_unfinished(entry.name)]
    for name in names:
        yield from _prepared(folder / name, depth - 1)


def _is_unfinished(name: str) -> bool:
    """As `datasets/builder.py`, incomplete_dir, names them; `downloads` are no prepared data sets."""
    return name == "downloads" or ".incomplete" in name


def sweep(given: Mapping[str, str]) -> int:
    """Remove what dead owners of this user left behind on this node.

    Args:
        given: The environment as the job found it.

    Returns:
        How many folders were removed.
    """
    count = 0
    for place in places(given):
        with contextlib.suppress(OSError):
            with os.scandir(place) as entries:
                paths = [Path(entry) for entry in entries if _is_ours(entry)]
            count += sum(map(_sweep_one, paths))
    return count


def _is_ours(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder that this user's job has made."""
    if not _NAME.fullmatch(entry.name) and not _UNFINISHED.fullmatch(entry.name):
        return False
    with contextlib.suppress(OSError):
        facts = entry.stat(follow_symlinks=False)
        old = _NAME.fullmatch(entry.name) or facts.st_mtime < time.time() - STALE_SECONDS
        return bool(stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid() and old)
    return False


def _sweep_one(path: Path) -> bool:
    """Remove a folder unless its owner lives."""
    try:
        lock = os.open(path / OWNER, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        # A removal that was cut short.
        return _removed(path)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _removed(path)
    except OSError:
        return False
    finally:
        os.close(lock)


def _removed(folder: Path) -> bool:
    """Remove a folder with all that is in it, following no links; whether it is gone."""
    from shutil import rmtree

    rmtree(folder, ignore_errors=True)
    if os.path.lexists(folder):
        # Something may have been written meanwhile, or made unwritable.
        with contextlib.suppress(OSError):
            folder.chmod(0o700)
        for above, names, _ in os.walk(folder):
            for name in names:
                with contextlib.suppress(OSError):
                    Path(above, name).chmod(0o700)
        rmtree(folder, ignore_errors=True)
    return not os.path.lexists(folder)
