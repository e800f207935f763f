"""Builds a folder that looks, and answers, like a prime-rl checkout with its own environment."""

import importlib.metadata
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

STANDIN = Path(__file__).resolve().parent

# What the stand-in's configs need, linked one by one: whatever else the tests' own environment
# holds (verifiers, this project) must not be importable there.
DISTRIBUTIONS = (
    "annotated-types",
    "prime-pydantic-config",
    "pydantic",
    "pydantic-core",
    "tomli",
    "typing-extensions",
    "typing-inspection",
)

PLAYED = {"rl": "rl", "sft": "sft", "inference": "inference"}
NAMED = ("trainer", "orchestrator", "env-server", "evals")

ENVIRONMENT = '"""A stand-in environment: found by name, not run."""\n'

# The interpreter is looked for beside the script, so that no path is written into it.
SCRIPT = """#!/bin/sh
'''exec' "$(dirname -- "$(realpath -- "$0")")"/python "$0" "$@"
' '''
import sys
from prime_rl.entrypoints.{module} import main
sys.exit(main())
"""

REFUSAL = """#!/bin/sh
echo "stand-in: {name} is not played" >&2
exit 69
"""

# The launcher plays the trainer itself, once it has started what starts it.
TORCHRUN = """#!/bin/sh
case "$*" in
    *"-m prime_rl.trainer."*) echo "stand-in | the trainer has begun" >&2 ;;
    *) echo "stand-in: torchrun of something else is not played: $*" >&2; exit 69 ;;
esac
"""


def make_checkout(
    path: Path,
    *,
    environments: Iterable[str] = ("reverse_text",),
    python: Path | None = None,
    shape: str = "main",
) -> Path:
    """Make a stand-in checkout and return its path.

    Args:
        path: the folder to make; created with its parents.
        environments: modules of environments that its interpreter shall find.
        python: interpreter behind `.venv/bin/python`; the running one when not given.
        shape: which release it plays, `main` or `v0.8.0`.
    """
    base = Path(python or getattr(sys, "_base_executable", sys.executable)).resolve()
    path.mkdir(parents=True, exist_ok=True)
    _write(path / "pyproject.toml", '[project]\nname = "prime-rl"\nversion = "0.8.1.dev67"\n')
    configs = path / "packages" / "prime-rl-configs"
    _write(
        configs / "pyproject.toml",
        '[project]\nname = "prime-rl-configs"\nversion = "0.8.1.dev67"\n',
    )
    source = path / "src"
    source.mkdir()
    # What a release does not do its own way is main's: prime_rl is a namespace package, there as here.
    own = STANDIN if shape == "main" else STANDIN / shape.replace(".", "_")
    (source / "prime_rl").symlink_to(own / "prime_rl", target_is_directory=True)

    venv = path / ".venv"
    _write(
        venv / "pyvenv.cfg",
        f"home = {base.parent}\ninclude-system-site-packages = false\n"
        f"version = {'.'.join(map(str, sys.version_info[:3]))}\n",
    )
    binaries = venv / "bin"
    binaries.mkdir()
    (binaries / "python").symlink_to(base)
    (binaries / "python3").symlink_to("python")
    for name, module in PLAYED.items():
        _write(binaries / name, SCRIPT.format(module=module), mode=0o755)
    for name in NAMED:
        _write(binaries / name, REFUSAL.format(name=shlex.quote(name)), mode=0o755)

    _write(binaries / "torchrun", TORCHRUN, mode=0o755)

    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site_packages = venv / "lib" / version / "site-packages"
    site_packages.mkdir(parents=True)
    further = "" if shape == "main" else f"{STANDIN}\n"
    _write(site_packages / "standin.pth", f"{source.resolve()}\n{further}")
    for name in DISTRIBUTIONS:
        for entry in _entries(name):
            (site_packages / entry.name).symlink_to(entry)
    for name in environments:
        _write(site_packages / name / "__init__.py", ENVIRONMENT)
    return path


def install_gpu_packages(path: Path, **texts: str) -> None:
    """Give a checkout's environment what a run on GPUs imports: torch, vLLM and FlashAttention 3.

    Args:
        path: the checkout.
        texts: the source of a module that is to be another one.
    """
    (site_packages,) = (path / ".venv" / "lib").glob("*/site-packages")
    for name, text in {**GPU_PACKAGES, **texts}.items():
        _write(site_packages / name / "__init__.py", text)


# As many GPUs as CUDA_VISIBLE_DEVICES names, all of them H200s.
TORCH = """
import os
import types

__version__ = "2.11.0"
version = types.SimpleNamespace(cuda="13.0")
cuda = types.SimpleNamespace(
    device_count=lambda: len(list(filter(None, os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")))),
    get_device_name=lambda index: "NVIDIA H200",
    get_device_capability=lambda index=0: (9, 0),
)


class zeros:
    def __init__(self, size, device):
        self.size = size

    def add_(self, number):
        return self

    def item(self):
        return 1.0
"""

GPU_PACKAGES = {
    "torch": TORCH,
    "vllm": '__version__ = "0.26.0"\n',
    "flash_attn_interface": '__version__ = "3.0.0"\n',
}


def _entries(name: str) -> set[Path]:
    """What a distribution put directly into its site-packages."""
    distribution = importlib.metadata.distribution(name)
    tops = {file.parts[0] for file in distribution.files or ()}
    return {Path(str(distribution.locate_file(top))) for top in tops - {"..", "__pycache__"}}


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
