"""What the rings without a real SLURM share: a clean environment, stand-ins, ways to run a command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import standins
from standin import make_checkout

from medarc_plugin.cli import app, entrypoints, medarc_slurm, output
from medarc_plugin.models import ENTRYPOINTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FOREIGN = (
    *("SLURM_", "SBATCH_", "MEDARC_", "PRIME_RL_", "HF_", "HUGGINGFACE_", "WANDB_", "STANDIN_", "XDG_"),
    *("NEVER_CLEAN", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "NO_COLOR", "FORCE_COLOR", "COLUMNS"),
)
"""Beginnings of variables that a test must not inherit."""


@dataclass(frozen=True)
class Result:
    """How a command ended.

    Attributes:
        code: Its exit code.
        out: Its standard output.
        err: Its error stream.
    """

    code: int
    out: str
    err: str

    @property
    def printed(self) -> str:
        """Both streams."""
        return self.out + self.err


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--renew-golden", action="store_true", help="Write the golden files anew.")


def pytest_configure() -> None:
    # A shell starts what it puts behind it with SIGINT ignored, and what the tests start would inherit that.
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment that says nothing, an empty home, and an empty folder to be in."""
    for name in list(os.environ):
        if name.startswith(FOREIGN):
            monkeypatch.delenv(name)
    home, work, programs = (tmp_path / name for name in ("home", "work", "programs"))
    for folder in (home, work, programs):
        folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def work(clean_environment: Path) -> Path:
    """The folder that a test is in."""
    return clean_environment


@pytest.fixture
def slurm(clean_environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster that is played."""
    played = standins.install(tmp_path / "slurm")
    monkeypatch.setenv("PATH", str(played.programs))
    # A stand-in answers at once, and one that is down comes back when a test lets it.
    monkeypatch.setenv("MEDARC_PATIENCE", "controller=0.2,settle=0.05,backoff=0.01,sendings=3")
    yield played

    assert played.refused == ""


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in for prime-rl."""
    return make_checkout(tmp_path_factory.mktemp("host") / "prime-rl")


@pytest.fixture
def cli(clean_environment: Path) -> Callable[..., Result]:
    """Run an installed command as a process: `cli("rl", "--help", MEDARC_BACKEND="slurm")`."""

    def run(program: str, *argv: str, **environment: str) -> Result:
        done = subprocess.run(
            [Path(sys.executable).with_name(program), *argv],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def here(
    clean_environment: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Callable[..., Result]:
    """Run a command in this process, which is quicker: `here("rl", ...)`, `here("medarc_slurm", ...)`."""

    def run(program: str, *argv: str) -> Result:
        monkeypatch.setattr(sys, "argv", [program, *argv])
        capfd.readouterr()
        if program == "medarc_slurm" and argv[0] not in ENTRYPOINTS:
            code = output.guarded(app.run)
        elif program == "medarc_slurm":
            code = output.guarded(lambda: medarc_slurm.launch(argv[0], list(argv[1:])))  # type: ignore[arg-type]
        else:
            code = output.guarded(lambda: entrypoints.main(program, argv))  # type: ignore[arg-type]
        return Result(code, *capfd.readouterr())

    return run
