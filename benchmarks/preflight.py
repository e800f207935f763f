"""What the checks before a submission refuse, what plain sbatch does with the same, and what they cost.

    uv run python benchmarks/preflight.py [--rounds N]

The requests are those of `tests/standins/impossible.py`, on a private SLURM with a stand-in for prime-rl.
Those that need accounting are asked of a cluster that says what a real one said, whose sbatch's word was
recorded. The cost is that of whole submissions with and without `--no-preflight`, in turns. Ends with 1 when
a request was not refused before the queue, or the cost is over the target.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medarc_plugin.sandbox import Sandbox, SandboxSpec
from medarc_plugin.sandbox.controller import client_environment

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import standins  # type: ignore[import-not-found] # noqa: E402
from standins.cluster import EXAMPLES, SCRIPTS, log_in  # type: ignore[import-not-found] # noqa: E402
from standins.impossible import CLUSTER, REQUESTS, RESERVATION  # type: ignore[import-not-found] # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGET = 2.0
"""Seconds that the checks may add to a submission."""

SFT = (SCRIPTS / "sft", "--backend", "slurm", "@", EXAMPLES / "sft.toml", "--gpus", "1")


def main() -> int:
    """Print the table and the cost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="medarc-") as folder, crowded_cluster(Path(folder)) as shell:
        refused = sum(show(request, shell, Path(folder)) for request in REQUESTS)
        taken = sum(request.sbatch_takes_it for request in REQUESTS)
        print(
            f"\n{refused} of {len(REQUESTS)} refused before the queue; plain sbatch takes {taken} of them\n"
        )
        cost = show_cost(shell, rounds)
    return 0 if refused == len(REQUESTS) and cost <= TARGET else 1


@contextmanager
def crowded_cluster(folder: Path) -> Iterator[Any]:
    """Start a SLURM with partitions of many kinds, and log in."""
    sandbox = Sandbox(folder / "slurm")
    sandbox.up(SandboxSpec(nodes=2, gpus=8, gpu_type="h100", gpu_kind="standin", extra_lines=CLUSTER))
    environment = client_environment(sandbox.environment()["SLURM_CONF"])
    try:
        create = ["scontrol", "create", "reservation", *RESERVATION]
        subprocess.run(create, env=environment, check=True, capture_output=True)
        yield log_in(folder, environment)
    finally:
        sandbox.down()


NUMBERS = itertools.count()


def submit(shell: Any, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:  # noqa: ANN401
    """Submit a run of its own."""
    done: subprocess.CompletedProcess[str] = shell.run(
        *SFT, "--output-dir", f"run{next(NUMBERS)}", *flags, **variables
    )
    return done


def show(request: Any, shell: Any, folder: Path) -> bool:  # noqa: ANN401 - the tests' own
    """Print a line about a request, and say whether it was refused before the queue."""
    variables = {}
    if request.played:
        played = standins.install(folder / f"played{next(NUMBERS)}")
        played.play(ROOT / "tests" / "captured" / "cluster" / "22.05.8")
        variables["PATH"] = f"{played.programs}:{os.environ['PATH']}"
    done = submit(shell, *request.flags, **variables)
    errors = [line for line in done.stderr.splitlines() if line.startswith(("error: ", "hint: "))]
    refused = done.returncode != 0 and request.says in done.stderr and "files of the run" not in done.stderr
    plain = "recorded: " if request.played else ""
    plain += "accepts" if request.sbatch_takes_it else "refuses"
    if not request.played and plain_sbatch_takes(request, shell) != request.sbatch_takes_it:
        plain += ", but not here"
    print(f"{request.name}\n    sbatch {plain}; preflight {'refuses' if refused else 'DOES NOT REFUSE'}")
    print("".join(f"    {line}\n" for line in errors), end="")
    return refused


def plain_sbatch_takes(request: Any, shell: Any) -> bool:  # noqa: ANN401
    """Submit what a dry run wrote with plain sbatch, and end the job that comes of it."""
    number = next(NUMBERS)
    shell.run(*SFT, "--output-dir", f"run{number}", *request.flags, "--dry-run")
    done = shell.run("sbatch", "--parsable", shell.folder / f"run{number}" / "sft.sbatch")
    shell.run("scancel", *done.stdout.split())
    return bool(done.returncode == 0)


def show_cost(shell: Any, rounds: int) -> float:  # noqa: ANN401
    """Print the seconds of submissions with the checks and without, and return the difference."""
    seconds: dict[str, list[float]] = {"": [], "--no-preflight": []}
    for _ in range(rounds):
        for flag, found in seconds.items():
            began = time.perf_counter()
            done = submit(shell, *([flag] if flag else []))
            found.append(time.perf_counter() - began)
            if done.returncode != 0:
                sys.exit(done.stderr)
            shell.run("scancel", done.stdout.split()[1])
    with_, without = (statistics.median(found) for found in seconds.values())
    print(
        f"a submission: {with_:.2f} s, without preflight {without:.2f} s: {with_ - without:+.2f} s, "
        f"{with_ / without:.2f} times (medians of {rounds}; the target is {TARGET:g} s more)"
    )
    return with_ - without


if __name__ == "__main__":
    sys.exit(main())
