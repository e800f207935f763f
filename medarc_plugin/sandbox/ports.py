"""Ports for the daemons, where no client socket can take them by chance."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from medarc_plugin.errors import SandboxError

_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 10_000
_HIGHEST = 65_535
_ENOUGH = 500


def candidates(ephemeral: tuple[int, int]) -> range:
    """Give the ports to choose from.

    The kernel hands out the ephemeral range to clients, so that a daemon's port in there can be
    taken while the daemon is restarted.

    Args:
        ephemeral: First and last port of the range.

    Returns:
        The ports below it; above it where there are too few below; else all.
    """
    first, last = ephemeral
    for ports in (range(_LOWEST, first), range(max(last + 1, _LOWEST), _HIGHEST + 1)):
        if len(ports) >= _ENOUGH:
            return ports
    return range(_LOWEST, _HIGHEST + 1)


def ephemeral_range(file: Path = _RANGE_FILE) -> tuple[int, int]:
    """Read the kernel's ephemeral range; Linux's default where that cannot be read."""
    try:
        first, last = file.read_text(encoding="ascii").split()
        return int(first), int(last)
    except (OSError, ValueError):
        return 32_768, 60_999


def free_ports(count: int) -> tuple[int, ...]:
    """Choose ports at random that nothing listens on.

    Random, because two sandboxes that start at once in two folders do not know of each other.

    Args:
        count: How many.

    Returns:
        That many different ports.

    Raises:
        SandboxError: There are not so many free ones.
    """
    choice = candidates(ephemeral_range())
    chosen: list[int] = []
    for port in random.sample(choice, len(choice)):
        if is_free(port):
            chosen.append(port)
        if len(chosen) == count:
            return tuple(chosen)
    raise SandboxError(
        f"there are no {count} free ports between {choice.start} and {choice.stop - 1}",
        hint="end programs that listen on ports there",
    )


def is_served(port: int) -> bool:
    """Whether something accepts connections to a port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def is_free(port: int) -> bool:
    """Whether a daemon could listen on a port, on all addresses as on loopback alone."""
    with socket.socket() as probe:
        # A daemon of ours that just ended leaves the port in TIME_WAIT, which SLURM listens over.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
