"""Which GPUs an allocation holds: a table of what SLURM and CUDA can say."""

from typing import Any

import pytest

from medarc_plugin.job.allocation import AllocationError, allocated_gpus, parse_devices, parse_ids

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
        ("MIG-9f2c,2", None, EIGHT, "MIG-9f2c is a MIG slice"),
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
