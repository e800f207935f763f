"""The main job with the real prime-rl, as far as a machine without GPUs can follow it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from standins.real import example, find_real

pytestmark = [pytest.mark.slurm, pytest.mark.host]

SCRIPTS = Path(sys.executable).parent


@pytest.fixture
def real():
    found = find_real()
    if found is None:
        pytest.skip("PRIME_RL_DIR is not set: there is no prime-rl to launch")
    return found


@pytest.mark.parametrize(
    ("entrypoint", "gpus"),
    [("rl", ["--train-gpus", "1", "--infer-gpus", "1"]), ("sft", ["--gpus", "1"])],
    ids=["rl", "sft"],
)
def test_prime_rl_accepts_the_config_and_the_run_directory_of_a_fresh_job(
    real, slurm_env, wait_for_job, tmp_path, entrypoint, gpus
):
    env = {
        **{name: os.environ[name] for name in ("PRIME_RL_DIR", "PRIME_RL_PYTHON") if name in os.environ},
        **slurm_env,
        "MEDARC_STANDIN_GPUS": "1",
    }
    config = example(entrypoint, real.shape)
    launch = [SCRIPTS / entrypoint, "--backend", "slurm", "@", config, "--output-dir", "runs/x", *gpus]
    dry = subprocess.run(
        [*launch, "--dry-run"], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert dry.returncode == 0, dry.stderr
    assert "checked by prime-rl" in dry.stderr

    # Without a GPU prime-rl can go as far as its own dry run: parser, run-directory guard, sub-configs.
    plan = tmp_path / "runs/x/configs/launch/launch.json"
    document = json.loads(plan.read_text())
    document["arguments"].append("--dry-run")
    plan.write_text(json.dumps(document))
    job = subprocess.run(
        ["bash", "-c", dry.stdout], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    ended = wait_for_job(job.stdout.strip(), seconds=180)

    log = next((tmp_path / "runs/x").glob("job_*.log")).read_text()
    assert ended["JobState"] == "COMPLETED", log
    assert "[ ok ] prime-rl" in log
    assert list((tmp_path / "runs/x/configs").glob("trainer.*")) or entrypoint == "sft"
