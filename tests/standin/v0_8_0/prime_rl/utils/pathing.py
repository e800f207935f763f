"""The run directory: what may lie in a fresh one, and where checkpoints go."""

import shutil
from pathlib import Path


def get_config_dir(output_dir: Path) -> Path:
    return output_dir / "configs"


def get_ckpt_dir(output_dir: Path) -> Path:
    return output_dir / "checkpoints"


def validate_output_dir(
    output_dir: Path, *, resuming: bool, clean: bool, ckpt_output_dir: Path | None = None
) -> None:
    if resuming:
        return
    elsewhere = None if ckpt_output_dir == output_dir else ckpt_output_dir
    for folder in filter(None, (output_dir, elsewhere)):
        if clean and folder.exists():
            shutil.rmtree(folder)
        elif get_ckpt_dir(folder).exists() and any(get_ckpt_dir(folder).iterdir()):
            raise FileExistsError(
                f"Directory '{folder}' already contains checkpoints from a previous run. To resume the "
                "latest step of the previous run, set ckpt.resume_step=-1 or --ckpt.resume-step -1 via CLI. "
                "To delete the existing directory and start fresh, set clean_output_dir=true or "
                "--clean-output-dir via CLI. Otherwise use a unique output_dir for this experiment."
            )


def latest_checkpoint(output_dir: Path) -> int | None:
    steps = [int(p.name.rsplit("_", 1)[-1]) for p in get_ckpt_dir(output_dir).glob("step_*")]
    return max(steps, default=None)
