from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from medarc_plugin.sandbox import processes
from medarc_plugin.sandbox.processes import daemons, end, is_alive, of_sandbox, running, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SHORT = "/tmp/slurm-sandbox-abc"
CONF = f"{SHORT}/d/slurm.conf"


def process(
    proc: Path,
    pid: int,
    *arguments: str,
    parent: int = 1,
    state: str = "S",
    files: tuple[str, ...] = (),
    environment: tuple[str, ...] = (),
) -> None:
    entry = proc / str(pid)
    (entry / "fd").mkdir(parents=True)
    # The name in brackets may hold brackets and spaces of its own.
    (entry / "stat").write_text(f"{pid} (a) b ) {state} {parent} 1 1")
    (entry / "cmdline").write_bytes(b"".join(f"{word}\0".encode() for word in arguments))
    (entry / "environ").write_bytes(b"".join(f"{word}\0".encode() for word in environment))
    for number, file in enumerate(files):
        (entry / "fd" / str(number)).symlink_to(file)


def test_a_daemon_is_known_by_its_arguments_not_its_number(tmp_path: Path) -> None:
    process(tmp_path, 10, "/usr/sbin/slurmctld", "-f", CONF)
    process(tmp_path, 11, "/usr/sbin/slurmctld", "-f", "/etc/slurm/slurm.conf")
    process(tmp_path, 12, "/usr/sbin/slurmd", "-f", CONF, "-N", "node1")
    process(tmp_path, 13, "/usr/sbin/slurmd", "-f", CONF, "-N", "node2")
    process(tmp_path, 14, "vim", "-f", CONF)

    assert [one.pid for one in daemons(["slurmctld", "-f", CONF], tmp_path)] == [10]
    assert [one.pid for one in daemons(["/x/slurmd", "-f", CONF, "-N", "node2"], tmp_path)] == [13]


def test_a_daemon_comes_before_what_it_forked(tmp_path: Path) -> None:
    process(tmp_path, 9, "slurmctld", "-f", CONF, parent=30)
    process(tmp_path, 30, "slurmctld", "-f", CONF)

    assert [one.pid for one in daemons(["slurmctld", "-f", CONF], tmp_path)] == [30, 9]


def test_a_zombie_has_ended(tmp_path: Path) -> None:
    process(tmp_path, 10, "slurmctld", state="Z")
    process(tmp_path, 11, "slurmctld")

    assert [one.pid for one in running(tmp_path)] == [11]
    assert not is_alive(10, tmp_path)
    assert not is_alive(12, tmp_path)


def test_what_belongs_to_a_sandbox(tmp_path: Path) -> None:
    ours = ("SLURM_JOB_ID=1", f"SLURM_CONF={CONF}")
    process(tmp_path, 10, "munged", f"--socket={SHORT}/munge.socket")
    process(tmp_path, 11, "slurmctld", "-f", CONF)
    process(tmp_path, 12, "slurmctld: slurmscriptd", files=("/data/sandbox/log/slurmctld.log",))
    process(tmp_path, 13, "slurmstepd: [1.batch]", files=("/data/sandbox/log/slurmd-node1.log",))
    process(tmp_path, 14, "sleep", "9", environment=(*ours, "SLURMD_NODENAME=node1"))

    process(tmp_path, 20, "bash", environment=(f"SLURM_CONF={CONF}",))
    process(tmp_path, 21, "salloc", environment=ours)
    process(tmp_path, 22, "slurmstepd: [1.batch]", files=("/var/log/slurm/slurmd.log",))
    process(tmp_path, 23, "slurmctld", "-f", f"{SHORT}2/d/slurm.conf")
    process(tmp_path, 24, "less", "/data/sandbox/log/slurmctld.log")
    process(tmp_path, 25, "sleep", environment=("SLURM_CONF=/etc/slurm.conf", "SLURMD_NODENAME=n"))
    found = of_sandbox([SHORT, "/data/sandbox"], tmp_path)

    assert sorted(one.pid for one in found) == [10, 11, 12, 13, 14]


def test_a_job_that_takes_its_sandbox_down_spares_itself(tmp_path: Path) -> None:
    inside = (f"SLURM_CONF={CONF}", "SLURMD_NODENAME=node1")
    process(tmp_path, os.getpid(), "python", parent=50, environment=inside)
    process(tmp_path, 50, "bash", parent=1, environment=inside)
    process(tmp_path, 51, "sleep", parent=50, environment=inside)

    assert [one.pid for one in of_sandbox([SHORT], tmp_path)] == [51]


def test_end_is_gentle_first_and_firm_then() -> None:
    stubborn = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
    with (
        subprocess.Popen(["sleep", "600"]) as gentle,
        subprocess.Popen(["bash", "-c", stubborn], stdout=subprocess.PIPE) as firm,
    ):
        assert firm.stdout is not None
        firm.stdout.readline()
        wanted = {gentle.pid, firm.pid}
        end([one for one in running() if one.pid in wanted], grace=0.3)

        assert (gentle.wait(), firm.wait()) == (-15, -9)


def test_end_without_grace_kills_at_once() -> None:
    with subprocess.Popen(["sleep", "600"]) as child:
        end([one for one in running() if one.pid == child.pid], grace=0)

        assert child.wait() == -9


def test_wait_until_asks_at_least_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_POLL_SECONDS", 0.001)
    answers = iter([False, False, True])

    assert wait_until(lambda: True, 0)
    assert not wait_until(lambda: False, 0.01)
    assert wait_until(lambda: next(answers), 5)
