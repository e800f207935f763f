"""What a run's files say about the weights that it trains: where its checkpoints are, and of what model."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .borrowed import BAD_RUN, ExportError
from .checkpoints import Checkpoints, checkpoints_of
from .checks import read_config
from .config import read

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


RUN_DEFAULT = "run_default"
"""The orchestrator's own folder in a run that prime-rl v0.8.0 started by itself."""


@dataclass(frozen=True)
class Run:
    """What a run's files say about its weights.

    Attributes:
        folder: The run directory.
        trainer: The trainer's config.
        checkpoints: Its checkpoints.
    """

    folder: Path
    trainer: Mapping[str, Any]
    checkpoints: Checkpoints

    def value(self, *path: str) -> Any:  # noqa: ANN401 - whatever the config holds
        """Return a value of the trainer's config, `None` where a part of its path is missing."""
        found: Any = self.trainer
        for part in path:
            found = found.get(part) if isinstance(found, dict) else None
        return None if found == "None" else found

    def checkpoint(self, step: int) -> Path:
        """The folder of a step's checkpoint."""
        return self.checkpoints.folder / f"step_{step}"

    def weights(self, step: int) -> Path:
        """The folder of a step's weights."""
        return self.folder / "weights" / f"step_{step}"

    def own_weights(self, step: int) -> Path:
        """Where prime-rl v0.8.0 writes a step's weights by itself: beside its checkpoints."""
        return self.checkpoints.folder.parent / "weights" / f"step_{step}"


def read_run(folder: Path) -> Run:
    """Read what a run's files say about its weights, and go to where relative paths in them begin.

    Args:
        folder: The run directory, absolute.

    Raises:
        ExportError: It is no run, or one without weights.
    """
    configs = folder / "configs"
    launch = read(configs / "launch" / "launch.json")
    if launch.get("entrypoint") == "inference":
        raise ExportError(BAD_RUN, f"{folder} is an inference run", "only rl and sft runs leave weights")
    # Ours first, and then what prime-rl writes itself, v0.8.0 as TOML.
    names = [f"{name}{kind}" for name in ("rl", "sft", "trainer") for kind in (".json", ".toml")]
    path = next((configs / name for name in names if (configs / name).is_file()), None)
    if path is None:
        raise ExportError(
            BAD_RUN,
            f"{folder} is no run: {configs} holds none of {', '.join(names)}",
            "name the run directory, the folder above configs/",
        )
    try:
        document = read_config((path,))
    except ValueError as error:
        raise ExportError(BAD_RUN, str(error), "the run's config must be as it was launched") from error
    with contextlib.suppress(OSError, TypeError):
        os.chdir(launch.get("working_directory") or ".")
    nested = document.get("trainer")
    fields = launch.get("fields")
    orchestrator = fields.get("orchestrator_folder", "") if isinstance(fields, dict) else ""
    if not fields and (folder / RUN_DEFAULT).is_dir():
        orchestrator = RUN_DEFAULT
    return Run(
        folder,
        nested if isinstance(nested, dict) else document,
        checkpoints_of(document, folder, "sft" if path.stem == "sft" else "rl", str(orchestrator)),
    )
