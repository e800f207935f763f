"""Reading a model's tensors from a checkpoint of prime-rl's trainer.

prime-rl saves with torch's distributed checkpointing: the ranks' data in `*.distcp`, and `.metadata`
last, under `checkpoints/step_N/trainer`, with the model's tensors under `app.model.`
(`prime_rl/trainer/ckpt.py`). Read in one process, without a process group and without a GPU.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from .borrowed import NO_CHECKPOINT, TORN, ExportError, borrow

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MODEL = "app.model."
"""What the names of the model's tensors begin with; the rest is optimizer, scheduler, progress."""


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
            raise torn(self._folder.parent, f".metadata cannot be read: {error}") from error
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
            raise torn(self._folder.parent, f"{names[0]} and what follows cannot be read: {error}") from error
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
                raise torn(self._folder.parent, f"{name} is missing") from None
            if size < end:
                raise torn(self._folder.parent, f"{name} has {size} of {end} bytes")


def torn(folder: Path, what: str) -> ExportError:
    """Word that a checkpoint is not whole.

    Args:
        folder: `checkpoints/step_N`.
        what: What is wrong with it.
    """
    return ExportError(
        TORN,
        f"the checkpoint {folder} is not whole: {what}",
        "choose another with --step; without it the newest whole one is taken",
    )
