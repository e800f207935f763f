"""Time what prime-rl's imports cost: its own dry run, ours, ours again, and ours of many configs.

    PRIME_RL_DIR=../prime-rl uv run python benchmarks/resolving.py [--configs N] [--config FILE]

With the prime-rl that PRIME_RL_DIR names (and PRIME_RL_PYTHON, where it has no .venv). prime-rl's own dry run
is made once before, for the file system's sake. Every figure is one command's wall time; the ratios travel.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPTS = Path(sys.executable).parent
GPUS = ["--train-gpus", "1", "--infer-gpus", "1"]


def measure(argv: list[str | Path], folder: Path) -> tuple[float, str]:
    """Run a command once; return its seconds and what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"MEDARC_CACHE_DIR": str(folder / "cache")}
    environment.pop("MEDARC_BACKEND", None)
    began = time.perf_counter()
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode != 0:
        sys.exit(f"{argv} failed:\n{done.stdout}{done.stderr}")
    return seconds, done.stdout + done.stderr


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--configs", type=int, default=100, metavar="N", help="of one call; default 100")
    parser.add_argument(
        "--rounds", type=int, default=3, metavar="N", help="of prime-rl's and ours; default 3"
    )
    parser.add_argument(
        "--config", type=Path, default=ROOT / "examples/reverse_text/rl.toml", help="an RL config"
    )
    given = parser.parse_args()
    checkout = Path(os.environ["PRIME_RL_DIR"])
    python = Path(os.environ.get("PRIME_RL_PYTHON") or checkout / ".venv/bin/python").absolute()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "config.toml"
        config.write_text(given.config.read_text())
        own: list[str | Path] = [python, "-m", "prime_rl.entrypoints.rl", "@", config, "--dry-run"]
        ours: list[str | Path] = [SCRIPTS / "rl", "--backend", "slurm", "@", config, *GPUS, "--dry-run"]
        many: list[str | Path] = [SCRIPTS / "medarc_slurm", "rl"]
        for index in range(given.configs):
            path = folder / f"config-{index}.toml"
            path.write_text(f"# {index}\n{config.read_text()}")
            many.append(path)
        many += ["--output-dir", "runs/{stem}", *GPUS, "--dry-run"]

        measure([*own, "--output-dir", "warm"], folder)
        rounds = range(given.rounds)
        theirs = [measure([*own, "--output-dir", f"own-{i}"], folder)[0] for i in rounds]
        first = [measure([*ours, "--output-dir", f"ours-{i}"], folder)[0] for i in rounds]
        again, said = measure([*ours, "--output-dir", "ours-0"], folder)
        if "from the cache" not in said:
            sys.exit(f"the second dry run asked prime-rl again:\n{said}")
        together, _ = measure(many, folder)
        together_again, _ = measure(many, folder)

    base = min(theirs)
    print(f"{'best of ' + str(given.rounds) if given.rounds > 1 else 'once':<34} seconds    ratio  target")
    for label, seconds, target in (
        ("prime-rl's own dry run", base, ""),
        ("our first dry run", min(first), "1.15"),
        ("our second dry run", again, "under 1 s"),
        (f"{given.configs} configs in one call", together, "3"),
        (f"{given.configs} configs once more", together_again, ""),
    ):
        print(f"{label:<34} {seconds:>7.2f} {seconds / base:>8.2f}  {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
