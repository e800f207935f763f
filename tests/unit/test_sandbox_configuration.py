from __future__ import annotations

from dataclasses import replace

import pytest

from medarc_plugin.errors import SandboxError
from medarc_plugin.sandbox.configuration import (
    Place,
    render_cgroup_conf,
    render_gres_conf,
    render_slurm_conf,
)
from medarc_plugin.sandbox.gpus import Gpu, allot
from medarc_plugin.sandbox.spec import SandboxSpec

PLACE = Place(
    root="/tmp/s/d",
    munge_socket="/tmp/s/munge.socket",
    user="ada",
    controller_port=20001,
    node_ports=(20002,),
    loopback_only=True,
)


def settings(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def test_one_node_with_eight_standins() -> None:
    spec = SandboxSpec(gpu_kind="standin")
    found = settings(render_slurm_conf(spec, PLACE, allot(spec, ())))

    assert found["SlurmctldHost"] == "localhost(127.0.0.1)"
    assert found["SlurmctldPort"] == "20001"
    assert found["SlurmUser"] == found["SlurmdUser"] == "ada"
    assert found["AuthInfo"] == "socket=/tmp/s/munge.socket,cred_expire=5"
    assert found["StateSaveLocation"] == "/tmp/s/d/state"
    assert found["NodeName"] == (
        "node1 NodeHostname=localhost NodeAddr=127.0.0.1 Port=20002 CPUs=64 Boards=1 "
        "SocketsPerBoard=1 CoresPerSocket=64 ThreadsPerCore=1 RealMemory=512000 "
        "Gres=gpu:h100:8 Feature=h100"
    )
    assert found["PartitionName"].startswith("debug Nodes=ALL Default=YES")


def test_loopback_alone_only_where_the_host_is_loopback() -> None:
    spec = SandboxSpec(gpus=0)
    elsewhere = replace(PLACE, loopback_only=False)

    assert "CommunicationParameters" in settings(render_slurm_conf(spec, PLACE, ()))
    assert "CommunicationParameters" not in settings(render_slurm_conf(spec, elsewhere, ()))


@pytest.mark.parametrize("loopback_only", [True, False])
def test_credentials_are_always_munge(loopback_only: bool) -> None:
    place = replace(PLACE, loopback_only=loopback_only)
    found = settings(render_slurm_conf(SandboxSpec(gpus=0), place, ()))

    assert (found["AuthType"], found["CredType"]) == ("auth/munge", "cred/munge")


def test_an_extra_line_replaces_the_setting_of_that_name() -> None:
    spec = SandboxSpec(gpus=0, extra_lines=("killwait=30", "PartitionName=low Nodes=ALL"))
    lines = render_slurm_conf(spec, PLACE, ()).splitlines()

    assert [line for line in lines if line.lower().startswith("killwait")] == ["killwait=30"]
    assert [line.split()[0] for line in lines if line.startswith("PartitionName")] == [
        "PartitionName=debug",
        "PartitionName=low",
    ]


def test_no_default_partition_when_none_is_wanted() -> None:
    assert "PartitionName" not in render_slurm_conf(SandboxSpec(gpus=0, partition=None), PLACE, ())


def test_gpus_of_two_types_are_counted_apart() -> None:
    gpus = tuple(Gpu("node1", index, kind, "/dev/null") for index, kind in enumerate(("l4", "h100", "l4")))

    assert "Gres=gpu:h100:1,gpu:l4:2 Feature=l4,h100" in render_slurm_conf(SandboxSpec(), PLACE, gpus)
    assert render_gres_conf(PLACE, gpus).splitlines() == [
        "NodeName=node1 Name=gpu Type=l4 File=/tmp/s/d/gpu/node1/gpu0",
        "NodeName=node1 Name=gpu Type=h100 File=/tmp/s/d/gpu/node1/gpu1",
        "NodeName=node1 Name=gpu Type=l4 File=/tmp/s/d/gpu/node1/gpu2",
    ]


def test_no_gpus_need_no_gres() -> None:
    assert render_gres_conf(PLACE, ()) == ""
    assert "Gres=" not in render_slurm_conf(SandboxSpec(gpus=0), PLACE, ())


def test_every_node_has_a_line_and_a_port() -> None:
    spec = SandboxSpec(nodes=2, gpus=0)
    text = render_slurm_conf(spec, replace(PLACE, node_ports=(1, 2)), ())

    assert [line.split()[:4] for line in text.splitlines() if line.startswith("NodeName")] == [
        ["NodeName=node1", "NodeHostname=localhost", "NodeAddr=127.0.0.1", "Port=1"],
        ["NodeName=node2", "NodeHostname=localhost", "NodeAddr=127.0.0.1", "Port=2"],
    ]


def test_a_path_too_long_for_a_socket_is_refused() -> None:
    with pytest.raises(SandboxError, match="107 is the most"):
        render_slurm_conf(SandboxSpec(gpus=0), replace(PLACE, root="/tmp/" + 80 * "x"), ())


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ((20, 11), None),
        ((21, 8), "CgroupPlugin=cgroup/v1\n"),
        ((22, 5), "CgroupPlugin=cgroup/v1\n"),
        ((23, 11), "CgroupPlugin=cgroup/v1\n"),
        ((24, 5), "CgroupPlugin=disabled\n"),
        ((24, 11), "CgroupPlugin=disabled\n"),
    ],
)
def test_cgroup_plugin_of_each_version(version: tuple[int, int], expected: str | None) -> None:
    assert render_cgroup_conf(version) == expected
