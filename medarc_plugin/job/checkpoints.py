"""The checkpoints of a run: which are whole, and which one to go on from.

prime-rl's trainer writes `checkpoints/step_N/trainer` with torch.distributed.checkpoint, whose
`.metadata` is written under another name and renamed once every rank's data is there; the
orchestrator of an RL run writes `checkpoints/step_N/orchestrator/progress.pt` in the same way, on its
own time, and always below the run directory, in some releases in a folder of its own there:
`ckpt.output_dir` moves the trainer's part alone. prime-rl itself resumes from the highest step that has a
folder, whole or not.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

TORN, ABANDONED = "torn_", "abandoned_"
"""What the name of a checkpoint that was set aside begins with: half-written, or of a branch that the run
does not go on with."""


@dataclass(frozen=True)
class Checkpoints:
    """A run's folder of checkpoints.

    Attributes:
        folder: The folder that holds the trainer's `step_N`.
        orchestrator: The folder that holds the orchestrator's `step_N`; `None` when it has no part.
    """

    folder: Path
    orchestrator: Path | None

    def steps(self) -> dict[int, bool]:
        """List the checkpoints by step, and whether each is whole: a part alone is not."""
        numbers = {number for folder in self._folders for number in _steps_in(folder)}
        return {number: self.is_whole(self.folder / f"step_{number}") for number in sorted(numbers)}

    @property
    def _folders(self) -> tuple[Path, ...]:
        apart = self.orchestrator is not None and self.orchestrator != self.folder
        return (self.folder, self.orchestrator) if apart and self.orchestrator else (self.folder,)

    def is_whole(self, checkpoint: Path) -> bool:
        """Whether everything that a resume reads from `step_N` is there."""
        trainer = checkpoint / "trainer"
        data = list(trainer.glob("*.distcp"))
        if not data or not all(map(_has_content, [trainer / ".metadata", *data])):
            return False
        if self.orchestrator is None:
            return True
        return _has_content(self.orchestrator / checkpoint.name / "orchestrator" / "progress.pt")

    def newest(self) -> int | None:
        """The step to go on from; `None` when no checkpoint is whole."""
        return max((step for step, whole in self.steps().items() if whole), default=None)

    def torn(self) -> list[int]:
        """The half-written ones behind the newest whole one."""
        newest = self.newest() or 0
        return [step for step, whole in self.steps().items() if not whole and step > newest]

    def being_written(self, since: float) -> bool:
        """Whether the trainer has begun a checkpoint and not finished it.

        Args:
            since: When the trainer was started, in seconds of the epoch by the file system's clock: what is
                older was left half-written by an earlier attempt.
        """
        for step in self.torn():
            trainer = self.folder / f"step_{step}" / "trainer"
            with contextlib.suppress(OSError):
                if max(path.stat().st_mtime for path in (trainer, *trainer.iterdir())) >= since:
                    return True
        return False

    def beyond(self, step: int | None) -> dict[int, bool]:
        """List what lies behind a step to go on from, and whether it is whole."""
        return {number: whole for number, whole in self.steps().items() if number > (step or 0)}

    def set_aside(self, step: int, prefix: str) -> Path:
        """Rename a checkpoint that a run is not to go on from.

        Its metadata would make a half-written successor of the same step look whole, and prime-rl's bare
        `--resume` takes the highest step, whatever its state.

        Args:
            step: The checkpoint.
            prefix: What goes before its name.

        Returns:
            Where it lies now.

        Raises:
            OSError: It cannot be renamed.
        """
        name = f"{prefix}step_{step}"
        count = 1
        while any((folder / name).exists() for folder in self._folders):
            count += 1
            name = f"{prefix}step_{step}.{count}"
        moved = self.folder / name
        for folder in reversed(self._folders):
            with contextlib.suppress(FileNotFoundError):
                moved = (folder / f"step_{step}").rename(folder / name)
        return moved


def checkpoints_of(
    config: Mapping[str, Any], run_dir: Path, entrypoint: str, orchestrator_folder: str = ""
) -> Checkpoints:
    """Find a run's checkpoints: below the run directory unless `ckpt.output_dir` is set.

    Args:
        config: The resolved config.
        run_dir: The run directory.
        entrypoint: `rl` or `sft`.
        orchestrator_folder: Folder below the run directory with the orchestrator's own files.
    """
    base = run_dir
    for table in (config, _table(config, "trainer")):
        elsewhere = _table(table, "ckpt").get("output_dir")
        base = Path(str(elsewhere)) if elsewhere else base
    orchestrator = run_dir / orchestrator_folder / "checkpoints"
    return Checkpoints(base / "checkpoints", orchestrator if entrypoint == "rl" else None)


def _steps_in(folder: Path) -> list[int]:
    try:
        entries = list(folder.iterdir())
    except OSError:
        return []
    matches = [re.fullmatch(r"step_(0|[1-9]\d*)", entry.name) for entry in entries if entry.is_dir()]
    return [int(match[1]) for match in matches if match]


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _table(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    below = value.get(name)
    return below if isinstance(below, dict) else {}
