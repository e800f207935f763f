"""Folders of safetensors: reading what is in them, and writing one shard by shard.

The format: eight bytes with the length of a JSON header, the header with type, shape and place of each
tensor, then the data (https://huggingface.co/docs/safetensors). Reading a header needs no package.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .borrowed import CANNOT_WRITE, ExportError, borrow

if TYPE_CHECKING:
    from pathlib import Path

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

SHARD_BYTES = 5 * 10**9
"""Size of a shard at most, unless one tensor is larger: what the Hugging Face hub splits at."""

MOST_HEADER_BYTES = 100_000_000
"""What the format allows."""


@dataclass(frozen=True)
class Tensor:
    """What a header says about a tensor.

    Attributes:
        dtype: Data type as the format names it, `BF16`.
        shape: Its shape.
    """

    dtype: str
    shape: tuple[int, ...]


def read_header(path: Path) -> dict[str, Tensor]:
    """Read which tensors a file holds.

    Raises:
        ValueError: It is no safetensors file, or a torn one.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= MOST_HEADER_BYTES:
            raise ValueError(f"{path} is no safetensors file")
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        size = os.fstat(file.fileno()).st_size
        if size != 8 + length + end:
            raise ValueError(f"{path} has {size} of {8 + length + end} bytes")
    return {name: Tensor(entry["dtype"], tuple(entry["shape"])) for name, entry in header.items()}


def read_folder(folder: Path) -> dict[str, Tensor]:
    """Read which tensors a model's folder holds, over all its shards.

    Raises:
        ValueError: A file of it is torn, or an index names what is not there.
        OSError: There is none, or one cannot be read.
    """
    if not (folder / INDEX).is_file():
        return read_header(folder / WEIGHTS)
    placed = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
    found: dict[str, Tensor] = {}
    for name in sorted(set(placed.values())):
        found.update(read_header(folder / name))
    lost = sorted(set(placed) - set(found))
    if lost:
        raise ValueError(f"{folder / INDEX} names {lost[0]}, which no shard holds")
    return found


class ShardWriter:
    """Writes a model's tensors into shards as they come, and the index in the end.

    Args:
        folder: Where; it exists.
        shard_bytes: Size of a shard at most.

    Attributes:
        names: The tensors that were added.
        size: Their size in bytes.
    """

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder = folder
        self._shard_bytes = shard_bytes
        self._pending: dict[str, Any] = {}
        self._pending_bytes = 0
        self._shards: list[tuple[str, ...]] = []
        self.names: set[str] = set()
        self.size = 0

    def add(self, name: str, tensor: Any) -> None:  # noqa: ANN401 - torch's
        """Take a tensor, and write a shard when the next one would be too large.

        Raises:
            ExportError: The shard cannot be written.
        """
        size = tensor.numel() * tensor.element_size()
        if self._pending and self._pending_bytes + size > self._shard_bytes:
            self._flush()
        self._pending[name] = tensor
        self._pending_bytes += size
        self.names.add(name)
        self.size += size

    def finish(self) -> int:
        """Write what is left, name the shards by their number, and return how many there are.

        Raises:
            ExportError: A file cannot be written.
        """
        self._flush()
        count = len(self._shards)
        if count == 1:
            _part(self._folder, 1).rename(self._folder / WEIGHTS)
            return 1
        placed = {}
        for number, names in enumerate(self._shards, start=1):
            shard = f"model-{number:05d}-of-{count:05d}.safetensors"
            _part(self._folder, number).rename(self._folder / shard)
            placed.update(dict.fromkeys(names, shard))
        index = {"metadata": {"total_size": self.size}, "weight_map": dict(sorted(placed.items()))}
        (self._folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        return count

    def _flush(self) -> None:
        path = _part(self._folder, len(self._shards) + 1)
        write_tensors(path, self._pending)
        self._shards.append(tuple(self._pending))
        self._pending = {}
        self._pending_bytes = 0


def _part(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05d}.safetensors"


def write_tensors(path: Path, tensors: dict[str, Any]) -> None:
    """Write one file.

    Raises:
        ExportError: It cannot be written.
    """
    try:
        # What transformers looks for to know that torch wrote it.
        borrow("safetensors.torch").save_file(tensors, path, metadata={"format": "pt"})
        # It is made for its owner alone; a colleague may read what the run directory lets them.
        path.chmod(path.parent.stat().st_mode & 0o666)
        with path.open("rb") as file:
            os.fsync(file.fileno())
    except Exception as error:
        if isinstance(error, ExportError):
            raise
        # A full disk is an error of the package's own, with the system's words in it.
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: Exception) -> ExportError:
    """Word the failure to write a file."""
    return ExportError(
        CANNOT_WRITE,
        f"{path} cannot be written: {error}",
        "free some space or ask for more quota, then export again; the checkpoint stays as it is",
    )
