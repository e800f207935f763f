"""A run of prime-rl v0.8.0, as its stand-in plays it: resume by step, logs and checkpoints its own way."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from standin import make_checkout

from medarc_plugin.host import fields
from medarc_plugin.host.fields import V0_8_0

CLIENT = {"base_url": ["http://localhost:8000/v1"], "admin_base_url": ["http://localhost:8100/v1"]}
SERVICES = {
    "weight_broadcast": {"type": "nccl", "port": 29501},
    "rollout_transport": {"type": "zmq", "port": 5555},
}


@pytest.fixture(scope="module")
def v0_8_0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkout(tmp_path_factory.mktemp("v0.8.0") / "prime-rl", shape="v0.8.0")


@pytest.fixture
def run(tmp_path: Path, v0_8_0: Path, make_run: Any) -> Any:
    made = make_run(tmp_path / "runs" / "reverse-rl", v0_8_0, tmp_path / "programs")
    output_dir = str(made.run_dir)
    ckpt = {"interval": 2, "resume_step": None}
    config = {
        "output_dir": output_dir,
        "trainer": {"ckpt": ckpt, "output_dir": output_dir, "max_steps": 4, **SERVICES},
        "orchestrator": {
            "ckpt": ckpt,
            "output_dir": f"{output_dir}/run_default",
            "max_steps": 4,
            "env_server_base_port": 5000,
            **SERVICES,
            "model": {"client": CLIENT},
            "train": {"source": [{"env": {"taskset": {"id": "reverse-text"}}}]},
        },
        "inference": {"server": {"port": 8000}, "backend_port": 8100, "data_parallel_rpc_port": 13345},
        "ckpt": ckpt,
        "max_steps": 4,
        **SERVICES,
    }
    Path(made.document["arguments"][1]).write_text(json.dumps(config))
    made.document |= {
        "fields": fields.for_job("rl", V0_8_0),
        "ports": fields.ports(config, "rl", V0_8_0),
    }
    made.variables["STANDIN_BIND"] = "1"
    return made


def change(run: Any, path: str, value: object) -> None:
    file = Path(run.document["arguments"][1])
    config = json.loads(file.read_text())
    fields.put(config, path, value)
    file.write_text(json.dumps(config))


def launched(run: Any, attempt: int) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((run.run_dir / f"configs/attempts/{attempt}/rl.json").read_text())
    return config


def state(run: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.folder / "state.json").read_text())
    return found


def lose(run: Any, step: int, part: str) -> None:
    """Take a part of a checkpoint away, as a killed component leaves it."""
    folder = run.run_dir / ("run_default" if part == "orchestrator" else "")
    name = "progress.pt" if part == "orchestrator" else ".metadata"
    (folder / "checkpoints" / f"step_{step}" / part / name).unlink()


def test_a_run_goes_to_its_end_and_its_log_tells_how(run: Any) -> None:
    finished = run.attempt()

    assert finished.code == 0, finished.log
    assert "step 4 of 4: loss 0.2500, reward 0.8000, 0.5 s, 1000 tokens/s" in finished.log
    assert (state(run)["phase"], state(run)["step"], state(run)["loss"]) == ("done", 4, 0.25)
    (attempt,) = run.attempts()
    assert (attempt["checkpoint"], attempt["steps"]) == (4, 4)


def test_metrics_of_trainer_and_orchestrator_are_read_from_two_files(run: Any) -> None:
    for component in ("trainer", "orchestrator"):
        change(run, f"{component}.file_monitor", {"filename": "metrics.jsonl"})

    finished = run.attempt()

    assert finished.code == 0, finished.log
    assert not (run.run_dir / "run_default/metrics.jsonl").samefile(run.run_dir / "metrics.jsonl")
    assert (state(run)["step"], state(run)["reward"]) == (4, pytest.approx(0.8))


def test_every_service_has_a_port_of_the_run_in_every_field(run: Any) -> None:
    assert run.attempt().code == 0

    config = launched(run, 1)
    server, backend = config["inference"]["server"]["port"], config["inference"]["backend_port"]
    (attempt,) = run.attempts()
    low, high = attempt["ports"]
    ports = [server, backend, config["inference"]["data_parallel_rpc_port"]]
    ports += [config[name]["port"] for name in ("weight_broadcast", "rollout_transport")]
    assert config["orchestrator"]["model"]["client"] == {
        "base_url": [f"http://localhost:{server}/v1"],
        "admin_base_url": [f"http://localhost:{backend}/v1"],
    }
    assert len(set(ports)) == len(ports)
    assert all(low <= port <= high for port in ports)
    assert config["orchestrator"]["env_server_base_port"] - config["rollout_transport"]["port"] == 3


def test_a_requeued_run_goes_on_by_its_step_and_keeps_its_logs(run: Any, report: Any) -> None:
    run.attempt(STANDIN_STEPS="2")
    first = report()["environment"]["WANDB_SHARED_RUN_ID"]

    finished = run.attempt(SLURM_RESTART_COUNT="1")

    config = launched(run, 2)
    assert finished.code == 0, finished.log
    assert "stand-in | Resuming from step 2" in finished.log
    assert [config[part]["ckpt"]["resume_step"] for part in ("trainer", "orchestrator")] == [2, 2]
    assert config["ckpt"]["resume_step"] == 2
    assert "step 2\n" in (run.run_dir / "logs_1/trainer.log").read_text()
    assert "step 3\n" in (run.run_dir / "logs/trainer.log").read_text()
    assert [attempt["steps"] for attempt in run.attempts()] == [2, 2]
    assert report()["environment"]["WANDB_SHARED_RUN_ID"] == first


@pytest.mark.parametrize("part", ["trainer", "orchestrator"])
def test_a_checkpoint_that_one_component_did_not_finish_is_set_aside_for_both(run: Any, part: str) -> None:
    run.attempt()
    lose(run, 4, part)

    finished = run.attempt(SLURM_RESTART_COUNT="1")

    assert finished.code == 0, finished.log
    assert "the checkpoint of step 4 is not whole" in finished.log
    assert "Resuming from step 2" in finished.log
    for folder in (run.run_dir, run.run_dir / "run_default"):
        assert (folder / "checkpoints/torn_step_4").is_dir()


def test_a_checkpoint_of_the_orchestrator_alone_is_none(run: Any) -> None:
    folder = run.run_dir / "run_default/checkpoints/step_2/orchestrator"
    folder.mkdir(parents=True)
    (folder / "progress.pt").write_text("step 2")

    finished = run.attempt(SLURM_RESTART_COUNT="1")

    assert finished.code == 0, finished.log
    assert launched(run, 1)["ckpt"]["resume_step"] == -1
    assert "No checkpoints found" in finished.log
    assert folder.parent.with_name("torn_step_2").is_dir()


def test_the_guard_is_passed_though_the_shared_table_is_missing(run: Any) -> None:
    change(run, "ckpt", None)
    run.attempt(STANDIN_STEPS="2")

    finished = run.attempt(SLURM_RESTART_COUNT="1")

    assert finished.code == 0, finished.log
    assert launched(run, 2)["ckpt"] == {"resume_step": 2}


def test_a_run_that_saves_nothing_is_not_made_to(run: Any) -> None:
    for path in ("ckpt", "trainer.ckpt", "orchestrator.ckpt"):
        change(run, path, None)

    finished = run.attempt(SLURM_RESTART_COUNT="1")

    assert finished.code == 0, finished.log
    assert launched(run, 1)["ckpt"] is None
    assert not (run.run_dir / "checkpoints").exists()


def test_a_step_that_the_config_names_is_gone_on_from(run: Any) -> None:
    run.attempt()
    run.document["token"] = "another submission"
    change(run, "ckpt.resume_step", 2)

    finished = run.attempt()

    assert finished.code == 0, finished.log
    assert "the checkpoint of step 4 is of a branch" in finished.log
    assert "Resuming from step 2" in finished.log


def test_a_config_that_would_delete_the_directory_is_refused(run: Any) -> None:
    change(run, "clean_output_dir", value=True)

    finished = run.attempt()

    assert finished.code == 3
    assert "clean_output_dir = true would delete this run directory" in finished.log


def test_one_gpu_for_both_starts_the_server_first(run: Any) -> None:
    run.document["gpus"] = {"count": 1, "shared": True, "trainer": 1, "inference": 1}
    run.document["memory"] = {"share": 0.3, "share_path": "inference.gpu_memory_utilization", "fixed": True}
    run.variables |= {"SLURM_JOB_GPUS": "2", "CUDA_VISIBLE_DEVICES": "2"}
    change(run, "weight_broadcast", {"type": "filesystem"})

    finished = run.attempt()

    server = json.loads((run.run_dir / "configs/attempts/1/inference.json").read_text())
    assert finished.code == 0, finished.log
    assert "vLLM has its share of the GPU" in finished.log
    assert server["gpu_memory_utilization"] == 0.3
    assert launched(run, 1)["inference"] is None


@pytest.mark.parametrize("elsewhere", [False, True])
def test_weights_that_prime_rl_wrote_itself_are_not_exported_again(run: Any, elsewhere: bool) -> None:
    base = run.run_dir.parent / "elsewhere" if elsewhere else run.run_dir
    if elsewhere:
        for path in ("ckpt.output_dir", "trainer.ckpt.output_dir"):
            change(run, path, str(base))
    run.document["export"] = True
    weights = base / "weights" / "step_4"
    weights.mkdir(parents=True)
    (weights / "STABLE").touch()

    finished = run.attempt()

    assert finished.code == 0, finished.log
    assert f": {weights}\n" in finished.log
    done = subprocess.run(
        [run.interpreter, run.folder / "job", "export", run.run_dir],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{weights}\n"
