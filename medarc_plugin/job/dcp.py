"""prime-rl's checkpoints: which are whole, and reading a model's tensors from one.

prime-rl saves with torch's distributed checkpointing: the ranks' data in `*.distcp`, and `.metadata`
last, under `checkpoints/step_N/trainer`, with the model's tensors under `app.model.`
(`prime_rl/trainer/ckpt.py`). Read in one process, without a process group and without a GPU.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from .borrowed import NO_CHECKPOINT, TORN, ExportError, borrow

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

MODEL = "app.model."
"""What the names of the model's tensors begin with; the rest is optimizer, scheduler, progress."""


def steps(folder: Path) -> list[int]:
    """List the steps N of the folders `step_N`, newest first."""
    names = [path.name for path in folder.glob("step_*") if path.is_dir()]
    return sorted((int(name[5:]) for name in names if name[5:].isdigit()), reverse=True)


def missing_part(step_folder: Path, parts: Iterable[Path]) -> str | None:
    """Say what a checkpoint lacks on the face of it; `None` when all of it seems to be there.

    Args:
        step_folder: `checkpoints/step_N`.
        parts: Further files that belong to it.
    """
    trainer = step_folder / "trainer"
    metadata = trainer / ".metadata"
    if not _filled(metadata):
        return f"{metadata} is missing or empty"
    if not any(trainer.glob("*.distcp")):
        return f"{trainer} holds no .distcp file"
    return next((f"{part} is missing or empty" for part in parts if not _filled(part)), None)


def _filled(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


class Checkpoint:
    """The model's tensors in one checkpoint.

    Args:
        step_folder: `checkpoints/step_N`.

    Attributes:
        tensors: Shape and torch data type of each of the model's tensors, by its name in the trainer.

    Raises:
        ExportError: The checkpoint is torn, or holds no model.
    """

    def __init__(self, step_folder: Path) -> None:
        self._folder = step_folder / "trainer"
        self._dcp = borrow("torch.distributed.checkpoint")
        self._torch = borrow("torch")
        try:
            metadata = self._reader().read_metadata()
        except Exception as error:
            raise self._torn(f".metadata cannot be read: {error}") from error
        self._check_files(metadata.storage_data)
        self.tensors: dict[str, tuple[tuple[int, ...], Any]] = {
            name[len(MODEL) :]: (tuple(entry.size), entry.properties.dtype)
            for name, entry in metadata.state_dict_metadata.items()
            if name.startswith(MODEL) and hasattr(entry, "properties")
        }
        if not self.tensors:
            raise ExportError(
                NO_CHECKPOINT,
                f"{self._folder} holds no tensors of a model",
                "it is no checkpoint of prime-rl's trainer",
            )

    def read(self, names: Sequence[str]) -> dict[str, Any]:
        """Read tensors, in the data type that they were saved in.

        Raises:
            ExportError: They cannot be read.
        """
        state = {}
        for name in names:
            shape, dtype = self.tensors[name]
            state[MODEL + name] = self._torch.empty(shape, dtype=dtype)
        try:
            with warnings.catch_warnings():
                # It would tell that there is no process group.
                warnings.simplefilter("ignore")
                self._dcp.load(state, storage_reader=self._reader(), no_dist=True)
        except Exception as error:
            raise self._torn(f"{names[0]} and what follows cannot be read: {error}") from error
        return {name[len(MODEL) :]: tensor for name, tensor in state.items()}

    def _reader(self) -> Any:  # noqa: ANN401 - torch's
        return self._dcp.FileSystemReader(str(self._folder))

    def _check_files(self, storage: Any) -> None:  # noqa: ANN401 - torch's
        """Hold each data file's size to what the metadata says lies in it."""
        ends: dict[str, int] = {}
        for place in storage.values():
            ends[place.relative_path] = max(ends.get(place.relative_path, 0), place.offset + place.length)
        for name, end in sorted(ends.items()):
            try:
                size = (self._folder / name).stat().st_size
            except OSError:
                raise self._torn(f"{name} is missing") from None
            if size < end:
                raise self._torn(f"{name} has {size} of {end} bytes")

    def _torn(self, what: str) -> ExportError:
        return ExportError(
            TORN,
            f"the checkpoint {self._folder} is not whole: {what}",
            "choose another with --step; without it the newest whole one is taken",
        )
