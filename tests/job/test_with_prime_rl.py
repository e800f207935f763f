"""The job code with the real prime-rl: its guard and its resume, by a dry run that needs no GPU."""

import os
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.host

REVERSE_TEXT = "examples/basic/reverse-text/rl.toml"


@pytest.fixture
def real_run(run: Any) -> Any:
    checkout = os.environ.get("PRIME_RL_DIR")
    if not checkout:
        pytest.skip("PRIME_RL_DIR is not set: there is no prime-rl to start")
    python = os.environ.get("PRIME_RL_PYTHON") or f"{checkout}/.venv/bin/python"
    place = ["--output-dir", str(run.run_dir.parent), "--run.dir", run.run_dir.name]
    run.document |= {
        "python": python,
        "prime_rl_dir": checkout,
        "arguments": ["@", str(Path(checkout, REVERSE_TEXT)), *place, "--dry-run"],
    }
    for name in ("rl.sbatch", "job_17.log"):
        (run.run_dir / name).touch()
    return run


def test_its_guard_passes_in_a_fresh_job(real_run: Any) -> None:
    finished = real_run.attempt()

    assert finished.code == 0, finished.log
    assert "[ ok ] environments: reverse_text" in finished.log
    assert (real_run.run_dir / "configs" / "trainer.json").exists()


def test_its_guard_passes_in_a_requeued_job(real_run: Any) -> None:
    (real_run.run_dir / "logs" / "attempt_1").mkdir(parents=True)

    finished = real_run.attempt(SLURM_RESTART_COUNT="1")

    assert finished.code == 0, finished.log
    assert "No checkpoints found" in finished.log


def test_its_guard_refuses_a_used_directory(real_run: Any) -> None:
    (real_run.run_dir / "logs" / "attempt_1").mkdir(parents=True)

    finished = real_run.attempt()

    assert finished.code == 1
    assert "already contains artifacts from a previous run" in finished.log
