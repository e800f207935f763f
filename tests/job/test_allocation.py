"""Which GPUs an allocation holds: a table of what SLURM and CUDA can say."""

from typing import Any

import pytest

from medarc_plugin.job.allocation import (
    AllocationError,
    Device,
    Slice,
    allocated_gpus,
    parse_devices,
    parse_ids,
    with_slices,
)

UUIDS = {index: f"GPU-{index}c1f2b7e-5a3d-4f6e-9b1a-0d2c4e6f8a1{index}" for index in range(8)}


def listing(count: int) -> str:
    return "\n".join(f"{i}, {UUIDS[i]}, NVIDIA H200, 143771 MiB" for i in range(count))


EIGHT = parse_devices(listing(8))
TWO = parse_devices(listing(2))


@pytest.mark.parametrize(
    ("visible", "job_gpus", "devices", "ids"),
    [
        ("0,1", "0,1", EIGHT, (0, 1)),
        ("2,5", "2,5", EIGHT, (2, 5)),
        ("5,2", "2,5", EIGHT, (5, 2)),
        (" 2 , 5 ,", "2,5", EIGHT, (2, 5)),
        # A device cgroup hides the others and counts from 0.
        ("0,1", "2,5", TWO, (0, 1)),
        ("0,1", "2,5", None, (0, 1)),
        ("2,3", "2-3", EIGHT, (2, 3)),
        # Not every cluster sets SLURM_JOB_GPUS.
        ("2,5", None, EIGHT, (2, 5)),
        ("2,5", None, None, (2, 5)),
        (f"{UUIDS[5]},{UUIDS[2]}", "2,5", EIGHT, (5, 2)),
        ("GPU-5c1f,2", "2,5", EIGHT, (5, 2)),
    ],
)
def test_two_gpus_are_found(
    visible: str | None, job_gpus: str | None, devices: Any, ids: tuple[int, ...]
) -> None:
    variables = {"CUDA_VISIBLE_DEVICES": visible}
    if job_gpus is not None:
        variables["SLURM_JOB_GPUS"] = job_gpus

    assert allocated_gpus(variables, 2, devices) == ids


@pytest.mark.parametrize(
    ("visible", "job_gpus", "devices", "message"),
    [
        (None, None, EIGHT, "2 wanted, none allocated: CUDA_VISIBLE_DEVICES is not set"),
        ("", None, EIGHT, "2 wanted, none allocated: CUDA_VISIBLE_DEVICES is ''"),
        (",", None, EIGHT, "2 wanted, none allocated: CUDA_VISIBLE_DEVICES is ','"),
        ("NoDevFiles", None, EIGHT, "none allocated: CUDA_VISIBLE_DEVICES is 'NoDevFiles'"),
        ("2", "2", EIGHT, "2 wanted, 1 allocated: CUDA_VISIBLE_DEVICES=2"),
        ("1,2,3", "1,2,3", EIGHT, "2 wanted, 3 allocated: CUDA_VISIBLE_DEVICES=1,2,3"),
        ("2,2", "2", EIGHT, "CUDA_VISIBLE_DEVICES=2,2 names GPU 2 twice"),
        (f"2,{UUIDS[2]}", "2", EIGHT, "names GPU 2 twice"),
        ("0,1", "2,5", EIGHT, "GPU 0,1 is outside the allocation, which is GPU 2,5"),
        ("2,6", "2,5", EIGHT, "GPU 2,6 is outside the allocation, which is GPU 2,5"),
        ("7,8", None, EIGHT, "GPU 8 is not among the 8 that nvidia-smi lists"),
        ("-1,2", None, EIGHT, "CUDA_VISIBLE_DEVICES holds '-1', which is no GPU"),
        ("all", None, EIGHT, "CUDA_VISIBLE_DEVICES holds 'all', which is no GPU"),
        ("MIG-9f2c,2", None, EIGHT, "MIG-9f2c fits 0 of the 0 slices that nvidia-smi -L lists"),
        ("MIG-9f2c,2", None, None, "MIG-9f2c fits 0 of the 0 slices that nvidia-smi -L lists"),
        ("GPU-dead,2", None, EIGHT, "GPU-dead fits 0 of the 8 GPUs"),
        ("GPU-,2", None, EIGHT, "GPU- fits 8 of the 8 GPUs"),
        ("GPU-5c1f,2", None, None, "GPU-5c1f cannot be turned into a GPU id"),
    ],
)
def test_a_wrong_allocation_is_refused_with_a_way_out(
    visible: str | None, job_gpus: str | None, devices: Any, message: str
) -> None:
    variables = {}
    if visible is not None:
        variables["CUDA_VISIBLE_DEVICES"] = visible
    if job_gpus is not None:
        variables["SLURM_JOB_GPUS"] = job_gpus

    with pytest.raises(AllocationError) as refused:
        allocated_gpus(variables, 2, devices)

    assert message in str(refused.value)
    assert refused.value.hint


def test_the_step_says_more_than_the_job() -> None:
    variables = {
        "CUDA_VISIBLE_DEVICES": "5",
        "SLURM_JOB_GPUS": "2,5",
        "SLURM_STEP_GPUS": "2",
    }

    with pytest.raises(AllocationError, match="outside the allocation, which is GPU 2"):
        allocated_gpus(variables, 1, EIGHT)


def test_a_run_without_gpus_looks_for_none() -> None:
    assert allocated_gpus({}, 0, None) == ()


@pytest.mark.parametrize(
    ("text", "ids"),
    [("", ()), ("0", (0,)), ("0,2-4", (0, 2, 3, 4)), ("N/A", ()), ("gpu:2", ())],
)
def test_slurms_lists_of_gpus(text: str, ids: tuple[int, ...]) -> None:
    assert parse_ids(text) == ids


def test_a_name_with_a_comma_is_read() -> None:
    (device,) = parse_devices("3, GPU-a, NVIDIA X, with more, 80 GiB\n\n")

    assert (device.index, device.name, device.memory) == (3, "NVIDIA X, with more", "80 GiB")


# Slices of GPUs (MIG)

# As a job sees it whose devices are confined, and as one sees it that sees the whole node.
ONE_SLICE = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-21a5757c-414f-8dd6-7fff-4a409de596f3)
  MIG 4g.20gb     Device  0: (UUID: MIG-4f421ec4-5175-50ef-8452-d6abb13cb1d2)
"""
WHOLE_NODE = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-21a5757c-414f-8dd6-7fff-4a409de596f3)
  MIG 4g.20gb     Device  0: (UUID: MIG-4f421ec4-5175-50ef-8452-d6abb13cb1d2)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-0aa11ebd-627f-af3f-1a0d-4e1fd92fd7b0)
  MIG 1c.3g.20gb  Device  0: (UUID: MIG-0c757cd7-e942-5726-a0b8-0e8fb7067135)
  MIG 2g.10gb     Device  1: (UUID: MIG-703fb6ed-3fa0-5e48-8e65-1c5bdcfe2202)
GPU 2: NVIDIA A100-SXM4-40GB (UUID: GPU-08279800-1cbe-a71d-f3e6-8f67e15ae54a)
  MIG 3g.20gb     Device  0: (UUID: MIG-aa232436-d5a6-5e39-b527-16f9b223cc46)
"""
WITH_A_WHOLE_GPU = (
    WHOLE_NODE + "GPU 3: NVIDIA A100-SXM4-40GB (UUID: GPU-71086aca-c858-d1e0-aae1-275bed1008b9)\n"
)
OLD_DRIVER = """\
GPU 0: A100-SXM4-40GB (UUID: GPU-21a5757c-414f-8dd6-7fff-4a409de596f3)
  MIG 1g.5gb Device 0: (UUID: MIG-GPU-21a5757c-414f-8dd6-7fff-4a409de596f3/7/0)
  MIG 1g.5gb Device 1: (UUID: MIG-GPU-21a5757c-414f-8dd6-7fff-4a409de596f3/8/0)
"""


def cut_up(listing: str) -> tuple[Device, ...]:
    lines = [line for line in listing.splitlines() if line.startswith("GPU")]
    devices = [
        Device(index, line.split("UUID: ")[1].rstrip(")"), "NVIDIA A100-SXM4-40GB", "40960 MiB")
        for index, line in enumerate(lines)
    ]
    return with_slices(devices, listing)


def test_slices_are_read() -> None:
    devices = cut_up(WITH_A_WHOLE_GPU)

    assert [[part.profile for part in device.slices] for device in devices] == [
        ["4g.20gb"],
        ["1c.3g.20gb", "2g.10gb"],
        ["3g.20gb"],
        [],
    ]
    assert devices[0].slices == (Slice("MIG-4f421ec4-5175-50ef-8452-d6abb13cb1d2", "4g.20gb"),)


@pytest.mark.parametrize(
    ("listing", "visible", "ids"),
    [
        (ONE_SLICE, "MIG-4f421ec4-5175-50ef-8452-d6abb13cb1d2", (0,)),
        (ONE_SLICE, "MIG-4f421ec4", (0,)),
        # The old form, with a driver that lists the new one.
        (ONE_SLICE, "MIG-GPU-21a5757c-414f-8dd6-7fff-4a409de596f3/3/0", (0,)),
        (OLD_DRIVER, "MIG-GPU-21a5757c-414f-8dd6-7fff-4a409de596f3/7/0", (0,)),
        # The first slice of a GPU, behind GPUs of one slice each: every way of counting agrees.
        (WHOLE_NODE, "MIG-0c757cd7-e942-5726-a0b8-0e8fb7067135", (1,)),
        (WHOLE_NODE, "MIG-0c757cd7,MIG-4f421ec4", (1, 0)),
    ],
)
def test_a_slice_that_cuda_would_take_becomes_its_gpus_number(
    listing: str, visible: str, ids: tuple[int, ...]
) -> None:
    # SLURM counts slices, so that its numbers say nothing about GPUs.
    variables = {"CUDA_VISIBLE_DEVICES": visible, "SLURM_JOB_GPUS": "6"}

    assert allocated_gpus(variables, len(ids), cut_up(listing)) == ids


@pytest.mark.parametrize(
    ("listing", "visible", "message"),
    [
        (
            WHOLE_NODE,
            "MIG-703fb6ed",
            "MIG-703fb6ed is slice 2 of the 2 that GPU 1 shows here; prime-rl can only be given GPU 1",
        ),
        (OLD_DRIVER, "MIG-GPU-21a5757c-414f-8dd6-7fff-4a409de596f3/8/0", "is slice 2 of the 2 that GPU 0"),
        (WHOLE_NODE, "MIG-aa232436", "one of 3 GPUs that are visible here and cut up in different ways"),
        (WITH_A_WHOLE_GPU, "MIG-4f421ec4", "one of 4 GPUs that are visible here and cut up in different"),
        (WHOLE_NODE, "MIG-0c757cd7,MIG-703fb6ed", "2 slices of GPU 1 are allocated, which prime-rl cannot"),
        (WHOLE_NODE, "MIG-dead", "MIG-dead fits 0 of the 4 slices"),
        (WHOLE_NODE, "MIG-GPU-0aa11ebd-627f-af3f-1a0d-4e1fd92fd7b0/1/0", "fits 0 of the 4 slices"),
        (
            ONE_SLICE,
            "MIG-4f421ec4,GPU-21a5757c",
            "CUDA_VISIBLE_DEVICES=MIG-4f421ec4,GPU-21a5757c names GPU 0",
        ),
    ],
)
def test_a_slice_that_a_number_does_not_name_is_refused(listing: str, visible: str, message: str) -> None:
    with pytest.raises(AllocationError) as refused:
        allocated_gpus({"CUDA_VISIBLE_DEVICES": visible}, 1, cut_up(listing))

    assert message in str(refused.value)
    assert refused.value.hint


def test_fewer_slices_than_wanted() -> None:
    with pytest.raises(AllocationError, match="2 wanted, 1 allocated: CUDA_VISIBLE_DEVICES=MIG-4f42"):
        allocated_gpus({"CUDA_VISIBLE_DEVICES": "MIG-4f42"}, 2, cut_up(ONE_SLICE))
