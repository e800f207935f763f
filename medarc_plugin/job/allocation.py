"""Which GPUs this job may use: from the allocation, never counted from 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# SLURM's word for a job whose GPU request was granted no device files.
NO_DEVICES = "NoDevFiles"


@dataclass(frozen=True)
class Device:
    """A GPU as the driver lists it.

    Attributes:
        index: Its number in the driver's (PCI bus) order, which prime-rl makes CUDA's order too.
        uuid: `GPU-...`.
        name: Product name.
        memory: Its memory, as `nvidia-smi` words it.
    """

    index: int
    uuid: str
    name: str
    memory: str


class AllocationError(Exception):
    """The GPUs of this allocation cannot be used; carries what to do about it.

    Args:
        message: What was allocated and what was wanted.
        hint: The way out.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def parse_devices(listing: str) -> tuple[Device, ...]:
    """Read `nvidia-smi --query-gpu=index,uuid,name,memory.total --format=csv,noheader`.

    Raises:
        ValueError: A line is of another form.
    """
    devices = []
    for line in filter(None, map(str.strip, listing.splitlines())):
        index, uuid, rest = line.split(", ", 2)
        name, memory = rest.rsplit(", ", 1)
        devices.append(Device(int(index), uuid, name, memory))
    return tuple(devices)


def allocated_gpus(
    variables: Mapping[str, str], wanted: int, devices: Sequence[Device] | None
) -> tuple[int, ...]:
    """Find the ids of the GPUs that SLURM gave to this job.

    Args:
        variables: The job's environment.
        wanted: How many GPUs the plan asked for.
        devices: The GPUs that the driver lists; `None` when it could not be asked.

    Returns:
        The ids as prime-rl takes them, in the allocation's order.

    Raises:
        AllocationError: None, too few, too many, or not usable ones.
    """
    if wanted == 0:
        return ()
    visible = variables.get("CUDA_VISIBLE_DEVICES")
    tokens = [token.strip() for token in (visible or "").split(",") if token.strip()]
    if visible is None or not tokens or tokens == [NO_DEVICES]:
        state = "not set" if visible is None else f"{visible!r}"
        raise AllocationError(
            f"{wanted} wanted, none allocated: CUDA_VISIBLE_DEVICES is {state}",
            "see that the script asks for GPUs (--gres=gpu:N), and that this node's gres.conf "
            "names their device files",
        )
    ids = tuple(_index(token, devices) for token in tokens)
    twice = sorted({number for number in ids if ids.count(number) > 1})
    if twice:
        raise AllocationError(
            f"CUDA_VISIBLE_DEVICES={visible} names GPU {_list(twice)} twice",
            "something changed the variable after SLURM set it: look at the setup lines and .env",
        )
    _refuse_strangers(ids, variables, devices)
    if len(ids) != wanted:
        raise AllocationError(
            f"{wanted} wanted, {len(ids)} allocated: CUDA_VISIBLE_DEVICES={visible}",
            "ask SLURM for as many GPUs as the run uses: submit again, or match the script's "
            "--gres with the config",
        )
    return ids


def _index(token: str, devices: Sequence[Device] | None) -> int:
    """Turn one entry of CUDA_VISIBLE_DEVICES into the integer that prime-rl takes."""
    if token.isdigit():
        return int(token)
    if token.startswith("MIG-"):
        raise AllocationError(
            f"{token} is a MIG slice, which prime-rl cannot be given",
            "ask for whole GPUs: another --gpu-type or partition",
        )
    if not token.startswith("GPU-"):
        raise AllocationError(
            f"CUDA_VISIBLE_DEVICES holds {token!r}, which is no GPU",
            "something changed the variable after SLURM set it: look at the setup lines and .env",
        )
    if devices is None:
        raise AllocationError(
            f"{token} cannot be turned into a GPU id: nvidia-smi lists no GPUs here",
            "prime-rl takes integers only; see what the check of the NVIDIA driver says",
        )
    # CUDA takes any beginning of a UUID that fits one GPU alone.
    fitting = [device.index for device in devices if device.uuid.startswith(token)]
    if len(fitting) != 1:
        raise AllocationError(
            f"{token} fits {len(fitting)} of the {len(devices)} GPUs that nvidia-smi lists",
            "see `nvidia-smi -L` on this node",
        )
    return fitting[0]


def _refuse_strangers(
    ids: Sequence[int], variables: Mapping[str, str], devices: Sequence[Device] | None
) -> None:
    """Refuse GPUs that are not this job's, or not there.

    SLURM_JOB_GPUS holds the node's own numbers. CUDA_VISIBLE_DEVICES holds the same, except where
    a device cgroup hides the other GPUs: there it counts what is left from 0
    (https://slurm.schedmd.com/gres.html#GPU_Management).
    """
    if devices is not None:
        absent = sorted(set(ids) - {device.index for device in devices})
        if absent:
            raise AllocationError(
                f"GPU {_list(absent)} is not among the {len(devices)} that nvidia-smi lists",
                "CUDA_VISIBLE_DEVICES does not fit this node: see `nvidia-smi -L` there",
            )
    granted = parse_ids(variables.get("SLURM_STEP_GPUS") or variables.get("SLURM_JOB_GPUS") or "")
    if not granted or set(ids) <= set(granted):
        return
    confined = devices is None or len(devices) <= len(granted)
    if confined and set(ids) <= set(range(len(granted))):
        return
    raise AllocationError(
        f"GPU {_list(ids)} is outside the allocation, which is GPU {_list(granted)}",
        "something changed CUDA_VISIBLE_DEVICES after SLURM set it: look at the setup lines and .env",
    )


def parse_ids(text: str) -> tuple[int, ...]:
    """Read SLURM's list of GPU numbers (`0,2-3`); other words in it are left out."""
    ids: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first.isdigit() and (last.isdigit() or not last):
            ids.extend(range(int(first), int(last or first) + 1))
    return tuple(ids)


def _list(ids: Sequence[int]) -> str:
    return ",".join(map(str, ids))
