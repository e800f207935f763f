"""This machine: Python, uv, this package, the commands on PATH, GPUs, and room on its file systems."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import medarc_plugin
from medarc_plugin import index, plugins
from medarc_plugin.doctor.findings import Finding, ok, skipped, warning
from medarc_plugin.doctor.subject import program
from medarc_plugin.host import cache, locate
from medarc_plugin.models import ENTRYPOINTS
from medarc_plugin.process import NOT_FOUND, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from medarc_plugin.doctor.subject import Subject

HOOK_FILE = "medarc_importhook.pth"
HOOK_VARIABLE = "MEDARC_IMPORT_HOOK"

SCRIPT_BYTES = 4096
"""Of a script, to see whose it is."""

LITTLE = 2 * 2**30
"""Bytes of free disk with which the next checkpoint, environment or log may not fit."""

OURS, PRIME_RLS, OTHER = "this project's", "prime-rl's", "another program"


def python(subject: Subject) -> Iterator[Finding]:  # noqa: ARG001
    """The Python that runs this."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield ok(f"{version} at {sys.executable}")


def uv(subject: Subject) -> Iterator[Finding]:  # noqa: ARG001
    """Uv, which makes the environments of this project and of prime-rl."""
    path = program("uv")
    if path is None:
        yield warning(
            "uv is not on PATH; it makes and mends this environment and prime-rl's",
            "https://docs.astral.sh/uv says how to get it; `make demo` puts one into .tools/bin",
        )
        return
    done = run([path, "--version"], timeout=5)
    words = done.stdout.strip().removeprefix("uv ") if done.ok else "of unknown version"
    yield ok(f"{words} at {path}")


def package(subject: Subject) -> Iterator[Finding]:  # noqa: ARG001
    """This package: its version, and where it comes from."""
    root = Path(medarc_plugin.__file__).parent.parent
    commit, dirty = locate.commit_of(root)
    words = f", commit {commit[:9]}{' with local changes' if dirty else ''}" if commit else ""
    yield ok(f"{medarc_plugin.__version__} at {root}{words}")


def loaded_plugins(subject: Subject) -> Iterator[Finding]:  # noqa: ARG001
    """Every plugin can be loaded."""
    found = plugins.load()  # what fails names the plugin
    others = sorted({name for name, _ in found.manager.list_name_plugin()} - set(plugins.BUILT_IN))
    disabled = os.environ.get("MEDARC_DISABLE_PLUGINS")
    words = f"; left out: {disabled}" if disabled else ""
    yield ok(f"{', '.join(others) or 'none beside the built-in ones'}{words}")


def commands(subject: Subject) -> Iterator[Finding]:  # noqa: ARG001
    """Whose `rl`, `sft` and `inference` come first on PATH."""
    places = {name: program(name) for name in ENTRYPOINTS}
    whose = {name: owner_of(Path(path)) for name, path in places.items() if path}
    if not whose:
        yield skipped(
            "no rl, sft or inference on PATH; `medarc_slurm rl` does the same",
            f"they are in {Path(sys.executable).parent}: `uv run rl`, or put that on PATH",
        )
    for owner in (OURS, PRIME_RLS, OTHER):
        names = [name for name, found in whose.items() if found == owner]
        if names:
            where = ", ".join(dict.fromkeys(str(Path(str(places[name])).parent) for name in names))
            yield _owned(owner, f"{', '.join(names)} in {where}: {owner}", Path(str(places[names[0]])))


def _owned(owner: str, words: str, script: Path) -> Finding:
    if owner == OURS:
        return ok(words)
    instead = "type `medarc_slurm rl`, or put this project's scripts first on PATH"
    if owner == OTHER:
        return warning(words, instead)
    if not hooks_in(script.parent.parent):
        return warning(f"{words}, which do not know --backend there", instead)
    if os.environ.get(HOOK_VARIABLE) == "0":
        return warning(f"{words}, and {HOOK_VARIABLE}=0 keeps them from taking --backend", instead)
    return ok(f"{words}, which take --backend by the import hook")


def owner_of(script: Path) -> str:
    """Say whose script a file is, by what an installer wrote into it."""
    try:
        with script.open("rb") as file:
            text = file.read(SCRIPT_BYTES)
    except OSError:
        return OTHER
    if b"medarc_plugin.cli.entrypoints" in text:
        return OURS
    return PRIME_RLS if b"prime_rl.entrypoints." in text else OTHER


def hooks_in(prefix: Path) -> list[Path]:
    """The hook's file in an environment, if it is there."""
    return sorted(prefix.glob(f"lib*/python3*/site-packages/{HOOK_FILE}"))


def import_hook(subject: Subject) -> Iterator[Finding]:  # noqa: ARG001
    """The hook by which prime-rl's own scripts take `--backend`, in an environment with both."""
    beside = locate.in_this_interpreter()
    file = Path(sysconfig.get_path("purelib"), HOOK_FILE)
    if os.environ.get(HOOK_VARIABLE) == "0":
        yield skipped(f"{HOOK_VARIABLE}=0 turns it off")
    elif not beside:
        yield skipped("not needed here: prime-rl has an environment of its own")
    elif file.is_file():
        yield ok(f"in force: {file}")
    else:
        yield warning(
            f"{file} is missing, so that prime-rl's own scripts refuse --backend",
            "install this package again; `medarc_slurm rl` works without",
        )


def gpus(subject: Subject) -> Iterator[Finding]:  # noqa: ARG001
    """GPUs of this machine; a login node has none."""
    question = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    done = run(question, timeout=8)
    if done.returncode == NOT_FOUND:
        yield skipped("none here (no nvidia-smi); the nodes have their own")
        return
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    if not done.ok or not lines:
        reason = (done.stdout or done.stderr).strip().partition("\n")[0]
        yield skipped(f"none here (nvidia-smi: {reason})" if reason else "none here")
        return
    kinds = dict.fromkeys(lines)
    for line in kinds:
        name, memory, driver = [part.strip() for part in line.rsplit(",", 2)]
        yield ok(f"{lines.count(line)}x {name} with {memory}, driver {driver}")


def disk(subject: Subject) -> Iterator[Finding]:  # noqa: ARG001
    """Room in the home, the caches, the current and the temporary folder."""
    home = Path.home()
    if not home.is_dir():
        yield warning(f"the home folder {home} is not there", "HOME names it; settings and caches live there")
    places = {
        "home": existing(home),
        "the caches": existing(cache.folder_for()),
        "the list of runs": existing(index.path()),
        "the current folder": Path.cwd(),
        "temporary files": Path(tempfile.gettempdir()),
    }
    by_device: dict[tuple[int, int], list[str]] = {}
    for name, place in places.items():
        device = place.stat().st_dev
        by_device.setdefault((device, shutil.disk_usage(place).free), []).append(name)
    for (_, free), names in by_device.items():
        yield _room(free, os.statvfs(places[names[0]]), ", ".join(names))


def _room(free: int, state: os.statvfs_result, names: str) -> Finding:
    words = f"{size(free)} free for {names}"
    if state.f_files > 0 and state.f_favail == 0:
        return warning(f"{words}, but no file more: its inodes are used up", "delete files there")
    if free < LITTLE:
        return warning(words, "make room; a quota may leave less still")
    return ok(words)


def existing(path: Path) -> Path:
    """The nearest folder upwards that is there."""
    return next(place for place in (path, *path.parents) if place.is_dir())


def size(count: float) -> str:
    """Write a number of bytes for people."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:  # noqa: PLR2004 - of the next smaller unit
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
