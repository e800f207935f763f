"""Measure what a job adds to prime-rl: time before the launch, memory, and time to free a failed run's GPUs.

    uv run python benchmarks/job.py [--rounds N]

Runs the batch script of a dry run as SLURM would, with the tests' stand-in for prime-rl, which starts in the
time that Python needs. What the owner asks of others on the way is counted too: nvidia-smi (a stand-in) and
what prime-rl's interpreter finds.
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
sys.path.insert(0, str(ROOT / "tests"))

from standin import make_checkout  # type: ignore[import-not-found] # noqa: E402

SCRIPTS = Path(sys.executable).parent
NVIDIA_SMI = """#!/bin/sh
echo "0, GPU-0, NVIDIA H100 80GB HBM3, 81559 MiB"
echo "1, GPU-1, NVIDIA H100 80GB HBM3, 81559 MiB"
"""


class Node:
    """A place to run batch scripts in.

    Args:
        folder: An empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        programs = folder / "bin"
        programs.mkdir()
        smi = programs / "nvidia-smi"
        smi.write_text(NVIDIA_SMI)
        smi.chmod(0o755)
        make_checkout(folder / "prime-rl")
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))
        }
        kept.pop("PYTHONDONTWRITEBYTECODE", None)
        self.environment = {
            **kept,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(folder),
            "PRIME_RL_DIR": str(folder / "prime-rl"),
            "CUDA_VISIBLE_DEVICES": "0,1",
        }

    def script(self, name: str, *extra: str) -> Path:
        """Write a run's files by a dry run, and return its batch script."""
        config = ROOT / "examples/reverse_text/rl.toml"
        argv: list[str | Path] = [SCRIPTS / "medarc_slurm", "rl", config, "--dry-run"]
        argv += ["--output-dir", self.folder / name]
        argv += ["--train-gpus", "1", "--infer-gpus", "1", "--cpus-per-gpu", "1", *extra]
        subprocess.run(argv, check=True, cwd=self.folder, env=self.environment, capture_output=True)
        return self.folder / name / "rl.sbatch"

    def start(self, script: Path, **variables: str) -> subprocess.Popen[bytes]:
        """Run a batch script; its process becomes the owner."""
        with script.with_name("job_1.log").open("wb") as log:
            return subprocess.Popen(
                ["/bin/bash", script],
                cwd=self.folder,
                env={**self.environment, **variables},
                stdout=log,
                stderr=log,
            )


def before_launch(node: Node, round_: int) -> tuple[float, float]:
    """Seconds from the script's first line to prime-rl's launch, and the owner's peak memory in MiB."""
    script = node.script(f"start-{round_}", "--no-export")
    gate = node.folder / f"gate-{round_}"
    began = time.time()
    process = node.start(script, STANDIN_PAUSE_AT="1", STANDIN_WAIT_FOR=str(gate))
    output = script.parent / "configs/attempts/1/prime_rl.log"
    metrics = script.parent / "metrics.jsonl"
    wait_for(lambda: metrics.exists() and metrics.stat().st_size > 0, process)
    status = Path("/proc", str(process.pid), "status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]
    # The file is made, and never touched again, when prime-rl is started.
    launched = (script.parent / "configs/attempts/1/launched.json").stat().st_mtime
    gate.touch()
    if process.wait() != 0:
        sys.exit(script.with_name("job_1.log").read_text())
    assert output.exists()
    return launched - began, int(peak) / 1024


def until_free(node: Node, round_: int) -> float:
    """Seconds from a component's failure to the end of everything: the launcher and a child stay on."""
    script = node.script(f"crash-{round_}", "--no-export")
    note = node.folder / f"detached-{round_}"
    process = node.start(
        script, STANDIN_CRASH="trainer:2:1", STANDIN_CRASH_SECONDS="3600", STANDIN_DETACH=str(note)
    )
    log = script.parent / "configs/attempts/1/prime_rl.log"
    wait_for(lambda: log.exists() and b"failed with exit code" in log.read_bytes(), process)
    failed = time.monotonic()
    process.wait()
    return time.monotonic() - failed


def wait_for(condition: object, process: subprocess.Popen[bytes]) -> None:
    """Wait for something that the job does."""
    while not condition():  # type: ignore[operator]
        if process.poll() is not None:
            sys.exit(f"the job ended with {process.returncode}")
        time.sleep(0.002)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        node = Node(folder)
        starts = [before_launch(node, number) for number in range(rounds + 1)][1:]
        frees = [until_free(node, number) for number in range(2)]
    finally:
        shutil.rmtree(folder)
    rows = [
        ("script's first line to prime-rl's launch", statistics.median(s for s, _ in starts), 0.5, "s"),
        ("peak memory of the owner", max(mib for _, mib in starts), 40, "MiB"),
        ("a component's failure to free GPUs", max(frees), 15, "s"),
    ]
    for what, value, most, unit in rows:
        print(f"{what:<42} {value:7.3f} {unit:<4} (at most {most})")


if __name__ == "__main__":
    main()
