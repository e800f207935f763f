"""What this release does its own way: prime-rl main."""

import os
from pathlib import Path
from typing import Any

from prime_rl.utils.pathing import create_attempt_log_dir, latest_checkpoint, validate_run_dir

CONFIG_SUFFIX = ".json"
TRANSPORT_PORTS = 2
RUN_ID = "PRL_RUN_ID"

make_log_dir = create_attempt_log_dir


def run_dir(config: Any) -> Path:
    folder: Path = config.run_dir
    return folder


def guard(config: Any) -> None:
    os.environ["PRL_RUN_NAME"] = config.run.name
    validate_run_dir(
        config.run_dir,
        output_dir=config.output_dir,
        resuming=config.resume is not None,
        clean=config.clean and not os.environ.get("NEVER_CLEAN"),
        ckpt_output_dir=config.ckpt.output_dir if config.ckpt else None,
    )


def checkpoint_table(config: Any) -> Any:
    """What says whether and when the trainer saves."""
    return config.ckpt


def resume_step(config: Any, ckpt_base: Path) -> int | None:
    """The step to go on from; 0 when the config does not ask to, `None` where there is no checkpoint."""
    if config.resume is None:
        return 0
    if config.resume.dir is not None:
        return int(config.resume.dir.name.removeprefix("step_"))
    return config.resume.step or latest_checkpoint(ckpt_base)


def resumes_from_elsewhere(config: Any) -> bool:
    """Whether the checkpoint to go on from is another run's."""
    return config.resume is not None and config.resume.dir is not None


def orchestrator_checkpoints(config: Any, trainers: Path) -> Path:
    """Where the orchestrator's part of a checkpoint goes."""
    return trainers


def metrics_files(config: Any) -> tuple[Path | None, Path | None]:
    """Where the trainer's and the orchestrator's rows go."""
    path = config.run_dir / "metrics.jsonl"
    return path, path


def model_of(config: Any) -> str:
    """The model of an inference server."""
    name: str = config.vllm.model
    return name
