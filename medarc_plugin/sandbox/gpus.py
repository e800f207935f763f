"""The GPUs that a sandbox's nodes have: this machine's own, or stand-ins that are only counted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medarc_plugin.errors import SandboxError
from medarc_plugin.process import run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medarc_plugin.sandbox.spec import SandboxSpec

DEFAULT_TYPE = "h100"
DEFAULT_COUNT = 8
STANDIN_DEVICE = "/dev/null"

_VENDOR_WORDS = frozenset({"nvidia", "tesla", "geforce", "quadro", "graphics", "device"})


@dataclass(frozen=True)
class Gpu:
    """One GPU of one node.

    Attributes:
        node: The node's name.
        index: Its number in CUDA_VISIBLE_DEVICES: SLURM counts a node's GPUs in the order in which
            gres.conf names them, and CUDA those that it sees.
        type: The type in `--gres=gpu:TYPE:N`.
        device: Its device file; `/dev/null` for a stand-in.
    """

    node: str
    index: int
    type: str
    device: str


@dataclass(frozen=True)
class RealGpu:
    """A GPU of this machine: its device file and its type."""

    device: str
    type: str


def detect(devices: Path = Path("/dev")) -> tuple[RealGpu, ...]:
    """Look for this machine's GPUs.

    Args:
        devices: The folder of device files.

    Returns:
        One for each `/dev/nvidiaN`, in the order of N, with the type that nvidia-smi names; where
        it names none, or another number of GPUs, they are of type `gpu`.
    """
    files = sorted(
        (int(match[1]), str(path))
        for path in devices.glob("nvidia[0-9]*")
        if (match := re.fullmatch(r"nvidia(\d+)", path.name))
    )
    if not files:
        return ()
    answer = run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], timeout=30)
    names = answer.stdout.splitlines() if answer.ok else []
    types = [type_slug(name) for name in names] if len(names) == len(files) else []
    types = types or ["gpu"] * len(files)
    return tuple(RealGpu(device, kind) for (_, device), kind in zip(files, types, strict=True))


def type_slug(name: str) -> str:
    """Shorten a GPU's product name to what clusters call it.

    Args:
        name: As nvidia-smi prints it: `NVIDIA H100 80GB HBM3`, `NVIDIA GeForce RTX 4090`.

    Returns:
        `h100`, `rtx4090`; `gpu` for a name in which there is no model.
    """
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    words = [word for word in words if word not in _VENDOR_WORDS]
    for position, word in enumerate(words):
        if re.search(r"\d", word):
            family = "".join(words[:position])
            return f"{family}{word}"
    return "".join(words) or "gpu"


def allot(spec: SandboxSpec, real: Sequence[RealGpu]) -> tuple[Gpu, ...]:
    """Decide which node has which GPUs.

    Real GPUs go to a single node: SLURM numbers each node's GPUs from 0 for CUDA_VISIBLE_DEVICES, so
    that jobs on two nodes of one machine would meet on its first GPU.

    Args:
        spec: What was asked for.
        real: This machine's GPUs; empty for stand-ins.

    Returns:
        Every GPU of every node, in the order of nodes.

    Raises:
        SandboxError: More real GPUs were asked for than there are, or for several nodes.
    """
    if real:
        return _allot_real(spec, real)
    count = DEFAULT_COUNT if spec.gpus is None else spec.gpus
    kind = spec.gpu_type or DEFAULT_TYPE
    return tuple(Gpu(node, index, kind, STANDIN_DEVICE) for node in spec.node_names for index in range(count))


def _allot_real(spec: SandboxSpec, real: Sequence[RealGpu]) -> tuple[Gpu, ...]:
    count = len(real) if spec.gpus is None else spec.gpus
    if count > len(real):
        raise SandboxError(
            f"{count} GPUs were asked for and this machine has {len(real)}",
            hint=f"ask for at most {len(real)} (`--gpus`)",
        )
    if count and spec.nodes > 1:
        raise SandboxError(
            f"{spec.nodes} nodes cannot share this machine's {len(real)} real GPUs",
            hint="ask for one node, or for none of the GPUs (`--gpus 0`)",
        )
    return tuple(
        Gpu(node, index, spec.gpu_type or gpu.type, gpu.device)
        for node in spec.node_names
        for index, gpu in enumerate(real[:count])
    )


def is_real(gpus: Sequence[Gpu]) -> bool:
    """Whether these are this machine's own GPUs."""
    return any(gpu.device != STANDIN_DEVICE for gpu in gpus)
