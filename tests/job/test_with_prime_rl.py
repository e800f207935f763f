"""The job code with the real prime-rl: its guard and its resume, by a dry run that needs no GPU."""

import json
from typing import Any

import pytest
from standins.real import example, find_real

from medarc_plugin.host import fields

pytestmark = pytest.mark.host

WHOLE = ("trainer/.metadata", "trainer/__0_0.distcp", "orchestrator/progress.pt")


@pytest.fixture
def real_run(run: Any) -> Any:
    real = find_real()
    if real is None:
        pytest.skip("PRIME_RL_DIR is not set: there is no prime-rl to start")
    place = ["--output-dir", str(run.run_dir.parent), "--run.dir", run.run_dir.name]
    if real.shape.run_dir is None:
        place = ["--output-dir", str(run.run_dir)]
    run.document |= {
        "python": str(real.python),
        "prime_rl_dir": str(real.checkout),
        "arguments": ["@", str(example("rl", real.shape)), *place, "--dry-run"],
        "fields": fields.for_job("rl", real.shape),
    }
    for name in ("rl.sbatch", "job_17.log"):
        (run.run_dir / name).touch()
    return run


def save(run: Any, step: int, *parts: str) -> None:
    """Leave a checkpoint, where this prime-rl writes it."""
    for part in parts:
        apart = run.document["fields"]["orchestrator_folder"] if part.startswith("orchestrator") else ""
        path = run.run_dir / apart / "checkpoints" / f"step_{step}" / part
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


def test_its_guard_passes_in_a_fresh_job(real_run: Any) -> None:
    finished = real_run.attempt()

    assert finished.code == 0, finished.log
    assert "[ ok ] environments: reverse_text" in finished.log
    assert list((real_run.run_dir / "configs").glob("trainer.*"))


def test_its_guard_passes_in_a_requeued_job_without_a_whole_checkpoint(real_run: Any) -> None:
    (real_run.run_dir / "logs" / "attempt_1").mkdir(parents=True)
    save(real_run, 3, "trainer/__0_0.distcp")

    finished = real_run.attempt(SLURM_RESTART_COUNT="1")

    assert finished.code == 0, finished.log
    assert "No checkpoints found" in finished.log
    assert "the checkpoint of step 3 is not whole" in finished.log


def test_its_guard_passes_in_a_requeued_job_that_goes_on(real_run: Any) -> None:
    save(real_run, 2, *WHOLE)
    save(real_run, 4, "orchestrator/progress.pt")

    finished = real_run.attempt(SLURM_RESTART_COUNT="1")

    assert finished.code == 0, finished.log
    assert "going on from the checkpoint of step 2" in finished.log
    config = json.loads((real_run.run_dir / "configs/attempts/1/rl.json").read_text())
    fields_of_run = real_run.document["fields"]
    wanted = 2 if fields_of_run["resume"]["by_step"] else {"step": 2, "dir": None}
    assert fields.get(config, fields_of_run["resume"]["paths"][0]) == wanted


def test_its_guard_refuses_a_used_directory(real_run: Any) -> None:
    (real_run.run_dir / "logs" / "attempt_1").mkdir(parents=True)
    save(real_run, 2, *WHOLE)

    finished = real_run.attempt()

    assert finished.code == 1
    assert "from a previous run" in finished.log
