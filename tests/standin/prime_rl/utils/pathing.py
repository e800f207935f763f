"""The run directory: what may lie in a fresh one, and where attempts, logs and checkpoints go."""

import shutil
from fnmatch import fnmatchcase
from pathlib import Path

ALLOWED = ("configs", "rl.sbatch", "sft.sbatch", "job_*.log")


def get_config_dir(output_dir: Path) -> Path:
    return output_dir / "configs"


def get_ckpt_dir(output_dir: Path) -> Path:
    return output_dir / "checkpoints"


def has_run_artifacts(run_dir: Path) -> bool:
    if not run_dir.exists():
        return False
    names = (entry.name for entry in run_dir.iterdir())
    return any(not any(fnmatchcase(name, pattern) for pattern in ALLOWED) for name in names)


def has_checkpoints(output_dir: Path) -> bool:
    folder = get_ckpt_dir(output_dir)
    return folder.exists() and any(folder.iterdir())


def validate_run_dir(
    run_dir: Path,
    *,
    output_dir: Path,
    resuming: bool,
    clean: bool,
    ckpt_output_dir: Path | None = None,
) -> None:
    if resuming:
        return
    elsewhere = None if ckpt_output_dir == run_dir else ckpt_output_dir
    if clean:
        if not run_dir.resolve().is_relative_to(output_dir.resolve()):
            raise ValueError(
                f"clean requires the run directory ({run_dir}) to remain under output_dir ({output_dir})"
            )
        for folder in (run_dir, elsewhere):
            if folder is not None and folder.exists():
                shutil.rmtree(folder)
        return
    if has_run_artifacts(run_dir):
        what = f"Run directory '{run_dir}' already contains artifacts"
    elif elsewhere is not None and has_checkpoints(elsewhere):
        what = f"Checkpoint directory '{elsewhere}' already contains checkpoints"
    else:
        return
    raise FileExistsError(
        f"{what} from a previous run. To resume the latest step of the previous run, pass --resume "
        "(or --resume.step N). To delete the existing directory and start fresh, set clean=true or "
        "--clean via CLI. Otherwise use a unique run name (run.name or --run.name via CLI) or "
        "output_dir for this run."
    )


def create_attempt_log_dir(run_dir: Path) -> Path:
    logs = run_dir / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    numbers = [int(p.name[8:]) for p in logs.glob("attempt_*") if p.name[8:].isdigit()]
    attempt = logs / f"attempt_{max(numbers, default=0) + 1}"
    attempt.mkdir()
    link = logs / f".{attempt.name}"
    link.symlink_to(attempt.name)
    link.replace(logs / "latest")
    return attempt


def latest_checkpoint(output_dir: Path) -> int | None:
    steps = [int(p.name.rsplit("_", 1)[-1]) for p in get_ckpt_dir(output_dir).glob("step_*")]
    return max(steps, default=None)
