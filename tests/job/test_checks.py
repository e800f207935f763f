"""What the job looks at on its node before it starts anything: memory, threads, disk, slices."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from medarc_plugin.job import checks
from medarc_plugin.job.allocation import Device, Slice
from medarc_plugin.job.checks import Subject, check_disk, check_gpus, check_shared_gpu, check_threads
from medarc_plugin.job.launch import read_launch
from medarc_plugin.job.node import Driver, Node

GIB = 2**30
NEEDS = {
    "trainer_bytes": 10 * GIB,
    "inference_bytes": 6 * GIB,
    "reserve_bytes": 4 * GIB,
    "share": None,
    "share_path": "inference.vllm.gpu_memory_utilization",
    "fixed": False,
}
H200 = Device(5, "GPU-5", "NVIDIA H200", "143771 MiB")


@pytest.fixture
def subject(run: Any) -> Any:
    """What the checks look at; changes go into launch.json, the variables or the config."""

    def make(
        variables: dict[str, str] | None = None,
        config: dict[str, Any] | None = None,
        devices: tuple[Device, ...] | None = (H200,),
        cpus: int = 4,
        **launch: Any,
    ) -> Subject:
        run.document.update(launch)
        run.write()
        gpus = tuple(device.index for device in devices or ())
        node = Node("node1", "17", 0, variables or {}, cpus, None, None, Driver(devices))
        return Subject(read_launch(run.folder / "launch.json"), node, gpus, ("", ""), config, "", None)

    return make


def said(found: Any) -> list[tuple[str, str]]:
    return [(check.status, check.text) for check in found]


# The GPU that trainer and vLLM share


def test_the_share_on_this_gpu_is_said(subject: Any) -> None:
    assert said(check_shared_gpu(subject(memory=NEEDS))) == [
        ("ok", "a GPU of 140.4 GiB for trainer and vLLM; vLLM's share is 0.471")
    ]


def test_a_gpu_that_is_too_small_fails(subject: Any) -> None:
    slice_of_ten = Device(0, "GPU-0", "NVIDIA A100", "81920 MiB", (Slice("MIG-1", "1g.10gb"),))

    (check,) = check_shared_gpu(subject(devices=(slice_of_ten,), memory=NEEDS))

    assert check.status == "FAIL"
    assert check.text.endswith("on a GPU of 9.5 GiB")
    assert check.hint


def test_a_share_of_the_configs_own_is_said(subject: Any) -> None:
    assert said(check_shared_gpu(subject(memory={**NEEDS, "share": 0.5, "fixed": True}))) == [
        ("ok", "a GPU of 140.4 GiB for trainer and vLLM; vLLM's share is 0.5, as the config says")
    ]


def test_a_made_up_gpu_has_no_size(subject: Any) -> None:
    found = check_shared_gpu(subject(devices=None, memory=NEEDS))

    assert said(found) == [
        (
            "skip",
            "the GPU's size is not known, so nobody looked whether trainer and vLLM fit; vLLM's share is 0.3",
        )
    ]


def test_without_a_shared_gpu_nothing_is_said(subject: Any) -> None:
    assert said(check_shared_gpu(subject())) == []


# OMP_NUM_THREADS


@pytest.mark.parametrize(
    ("entrypoint", "config", "status", "text"),
    [
        ("rl", {}, "ok", "1 for each of prime-rl's processes"),
        (
            "rl",
            {"trainer": {"env_vars": {"OMP_NUM_THREADS": "4"}}, "inference": {}},
            "ok",
            "4 for trainer, 1 for orchestrator, 1 for inference",
        ),
        (
            "rl",
            {"env_vars": {"OMP_NUM_THREADS": 8}, "orchestrator": {"env_vars": {"OMP_NUM_THREADS": 2}}},
            "warn",
            "8 for trainer, 2 for orchestrator; the job has 4 CPU(s)",
        ),
        ("sft", {"env_vars": {"OMP_NUM_THREADS": "3"}}, "ok", "3 for each of prime-rl's processes"),
        (
            "inference",
            {"env_vars": {"OMP_NUM_THREADS": "5"}},
            "warn",
            "5 for each of prime-rl's processes; the job has 4 CPU(s)",
        ),
        ("rl", {"env_vars": {"OMP_NUM_THREADS": "2,4"}}, "ok", "2,4 for each of prime-rl's processes"),
    ],
)
def test_the_threads_that_each_component_will_have(
    subject: Any, entrypoint: str, config: dict[str, Any], status: str, text: str
) -> None:
    assert said(check_threads(subject(config=config, entrypoint=entrypoint))) == [(status, text)]


def test_threads_of_the_jobs_own_environment_are_not_passed_on(subject: Any) -> None:
    found = check_threads(subject({"OMP_NUM_THREADS": "16"}))

    own = "the job's own 16 does not reach them: prime-rl sets it anew"
    assert said(found) == [("ok", f"1 for each of prime-rl's processes ({own})")]


# Free disk


class System(NamedTuple):
    f_bavail: int
    f_frsize: int


@pytest.fixture
def disks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make up the free disk, in MiB, by folder."""

    def play(free: dict[str, int]) -> None:
        def statvfs(folder: str) -> System:
            for place, mib in free.items():
                if folder.startswith(place):
                    return System(mib * 256, 4096)
            raise FileNotFoundError(2, "No such file or directory")

        monkeypatch.setattr(checks.os, "statvfs", statvfs)

    return play


def test_free_disk_is_reported(subject: Any, disks: Any, run: Any) -> None:
    disks({"/local": 51200, "/": 1536})

    assert said(check_disk(subject({"TMPDIR": "/local/tmp"}))) == [
        ("ok", f"1.5 GiB in the run directory, {run.run_dir}"),
        ("ok", "50.0 GiB in the temporary directory, /local/tmp"),
    ]


def test_too_little_free_disk_fails_with_figures(subject: Any, disks: Any, run: Any) -> None:
    disks({"/local": 51200, "/": 1536})

    run_directory, temporary = check_disk(subject({"TMPDIR": "/local"}, min_free_disk_mib=2048))

    assert (run_directory.status, run_directory.text) == (
        "FAIL",
        f"1.5 GiB in the run directory, {run.run_dir}; 2.0 GiB wanted",
    )
    assert "--min-free-disk" in run_directory.hint
    assert temporary.status == "ok"


@pytest.mark.parametrize(("wanted", "status"), [(None, "warn"), (1, "FAIL")])
def test_a_temporary_directory_that_is_not_there(
    subject: Any, disks: Any, run: Any, wanted: int | None, status: str
) -> None:
    disks({str(run.run_dir): 10})

    _, temporary = check_disk(subject(min_free_disk_mib=wanted))

    assert (temporary.status, temporary.text) == (
        status,
        "cannot look at the temporary directory, /tmp: No such file or directory",
    )


def test_a_node_without_the_free_disk_ends_the_job(run: Any, tmp_path: Path) -> None:
    run.document["min_free_disk_mib"] = 2**50

    finished = run.attempt(TMPDIR=str(tmp_path))

    assert finished.code == 3
    assert [line.partition(" GiB in ")[2].split(",")[0] for line in finished.lines("[FAIL]")] == [
        "the run directory",
        "the temporary directory",
    ]
    assert not Path(run.variables["STANDIN_REPORT"]).exists()


# Slices of GPUs

SLICES = """#!/bin/sh
case "$*" in
"-L")
    echo "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-21a5757c-414f-8dd6-7fff-4a409de596f3)"
    echo "  MIG 4g.20gb     Device  0: (UUID: MIG-4f421ec4-5175-50ef-8452-d6abb13cb1d2)" ;;
*) echo "0, GPU-21a5757c-414f-8dd6-7fff-4a409de596f3, NVIDIA A100-SXM4-40GB, 40960 MiB" ;;
esac
"""


def test_a_slice_becomes_the_number_that_prime_rl_takes(run: Any, report: Any) -> None:
    run.set_program("nvidia-smi", SLICES)
    run.document["gpus"] = {"count": 1, "shared": True, "trainer": 1, "inference": 1}
    run.document["memory"] = {**NEEDS, "trainer_bytes": 2 * GIB}
    run.set_config(weight_broadcast={"type": "filesystem"})

    finished = run.attempt(
        CUDA_VISIBLE_DEVICES="MIG-4f421ec4-5175-50ef-8452-d6abb13cb1d2", SLURM_JOB_GPUS="3"
    )

    assert finished.code == 0, finished.log
    assert report()["gpus"] == [0]
    assert "[ ok ] GPUs: 1 of 1 wanted: 0: NVIDIA A100-SXM4-40GB, slice 4g.20gb" in finished.log
    assert "[ ok ] GPU memory: a GPU of 19.0 GiB for trainer and vLLM; vLLM's share is 0.5" in finished.log


def test_a_driver_that_lists_no_slices_is_said(run: Any) -> None:
    finished = run.attempt(CUDA_VISIBLE_DEVICES="MIG-4f421ec4,2")

    assert finished.code == 3
    assert "GPUs: MIG-4f421ec4 fits 0 of the 0 slices that nvidia-smi -L lists here" in finished.log


def test_several_slices_for_one_component_are_refused(subject: Any) -> None:
    devices = tuple(
        Device(index, f"GPU-{index}", "NVIDIA A100", "40960 MiB", (Slice(f"MIG-{index}", "4g.20gb"),))
        for index in range(3)
    )
    gpus = {"count": 3, "shared": False, "trainer": 2, "inference": 1}

    (check,) = check_gpus(subject(devices=devices, gpus=gpus))

    assert check.status == "FAIL"
    assert check.text.startswith("2 wanted for the trainer and 1 for vLLM, but these are slices")


def test_every_check_is_made_once() -> None:
    assert len(set(checks.CHECKS)) == len(checks.CHECKS)
    assert {check.__name__ for check in checks.CHECKS} == {
        name for name in vars(checks) if name.startswith("check_")
    }
