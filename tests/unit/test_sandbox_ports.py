from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from medarc_plugin.errors import SandboxError
from medarc_plugin.sandbox import ports
from medarc_plugin.sandbox.ports import candidates, ephemeral_range, free_ports, is_free, is_served

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("ephemeral", "expected"),
    [
        ((32768, 60999), range(10000, 32768)),
        ((10100, 60999), range(61000, 65536)),
        ((1024, 65535), range(10000, 65536)),
    ],
)
def test_candidates_avoid_the_ephemeral_range(ephemeral: tuple[int, int], expected: range) -> None:
    assert candidates(ephemeral) == expected


def test_ephemeral_range_is_read_or_assumed(tmp_path: Path) -> None:
    file = tmp_path / "range"
    file.write_text("20000\t50000\n")

    assert ephemeral_range(file) == (20000, 50000)
    assert ephemeral_range(tmp_path / "missing") == (32768, 60999)


def test_free_ports_differ_and_are_free() -> None:
    chosen = free_ports(20)

    assert len(set(chosen)) == 20
    assert all(is_free(port) for port in chosen)


def test_a_port_in_use_is_not_free() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]

        assert not is_served(port)

        server.listen()

        assert is_served(port)
        assert not is_free(port)


def test_too_few_free_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda _: False)
    with pytest.raises(SandboxError, match="no 2 free ports"):
        free_ports(2)
