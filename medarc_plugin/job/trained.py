"""What a run's files say about the weights that it trains: where its checkpoints are, and of what model."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .borrowed import BAD_RUN, ExportError
from .checks import read_config
from .dcp import missing_part

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Run:
    """What a run's files say about its weights.

    Attributes:
        folder: The run directory.
        trainer: The trainer's config.
        working_directory: What relative paths in it refer to.
        orchestrated: Whether a checkpoint has an orchestrator's part.
    """

    folder: Path
    trainer: Mapping[str, Any]
    working_directory: Path
    orchestrated: bool

    @property
    def checkpoints(self) -> Path:
        """Where the trainer's checkpoints are."""
        elsewhere = self.value("ckpt", "output_dir")
        parent = self.folder if elsewhere is None else self.working_directory / str(elsewhere)
        return parent / "checkpoints"

    def value(self, *path: str) -> Any:  # noqa: ANN401 - whatever the config holds
        """Return a value of the trainer's config, `None` where a part of its path is missing."""
        found: Any = self.trainer
        for part in path:
            found = found.get(part) if isinstance(found, dict) else None
        return None if found == "None" else found

    def missing_part(self, step: int) -> str | None:
        """Say what the checkpoint of a step lacks, `None` for nothing."""
        progress = self.folder / "checkpoints" / f"step_{step}" / "orchestrator" / "progress.pt"
        return missing_part(self.checkpoints / f"step_{step}", [progress] if self.orchestrated else [])


def read_run(folder: Path) -> Run:
    """Read what a run's files say about its weights.

    Raises:
        ExportError: It is no run, or one without weights.
    """
    configs = folder / "configs"
    launch: Mapping[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        launch = json.loads((configs / "launch" / "launch.json").read_text(encoding="utf-8"))
    if launch.get("entrypoint") == "inference":
        raise ExportError(BAD_RUN, f"{folder} is an inference run", "only rl and sft runs leave weights")
    # Ours first, and then what prime-rl writes itself, v0.8.0 as TOML.
    names = [f"{name}{kind}" for name in ("rl", "sft", "trainer") for kind in (".json", ".toml")]
    path = next((configs / name for name in names if (configs / name).is_file()), None)
    if path is None:
        raise ExportError(
            BAD_RUN,
            f"{folder} is no run: {configs} holds neither of {', '.join(names)}",
            "name the run directory, the folder above checkpoints/",
        )
    try:
        document = read_config((path,))
    except ValueError as error:
        raise ExportError(BAD_RUN, str(error), "the run's config must be as it was launched") from error
    nested = document.get("trainer")
    return Run(
        folder,
        nested if isinstance(nested, dict) else document,
        Path(launch.get("working_directory") or Path.cwd()),
        path.stem != "sft",
    )
