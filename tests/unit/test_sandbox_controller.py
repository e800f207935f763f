from __future__ import annotations

import pytest

from medarc_plugin.sandbox.controller import (
    client_environment,
    is_given_up,
    is_ready,
    parse_nodes,
)
from medarc_plugin.sandbox.spec import NodeStatus

# Seen on 22.05.8, shortened.
LINE = (
    "NodeName=node1 Arch=x86_64 CoresPerSocket=64  CPUAlloc=0 CPUTot=64 CPULoad=0.20 "
    "AvailableFeatures=h100 Gres=gpu:h100:8 NodeAddr=127.0.0.1 NodeHostName=localhost "
    "OS=Linux 6.1.0 #1 SMP Debian RealMemory=512000 AllocMem=0 State=IDLE+DRAIN "
    "Reason=a word State=UP [root@2026-01-01T00:00:00]"
)


def node(state: str) -> NodeStatus:
    return NodeStatus("node1", state, 64, 512000, "(null)")


def test_parse_nodes() -> None:
    assert parse_nodes(f"{LINE}\n\n") == (NodeStatus("node1", "idle+drain", 64, 512000, "gpu:h100:8"),)
    assert parse_nodes("No nodes in the system\n") == ()


@pytest.mark.parametrize(
    ("state", "ready", "given_up"),
    [
        ("idle", True, False),
        ("mixed", True, False),
        ("allocated+completing", True, False),
        ("idle+dynamic_norm", True, False),
        ("idle*", False, False),
        ("unknown", False, False),
        ("idle+drain", False, True),
        ("down", False, True),
        ("down*", False, True),
        ("idle+invalid_reg", False, True),
    ],
)
def test_states_of_nodes(state: str, ready: bool, given_up: bool) -> None:
    assert (is_ready(node(state)), is_given_up(node(state))) == (ready, given_up)


def test_wishes_of_an_enclosing_job_do_not_reach_the_sandbox(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("SLURM_JOB_ID", "SBATCH_PARTITION", "SQUEUE_FORMAT", "SLURM_CONF"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("SLURMISH", "kept")
    environment = client_environment("/s/slurm.conf")

    assert environment["SLURM_CONF"] == "/s/slurm.conf"
    assert environment["SLURMISH"] == "kept"
    assert {"SLURM_JOB_ID", "SBATCH_PARTITION", "SQUEUE_FORMAT"}.isdisjoint(environment)
