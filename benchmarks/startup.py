"""Time the commands that people type, against `python -c pass` in the same run.

    uv run python benchmarks/startup.py [--rounds N]

Each round runs every command once, so that a slow moment of the machine meets all of them; the median
of the rounds is shown, with its ratio to a bare interpreter. The figures are for this machine; the
ratios travel.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPTS = Path(sys.executable).parent
BASE = "python -c pass"
TARGETS = {
    "uv run rl --backend slurm --help": 0.5,
    "rl --backend slurm --help": 0.5,
    "medarc_slurm rl --help": 0.5,
    "rl --backend slurm ... --dry-run": 1.0,
}
"""Seconds that each command may take on an idle machine."""


def commands(folder: Path) -> dict[str, list[str | Path]]:
    """Name each command and give its argument list."""
    dry_run: list[str | Path] = ["--backend", "slurm", "@", ROOT / "examples/reverse_text/rl.toml"]
    dry_run += ["--output-dir", folder / "run", "--train-gpus", "1", "--infer-gpus", "1", "--dry-run"]
    found: dict[str, list[str | Path]] = {
        BASE: [sys.executable, "-c", "pass"],
        "rl --backend slurm --help": [SCRIPTS / "rl", "--backend", "slurm", "--help"],
        "medarc_slurm rl --help": [SCRIPTS / "medarc_slurm", "rl", "--help"],
        "rl --backend slurm ... --dry-run": [SCRIPTS / "rl", *dry_run],
    }
    uv = shutil.which("uv")
    if uv:
        found["uv run rl --backend slurm --help"] = [uv, "run", "rl", "--backend", "slurm", "--help"]
    return found


def measure(argv: list[str | Path]) -> float:
    """Run a command once and return its seconds."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PRIME_RL_", "MEDARC_"))
    }
    # Users have compiled bytecode; an environment that forbids writing it would measure compilation.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    began = time.perf_counter()
    subprocess.run(argv, check=True, cwd=ROOT, env=environment, capture_output=True)
    return time.perf_counter() - began


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="rounds; default 10")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        table = commands(Path(name))
        for argv in table.values():
            measure(argv)  # fills the caches
        seconds: dict[str, list[float]] = {label: [] for label in table}
        for _ in range(rounds):
            for label, argv in table.items():
                seconds[label].append(measure(argv))
    medians = {label: statistics.median(values) for label, values in seconds.items()}
    print(f"{'command':<36} {'median':>8} {'ratio':>7} {'target':>8}")
    for label, median in medians.items():
        target = f"{TARGETS[label]:.1f} s" if label in TARGETS else ""
        print(f"{label:<36} {median:>6.3f} s {median / medians[BASE]:>6.1f}x {target:>8}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
