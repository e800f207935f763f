"""What this release does its own way: prime-rl v0.8.0."""

import os
import shutil
from pathlib import Path
from typing import Any

from prime_rl.utils.pathing import get_ckpt_dir, latest_checkpoint, validate_output_dir

CONFIG_SUFFIX = ".toml"
TRANSPORT_PORTS = 3
RUN_ID = "WANDB_SHARED_RUN_ID"


def run_dir(config: Any) -> Path:
    folder: Path = config.output_dir
    return folder


def guard(config: Any) -> None:
    validate_output_dir(
        config.output_dir,
        resuming=config.ckpt is not None and config.ckpt.resume_step is not None,
        clean=config.clean_output_dir and not os.environ.get("NEVER_CLEAN_OUTPUT_DIR"),
        ckpt_output_dir=config.ckpt.output_dir if config.ckpt else None,
    )


def make_log_dir(folder: Path) -> Path:
    """Logs are written over at each start."""
    logs = folder / "logs"
    if logs.exists():
        shutil.rmtree(logs)
    logs.mkdir(parents=True)
    return logs


def checkpoint_table(config: Any) -> Any:
    """What says whether and when the trainer saves."""
    return (config.trainer if hasattr(config, "trainer") else config).ckpt


def resume_step(config: Any, ckpt_base: Path) -> int | None:
    """The step to go on from; 0 when the config does not ask to, `None` where there is no checkpoint.

    Trainer and orchestrator look for the newest each by itself, and part where they find different ones.
    """
    parts = [config]
    if hasattr(config, "orchestrator"):
        parts = [config.trainer, config.orchestrator]
    asked = [part.ckpt.resume_step if part.ckpt else None for part in parts]
    if asked[0] is None:
        return 0
    if asked[0] >= 0:
        return int(asked[0])
    found = [latest_checkpoint(ckpt_base)]
    if len(parts) > 1:
        found.append(latest_checkpoint(config.orchestrator.output_dir))
    if len(set(found)) > 1:
        raise ValueError(f"stand-in: the trainer goes on from {found[0]}, the orchestrator from {found[1]}")
    return found[0]


def resumes_from_elsewhere(_config: Any) -> bool:
    """Whether the checkpoint to go on from is another run's: there is no way to say so."""
    return False


def orchestrator_checkpoints(config: Any, trainers: Path) -> Path:
    """Where the orchestrator's part of a checkpoint goes."""
    return get_ckpt_dir(config.orchestrator.output_dir) / trainers.name


def metrics_files(config: Any) -> tuple[Path | None, Path | None]:
    """Where the trainer's and the orchestrator's rows go."""
    trainer = config.trainer if hasattr(config, "trainer") else config
    orchestrator = getattr(config, "orchestrator", None)
    files = [
        part.output_dir / part.file_monitor.filename if part and part.file_monitor else None
        for part in (trainer, orchestrator)
    ]
    return files[0], files[1]


def model_of(config: Any) -> str:
    """The model of an inference server."""
    name: str = config.model.name
    return name
