"""vLLM's share of a GPU that it shares with the trainer, worked out for the GPU that the job got.

The plan says what both need; which GPU the job gets is known only here. docs/memory.md explains
where the needs come from.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .allocation import Device

# Taken where nothing better is known. Seen to work on an H200 with small models.
UNKNOWN_SHARE = 0.3

# No more than prime-rl's default for a vLLM that has the GPU to itself.
MOST = 0.9

MIB = 2**20
GIB = 2**30


class MemoryShareError(Exception):
    """Trainer and vLLM do not fit on this GPU together; carries what to do about it.

    Args:
        message: What both need and what there is.
        hint: The way out.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def gpu_mib(devices: Sequence[Device] | None, gpus: Sequence[int] | None) -> int | None:
    """Say how much memory the allocated GPU has.

    Args:
        devices: The GPUs that the driver lists; `None` when it could not be asked.
        gpus: Ids of the allocated GPUs.

    Returns:
        The memory of the smallest of them in MiB; `None` where the driver does not say.
    """
    sizes = [device.mib for device in devices or () if device.index in (gpus or ())]
    known = [size for size in sizes if size is not None]
    return min(known) if known and len(known) == len(sizes) else None


def share_for(memory: Mapping[str, Any], mib: int | None) -> float:
    """Work out vLLM's share of a GPU's memory: its `gpu_memory_utilization`.

    vLLM gets the least that it needs and half of what both then leave. The other half is the
    trainer's margin: a trainer that runs out of memory ends the run, a vLLM with less of it only
    becomes slower.

    Args:
        memory: `memory` of `launch.json`: `trainer_bytes`, `inference_bytes` and `reserve_bytes`, or
            `None` where the model's size is unknown; `share` and its field, `share_path`; and `fixed`,
            which says that the share is the config's own and only to be checked.
        mib: The GPU's memory in MiB; `None` where nobody knows.

    Returns:
        The share of the GPU's whole memory.

    Raises:
        MemoryShareError: Both do not fit on the GPU.
    """
    given = memory.get("share")
    sizes = [memory.get(f"{name}_bytes") for name in ("trainer", "inference", "reserve")]
    if mib is None or None in sizes:
        return UNKNOWN_SHARE if given is None else float(given)
    trainer, inference, reserve = (int(size or 0) for size in sizes)
    total = mib * MIB
    needs = (
        f"the trainer needs about {trainer / GIB:.1f} GiB, vLLM at least {inference / GIB:.1f} and both "
        f"{reserve / GIB:.1f} beside that, on a GPU of {total / GIB:.1f} GiB"
    )
    if memory.get("fixed") and given is not None:
        share = float(given)
        left = total - trainer - reserve
        if share * total > left:
            highest = max(0, math.floor(left / total * 100) / 100)
            lower = f"set {memory.get('share_path')} to {highest} or less, or leave it out; "
            raise MemoryShareError(
                f"vLLM's share of {share:g} leaves the trainer too little: {needs}",
                (lower if left >= inference else "") + WAYS_OUT,
            )
        return share
    slack = total - trainer - inference - reserve
    if slack < 0:
        raise MemoryShareError(f"trainer and vLLM do not fit on one GPU: {needs}", WAYS_OUT)
    share = min(MOST, (inference + slack / 2) / total)
    # Rounded up where rounding down would take from the least that vLLM needs.
    return max(math.floor(share * 1000), min(math.ceil(inference / total * 1000), 900)) / 1000


WAYS_OUT = (
    "a smaller seq_len or max_model_len of vLLM, prime-rl's activation checkpointing "
    "([trainer.model.ac]) and optimizer offload (trainer.model.optim_cpu_offload), LoRA, a larger GPU, "
    "or two GPUs (without --single-gpu)"
)
