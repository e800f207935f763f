"""Port leases: many takers on one node, some of them killed, and configs rewritten to a lease."""

import copy
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from medarc_plugin.job import ports

TAKERS = 200
TAKER = """
import sys
import tempfile
from pathlib import Path
from medarc_plugin.job import ports
lease = ports.take(64, (21000,))
print(lease.first, flush=True)
sys.stdin.read()
"""


def start_takers(count):
    """Start processes that each take a lease and hold it until their input ends."""
    return [
        subprocess.Popen(
            [sys.executable, "-c", TAKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(count)
    ]


def services_on(numbers):
    """Name the ports that something holds."""
    return [number for number in numbers if not ports.is_free(number)]


def ended(takers):
    for taker in takers:
        taker.stdin.close()
    for taker in takers:
        taker.wait(timeout=60)
        taker.stdout.close()


def test_200_takers_never_share_a_port_and_the_dead_leave_nothing_behind():
    takers = start_takers(TAKERS)
    try:
        firsts = [int(taker.stdout.readline()) for taker in takers]
        killed = takers[::5]
        for taker in killed:
            os.kill(taker.pid, signal.SIGKILL)
            taker.wait(timeout=60)
        again = [ports.take(64) for _ in killed]
    finally:
        ended(takers)
    blocks = {port for first in firsts for port in range(first, first + 64)}

    assert len(blocks) == TAKERS * 64
    living = {first for taker, first in zip(takers, firsts, strict=True) if taker not in killed}
    assert not living & {lease.first for lease in again}
    assert services_on(sorted(blocks - {lease.first for lease in again})) == []
    for lease in again:
        lease.release()


def test_a_lease_is_not_inherited_by_the_services_that_a_run_starts():
    lease = ports.take()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False) as child:
        lease.release()
        held = services_on([lease.first])
        child.stdin.close()

    assert held == []


def test_a_block_with_a_strangers_port_in_it_is_left_alone(monkeypatch):
    monkeypatch.setattr(ports, "_candidates", lambda *_: iter((20_032, 20_096)))
    with socket.create_server(("127.0.0.1", 20_040)) as stranger:
        assert stranger.getsockname()[1] == 20_040
        lease = ports.take()

    assert lease.first == 20_096
    lease.release()


def test_no_block_left_is_said_with_the_range(monkeypatch):
    monkeypatch.setattr(ports, "_candidates", lambda *_: iter(()))

    with pytest.raises(ports.NoPortsError, match="no 64 free ports in a row between 10000 and"):
        ports.take()


def test_leases_stay_below_the_clients_ports_and_above_the_defaults():
    leases = [ports.take(above=(21_000,)) for _ in range(8)]
    low, high = ports.ephemeral_range()

    for lease in leases:
        lease.release()
        assert lease.first >= ports.FIRST_PORT
        assert lease.first + lease.size <= min(low, ports.LAST_SERVER_PORT)
        assert not low <= lease.port(1) + 21_000 <= high


def test_every_field_of_a_service_is_rewritten_and_nothing_else():
    document = {
        "server": {"port": 8000, "host": None},
        "client": {
            "base_url": "http://localhost:8000/v1",
            "admin": ["http://[::1]:8100/v1", "http://a:8100"],
        },
        "absent": None,
        "list": [{"port": 5}, {"port": 6}],
    }
    before = copy.deepcopy(document)
    slots = [
        {"offset": 1, "paths": ["server.port", "client.base_url", "absent.port", "nowhere.port"]},
        {"offset": 2, "paths": ["client.admin[*]", "list[*].port"]},
    ]
    lease = ports.take()
    first = lease.first
    changed = ports.rewritten(document, slots, lease)
    lease.release()

    assert document == before
    assert changed == {
        "server": {"port": first + 1, "host": None},
        "client": {
            "base_url": f"http://localhost:{first + 1}/v1",
            "admin": [f"http://[::1]:{first + 2}/v1", f"http://a:{first + 2}"],
        },
        "absent": None,
        "list": [{"port": first + 2}, {"port": first + 2}],
    }


def test_a_service_waits_for_no_lease_of_a_dead_owner():
    taker = start_takers(1)[0]
    first = int(taker.stdout.readline())
    taker.kill()
    taker.wait(timeout=60)
    readable, _, _ = select.select([taker.stdout], [], [], 0)
    taker.stdin.close()
    taker.stdout.close()

    assert readable
    assert services_on([first]) == []


NOBODY = 65534
SYSTEM_PYTHON = "/usr/bin/python3"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
@pytest.mark.skipif(not os.access(SYSTEM_PYTHON, os.X_OK), reason=f"{SYSTEM_PYTHON} is not there")
def test_another_user_neither_shares_a_block_nor_stands_in_the_way():
    # A copy that everybody may read, as the frozen job code is, for an interpreter that everybody may run.
    folder = Path(tempfile.mkdtemp(prefix="ports-"))
    shutil.copy(ports.__file__, folder)
    folder.chmod(0o755)
    found = f"sys.path.insert(0, {str(folder)!r}); import ports"
    text = TAKER.replace("from medarc_plugin.job import ports", found)
    stranger = subprocess.Popen(
        [SYSTEM_PYTHON, "-B", "-c", text],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        user=NOBODY,
        group=NOBODY,
    )
    try:
        first = int(stranger.stdout.readline())
        mine = [ports.take(64) for _ in range(20)]
        stranger.kill()
        stranger.wait(timeout=60)
        freed = services_on(range(first, first + 64))
    finally:
        ended([stranger])
        shutil.rmtree(folder)

    assert first not in {lease.first for lease in mine}
    assert freed == []
    for lease in mine:
        lease.release()
