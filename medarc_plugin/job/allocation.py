"""Which GPUs this job may use: from the allocation, never counted from 0."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# SLURM's word for a job whose GPU request was granted no device files.
NO_DEVICES = "NoDevFiles"

# A part of a GPU (MIG): `MIG-<uuid>`, and `MIG-GPU-<uuid>/<instance>/<instance>` before driver 470.
SLICE = "MIG-"

# MiB of a slice for each `gb` of its name: an A100's 1g.10gb has 9728, larger ones a little more.
SLICE_MIB = 972


@dataclass(frozen=True)
class Slice:
    """A part of a GPU (MIG), as the driver lists it.

    Attributes:
        uuid: `MIG-...`.
        profile: Its shape, `1g.10gb`.
    """

    uuid: str
    profile: str


@dataclass(frozen=True)
class Device:
    """A GPU as the driver lists it.

    Attributes:
        index: Its number in the driver's (PCI bus) order, which prime-rl makes CUDA's order too.
        uuid: `GPU-...`.
        name: Product name.
        memory: Its memory, as `nvidia-smi` words it.
        slices: The parts that it is cut into, in the driver's order; only asked for where the
            allocation names one.
    """

    index: int
    uuid: str
    name: str
    memory: str
    slices: tuple[Slice, ...] = ()

    @property
    def mib(self) -> int | None:
        """Memory that a process on it has, in MiB; of a GPU that is cut up, its first slice's."""
        if self.slices:
            size = re.search(r"(\d+)gb", self.slices[0].profile)
            return int(size.group(1)) * SLICE_MIB if size else None
        number, _, unit = self.memory.partition(" ")
        return int(number) if number.isdigit() and unit == "MiB" else None


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


_GPU_LINE = re.compile(r"GPU (\d+): .*\(UUID: ")
_SLICE_LINE = re.compile(r"\s*MIG (\S+)\s+Device\s+\d+: \(UUID: (MIG-[^)]+)\)")


def with_slices(devices: Sequence[Device], listing: str) -> tuple[Device, ...]:
    """Add what `nvidia-smi -L` says about slices.

    Args:
        devices: The GPUs.
        listing: Its output: a line for each GPU, and below it one for each slice that this process
            may use (https://docs.nvidia.com/datacenter/tesla/mig-user-guide/mig-device-names.html).
    """
    slices: dict[int, list[Slice]] = {}
    index = -1
    for line in listing.splitlines():
        gpu, part = _GPU_LINE.match(line), _SLICE_LINE.match(line)
        if gpu:
            index = int(gpu.group(1))
        elif part:
            slices.setdefault(index, []).append(Slice(uuid=part.group(2), profile=part.group(1)))
    return tuple(replace(device, slices=tuple(slices.get(device.index, ()))) for device in devices)


def visible_tokens(variables: Mapping[str, str]) -> tuple[str, ...]:
    """The entries of CUDA_VISIBLE_DEVICES."""
    visible = variables.get("CUDA_VISIBLE_DEVICES", "")
    return tuple(token.strip() for token in visible.split(",") if token.strip())


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
    tokens = visible_tokens(variables)
    if visible is None or not tokens or tokens == (NO_DEVICES,):
        state = "not set" if visible is None else f"{visible!r}"
        raise AllocationError(
            f"{wanted} wanted, none allocated: CUDA_VISIBLE_DEVICES is {state}",
            "see that the script asks for GPUs (--gres=gpu:N), and that this node's gres.conf "
            "names their device files",
        )
    sliced = [token for token in tokens if token.startswith(SLICE)]
    _refuse_sisters(sliced, devices)
    ids = tuple(_index(token, devices) for token in tokens)
    twice = sorted({number for number in ids if ids.count(number) > 1})
    if twice:
        raise AllocationError(
            f"CUDA_VISIBLE_DEVICES={visible} names GPU {_list(twice)} twice",
            "something changed the variable after SLURM set it: look at the setup lines and .env",
        )
    if not sliced:
        # SLURM numbers slices, not the GPUs that they are of.
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
    if token.startswith(SLICE):
        return _index_of_slice(token, devices or ())
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


_WHOLE_GPUS = "ask for whole GPUs: another --gpu-type or partition"


def _index_of_slice(token: str, devices: Sequence[Device]) -> int:
    """Find the number under which CUDA finds this very slice.

    Of a GPU that is cut up, CUDA takes the first slice that it may use, whoever's it is
    (https://docs.nvidia.com/datacenter/tesla/mig-user-guide/mig-device-names.html). What a number
    counts depends on the driver: GPUs as `nvidia-smi` lists them
    (https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html);
    GPUs that are not cut up first, as was seen with older ones; or slices, since 570 lists several.
    So a number names a slice only where all of these agree.
    """
    parent, position = _find_slice(token, devices)
    if position > 0:
        raise AllocationError(
            f"{token} is slice {position + 1} of the {len(parent.slices)} that GPU {parent.index} shows "
            f"here; prime-rl can only be given GPU {parent.index}, and CUDA would take its first slice",
            f"{_WHOLE_GPUS}; or have the cluster show a job its own slices alone "
            "(ConstrainDevices=yes in cgroup.conf)",
        )
    before = [device for device in devices if device.index < parent.index]
    if any(not device.slices for device in devices) or any(len(device.slices) > 1 for device in before):
        raise AllocationError(
            f"{token} is a slice of GPU {parent.index}, one of {len(devices)} GPUs that are visible here "
            "and cut up in different ways: CUDA may count them so that this number is another one's",
            f"{_WHOLE_GPUS}; or have the cluster show a job its own GPUs alone "
            "(ConstrainDevices=yes in cgroup.conf)",
        )
    return parent.index


def _find_slice(token: str, devices: Sequence[Device]) -> tuple[Device, int]:
    """Find the GPU that a slice is of, and the slice's place on it."""
    fitting = [
        (device, place)
        for device in devices
        for place, part in enumerate(device.slices)
        if part.uuid.startswith(token)
    ]
    if not fitting and token.startswith(SLICE + "GPU-"):
        # The old form, with a driver that lists the new one: clear where the GPU has one slice.
        uuid = token[len(SLICE) :].partition("/")[0]
        fitting = [(device, 0) for device in devices if device.uuid == uuid and len(device.slices) == 1]
    if len(fitting) != 1:
        total = sum(len(device.slices) for device in devices)
        raise AllocationError(
            f"{token} fits {len(fitting)} of the {total} slices that nvidia-smi -L lists here, so that it "
            "cannot be turned into the number that prime-rl takes",
            f"see `nvidia-smi -L` on this node; {_WHOLE_GPUS}",
        )
    return fitting[0]


def _refuse_sisters(tokens: Sequence[str], devices: Sequence[Device] | None) -> None:
    """Refuse two slices of one GPU: one number cannot name both."""
    parents = [_find_slice(token, devices or ())[0].index for token in tokens]
    for index in parents:
        if parents.count(index) > 1:
            raise AllocationError(
                f"{parents.count(index)} slices of GPU {index} are allocated, which prime-rl cannot tell "
                "apart: it takes numbers of GPUs only",
                f"one slice can be shared by trainer and vLLM (--single-gpu); else {_WHOLE_GPUS}",
            )


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
