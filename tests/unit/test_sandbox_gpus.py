from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from medarc_plugin.errors import SandboxError
from medarc_plugin.process import Completed
from medarc_plugin.sandbox import gpus
from medarc_plugin.sandbox.gpus import RealGpu, allot, detect, is_real, type_slug
from medarc_plugin.sandbox.spec import SandboxSpec

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-40GB", "a100"),
        ("Tesla V100-SXM2-16GB", "v100"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA RTX A6000", "rtxa6000"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA GH200 480GB", "gh200"),
        ("NVIDIA Graphics Device", "gpu"),
        ("", "gpu"),
    ],
)
def test_type_slug(name: str, slug: str) -> None:
    assert type_slug(name) == slug


def answer(monkeypatch: pytest.MonkeyPatch, code: int, text: str) -> None:
    monkeypatch.setattr(gpus, "run", lambda argv, **_: Completed(tuple(argv), code, text, ""))


def test_detect_sorts_by_number_and_takes_gpus_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm", "nvidia0x"):
        (tmp_path / name).touch()
    answer(monkeypatch, 0, "NVIDIA L4\nNVIDIA H100 80GB HBM3\n")

    assert detect(tmp_path) == (
        RealGpu(str(tmp_path / "nvidia2"), "l4"),
        RealGpu(str(tmp_path / "nvidia10"), "h100"),
    )


@pytest.mark.parametrize(("code", "text"), [(127, ""), (0, "NVIDIA L4\n"), (9, "failed\n\n")])
def test_detect_without_names(code: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nvidia0", "nvidia1"):
        (tmp_path / name).touch()
    answer(monkeypatch, code, text)

    assert [gpu.type for gpu in detect(tmp_path)] == ["gpu", "gpu"]


def test_no_gpus_are_not_asked_for_names(tmp_path: Path) -> None:
    assert detect(tmp_path) == ()


def test_standins_are_as_many_as_asked_for_on_each_node() -> None:
    allotted = allot(SandboxSpec(nodes=2, gpus=3, gpu_type="a100"), ())

    assert [(gpu.node, gpu.index, gpu.type) for gpu in allotted] == [
        ("node1", 0, "a100"),
        ("node1", 1, "a100"),
        ("node1", 2, "a100"),
        ("node2", 0, "a100"),
        ("node2", 1, "a100"),
        ("node2", 2, "a100"),
    ]
    assert not is_real(allotted)


def test_real_gpus_go_to_one_node() -> None:
    real = [RealGpu("/dev/nvidia0", "l4"), RealGpu("/dev/nvidia3", "h100")]
    allotted = allot(SandboxSpec(), real)

    assert [(gpu.node, gpu.index, gpu.type, gpu.device) for gpu in allotted] == [
        ("node1", 0, "l4", "/dev/nvidia0"),
        ("node1", 1, "h100", "/dev/nvidia3"),
    ]
    assert is_real(allotted)


def test_several_nodes_cannot_share_real_gpus() -> None:
    real = [RealGpu("/dev/nvidia0", "l4"), RealGpu("/dev/nvidia1", "l4")]
    with pytest.raises(SandboxError, match="2 nodes cannot share this machine's 2 real GPUs"):
        allot(SandboxSpec(nodes=2), real)

    assert allot(SandboxSpec(nodes=2, gpus=0), real) == ()


def test_fewer_real_gpus_can_be_asked_for_and_more_cannot() -> None:
    real = [RealGpu("/dev/nvidia0", "l4"), RealGpu("/dev/nvidia1", "l4")]

    assert len(allot(SandboxSpec(gpus=1), real)) == 1
    with pytest.raises(SandboxError, match="3 GPUs were asked for and this machine has 2"):
        allot(SandboxSpec(gpus=3), real)
