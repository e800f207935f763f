"""vLLM's share of a GPU that it shares, for the GPU that the job got."""

from typing import Any

import pytest

from medarc_plugin.job.allocation import Device, Slice
from medarc_plugin.job.memory import MemoryShareError, gpu_mib, share_for

GIB = 2**30
NEEDS = {
    "trainer_bytes": 10 * GIB,
    "inference_bytes": 6 * GIB,
    "reserve_bytes": 4 * GIB,
    "share": None,
    "share_path": "inference.vllm.gpu_memory_utilization",
    "fixed": False,
}


def share(gib: float | None, **changes: Any) -> float:
    return share_for({**NEEDS, **changes}, None if gib is None else int(gib * 1024))


@pytest.mark.parametrize(
    ("gib", "expected"),
    [
        # Its least alone, its least and half of what is left, and no more than the most.
        (20, 0.3),
        (40, 0.4),
        (80, 0.45),
        (140, 0.471),
    ],
)
def test_vllm_gets_its_least_and_half_of_the_rest(gib: float, expected: float) -> None:
    assert share(gib) == expected


def test_the_share_leaves_the_trainer_its_need_and_vllm_its_least() -> None:
    for gib in (21, 24, 45, 80, 140, 180):
        found = share(gib)

        assert found * gib >= 6
        assert (1 - found) * gib >= 14


def test_vllm_never_gets_everything() -> None:
    assert share(100, trainer_bytes=GIB, inference_bytes=90 * GIB, reserve_bytes=GIB) == 0.9


def test_both_that_do_not_fit_are_refused_with_figures() -> None:
    with pytest.raises(MemoryShareError) as refused:
        share(19)

    assert str(refused.value) == (
        "trainer and vLLM do not fit on one GPU: the trainer needs about 10.0 GiB, vLLM at least 6.0 "
        "and both 4.0 beside that, on a GPU of 19.0 GiB"
    )
    assert "LoRA" in refused.value.hint
    assert "two GPUs" in refused.value.hint


def test_a_share_of_the_configs_own_is_kept() -> None:
    assert share(40, share=0.55, fixed=True) == 0.55


@pytest.mark.parametrize(
    ("gib", "hint"),
    [
        (40, "set inference.vllm.gpu_memory_utilization to 0.65 or less, or leave it out; a smaller"),
        (19, "a smaller seq_len"),
    ],
)
def test_a_share_of_the_configs_own_that_leaves_too_little_is_refused(gib: float, hint: str) -> None:
    with pytest.raises(
        MemoryShareError, match=r"vLLM's share of 0.7 leaves the trainer too little"
    ) as refused:
        share(gib, share=0.7, fixed=True)

    assert refused.value.hint.startswith(hint)


@pytest.mark.parametrize(
    ("gib", "changes", "expected"),
    [
        (None, {}, 0.3),
        (None, {"share": 0.42}, 0.42),
        (80, {"trainer_bytes": None, "inference_bytes": None, "reserve_bytes": None}, 0.3),
        (80, {"trainer_bytes": None, "share": 0.6, "fixed": True}, 0.6),
    ],
)
def test_without_sizes_nothing_is_worked_out(
    gib: float | None, changes: dict[str, Any], expected: float
) -> None:
    assert share(gib, **changes) == expected


def gpu(index: int, memory: str, *profiles: str) -> Device:
    slices = tuple(Slice(f"MIG-{profile}", profile) for profile in profiles)
    return Device(index, f"GPU-{index}", "NVIDIA A100", memory, slices)


@pytest.mark.parametrize(
    ("device", "mib"),
    [
        (gpu(0, "143771 MiB"), 143771),
        (gpu(0, "81920 MiB", "1g.10gb", "3g.40gb"), 9720),
        (gpu(0, "81920 MiB", "1c.3g.40gb"), 38880),
        (gpu(0, "[N/A]"), None),
        (gpu(0, "80 GiB"), None),
    ],
)
def test_the_memory_of_a_gpu(device: Device, mib: int | None) -> None:
    assert gpu_mib([device, gpu(1, "1 MiB")], (0,)) == mib


def test_the_memory_of_a_gpu_that_nobody_lists() -> None:
    assert gpu_mib(None, (0,)) is None
    assert gpu_mib([], (0,)) is None
    assert gpu_mib([gpu(0, "5 MiB")], None) is None
