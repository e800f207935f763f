"""The whole example on this machine's GPUs, with the real prime-rl: `scripts/prove` in a test's clothes.

Needs PRIME_RL_DIR and a GPU, and takes ten minutes or more: `pytest -m gpu`.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
BUDGET = 1500


def gpus():
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return 0
    return len(listed.stdout.splitlines())


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(BUDGET + 120),
    pytest.mark.skipif(not gpus(), reason="this machine has no NVIDIA GPU (nvidia-smi lists none)"),
    pytest.mark.skipif(not os.environ.get("PRIME_RL_DIR"), reason="PRIME_RL_DIR names no prime-rl"),
    pytest.mark.skipif(shutil.which("slurmctld", path="/usr/sbin:/usr/bin") is None, reason="needs SLURM"),
]


@pytest.fixture(scope="session")
def proof(tmp_path_factory):
    """The stages of one GPU, done once."""
    work = Path(os.environ.get("MEDARC_PROOF") or tmp_path_factory.mktemp("proof"))
    stages = ("tiny", "tiny-sft", "eval-base", "rl-one", "eval-sft", "eval-rl-one", "weights")
    only = [word for stage in stages for word in ("--only", stage)]
    command = [sys.executable, "scripts/prove.py", "--work", str(work), "--budget", str(BUDGET), *only]
    done = subprocess.run(command, check=False, cwd=CHECKOUT)
    assert done.returncode in (0, 1), "scripts/prove could not begin; it says why in what is captured here"

    def found(stage):
        file = work / "results" / f"{stage}.json"
        failed = file.with_suffix(".failed")
        assert file.exists(), failed.read_text() if failed.exists() else f"{stage} was not begun"
        return json.loads(file.read_text())["found"]

    return found


def test_reinforcement_learning_learns_the_reversal_that_fine_tuning_left(proof):
    base, sft, rl = (
        proof(stage)["rewards"]["200 x 3"]["reward"] for stage in ("eval-base", "eval-sft", "eval-rl-one")
    )

    assert base < 0.2
    assert base + 0.1 < sft < rl - 0.1
    assert rl >= 0.8


def test_exported_weights_are_the_trainers_own(proof):
    found = proof("weights")

    assert found["tensors"] == found["equal_tensors"] > 0
    assert found["not_in_the_model"] == []
    assert found["same_in_transformers"] == found["strings"]


def test_a_run_leaves_the_gpu_empty(proof):
    proof("eval-rl-one")
    for _ in range(30):
        used = subprocess.run(
            ["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        if not used:
            break
        time.sleep(1)

    assert used == []
