"""Show what the import hook does in prime-rl's own environment, and what it costs everybody else there.

    PRIME_RL_DIR=... uv run python benchmarks/importhook.py [--rounds N] [--starts N]

Builds the environments with uv, offline: from this checkout, prime-rl's, and the packages that prime-rl's
interpreter has (PRIME_RL_PYTHON names it where the checkout has no `.venv`). Without PRIME_RL_DIR only an
interpreter's start is measured. The figures are for this machine; the ratios travel.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import installs  # type: ignore[import-not-found] # noqa: E402

HELP_TARGET = 0.5
START_TARGET = 0.001
"""Seconds that prime-rl's script may take for our help, and that the hook may add to a start."""


def processor_seconds(argv: list[str | Path]) -> float:
    """Run a command and return the processor time that it took, which a busy machine disturbs least."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def wall_seconds(run: Callable[[], subprocess.CompletedProcess[str]]) -> float:
    """Return how long a command takes, which must succeed."""
    began = time.perf_counter()
    done = run()
    seconds = time.perf_counter() - began
    done.check_returncode()
    return seconds


def measure_start(folder: Path, plugin: installs.Package, starts: int) -> None:
    """Start an interpreter with the hook and without, in turns."""
    (folder / "borrowed").mkdir()
    borrowed = installs.borrow(folder / "borrowed")
    environment = installs.Environment(folder / ".venv", "uv", Path(sys.executable), borrowed)
    environment.install(plugin)
    hook, aside = environment.hook, environment.hook.with_suffix(".aside")
    argv = [environment.python, "-c", "pass"]
    with_hook, without, differences = [], [], []
    for _ in range(starts):
        with_hook.append(processor_seconds(argv))
        hook.rename(aside)
        without.append(processor_seconds(argv))
        aside.rename(hook)
        differences.append(with_hook[-1] - without[-1])
    added = statistics.median(differences)
    error = 1.25 * statistics.stdev(differences) / starts**0.5
    print(f"an interpreter's start, processor time, medians of {starts}")
    print(f"  without the hook {1000 * statistics.median(without):8.3f} ms")
    print(f"  with it          {1000 * statistics.median(with_hook):8.3f} ms")
    print(
        f"  it adds          {1000 * added:8.3f} ms, give or take {1000 * error:.3f}"
        f" (target {1000 * START_TARGET:.0f} ms)"
    )
    line = hook.read_text(encoding="ascii")
    began = time.perf_counter()
    for _ in range(1000):
        exec(line, {})
    print(f"  its line takes   {time.perf_counter() - began:8.3f} ms each time that it is read")


def serves(environment: installs.Environment, work: Path) -> bool:
    """Whether prime-rl's names take a backend, and are prime-rl's own without one."""
    for name in installs.SCRIPTS:
        done = environment.run(name, "--backend", "slurm", "--help")
        if not done.stdout.startswith(f"Usage: {name} --backend slurm"):
            return False
    argv = ("@", ROOT / "examples/reverse_text/rl.toml", "--output-dir", "runs", "--run.name", "own")
    environment.run("rl", *argv, "--max-steps", "7", "--dry-run", cwd=work)
    written = work / "runs/own/configs/trainer.json"
    return written.is_file() and json.loads(written.read_bytes())["max_steps"] == 7  # noqa: PLR2004


def measure_orders(
    folder: Path, real: installs.Real, plugin: installs.Package, older: installs.Package
) -> installs.Environment:
    """Install both in every order.

    Returns:
        An environment in which prime-rl's scripts won.
    """
    good = 0
    for number, (label, order) in enumerate(installs.ORDERS.items()):
        work = folder / str(number)
        work.mkdir()
        environment = real.environment(work / ".venv")
        order(environment, plugin, older, real.prime_rl)
        won = "prime-rl's" if "prime_rl" in (environment.folder / "bin" / "rl").read_text() else "ours"
        served = serves(environment, work)
        good += served
        print(f"  {label:<32} {won:<11} scripts won: {'both ways work' if served else 'FAILED'}")
    print(f"  {good} of {len(installs.ORDERS)}")
    first = folder / "first"
    first.mkdir()
    environment = real.environment(first / ".venv")
    installs.plugin_first(environment, plugin, older, real.prime_rl)
    return environment


def measure_help(environment: installs.Environment, rounds: int) -> None:
    """Time prime-rl's script for our help and for prime-rl's, in turns."""
    ours: list[float] = []
    theirs: list[float] = []
    bare: list[float] = []
    for number in range(rounds + 1):
        seconds = (
            wall_seconds(lambda: environment.run("rl", "--backend", "slurm", "--help")),
            wall_seconds(lambda: environment.run("rl", "--help")),
            wall_seconds(lambda: environment.run("python", "-c", "pass")),
        )
        if number:  # the first round fills the caches
            for values, value in zip((ours, theirs, bare), seconds, strict=True):
                values.append(value)
    quick, slow, base = (statistics.median(values) for values in (ours, theirs, bare))
    print(f"prime-rl's `rl` in its environment, medians of {rounds}")
    print(f"  rl --backend slurm --help {quick:8.3f} s (target {HELP_TARGET} s), {quick / base:.0f}x python")
    print(f"  rl --help                 {slow:8.3f} s, {slow / quick:.0f} times as long")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="of the two helps; default 5")
    parser.add_argument("--starts", type=int, default=300, metavar="N", help="of an interpreter; default 300")
    given = parser.parse_args()
    # Users have compiled bytecode; an environment that forbids writing it would measure compilation.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    directory = os.environ.get("PRIME_RL_DIR")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("plugin", "older", "source", "real", "start", "orders"):
            (folder / part).mkdir()
        plugin = installs.build(ROOT, folder / "plugin")
        measure_start(folder / "start", plugin, given.starts)
        if not directory:
            print("PRIME_RL_DIR names no prime-rl: the rest is left out")
            return 0
        python = os.environ.get("PRIME_RL_PYTHON") or f"{directory}/.venv/bin/python"
        real = installs.real_prime_rl(Path(directory), Path(python), folder / "real")
        older = installs.build(installs.copy_plugin(folder / "source" / "older", "0.0.9"), folder / "older")
        print("both packages in one environment, by the order of their installs")
        environment = measure_orders(folder / "orders", real, plugin, older)
        measure_help(environment, given.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
