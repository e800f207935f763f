"""Ports that no other run on this node has: a block of consecutive ones, held until the run ends.

The lease of a block is its first port, bound by this process and never closed before its end. The
kernel is the arbiter: it gives a port to one process alone, whoever asks, and takes it back at the
moment that process dies, so there is no lock that a user could hold against others, no file to clean
up, and nothing to reclaim.
"""

from __future__ import annotations

import contextlib
import random
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

FIRST_PORT = 10_000
"""Below are the well-known services, and prime-rl's defaults: runs without leases live there."""

BLOCK = 64
"""Ports of a block; more when a run has more services."""

LAST_SERVER_PORT = 44_535
"""prime-rl's router puts its Prometheus port 21000 above the server's, and 65535 is the last one."""

EPHEMERAL = "/proc/sys/net/ipv4/ip_local_port_range"
EPHEMERAL_DEFAULT = (32_768, 60_999)


class NoPortsError(Exception):
    """No block of free ports is left on this node.

    Args:
        message: What was looked at.
    """


@dataclass
class Lease:
    """A block of ports that belongs to this process.

    Attributes:
        first: The first port, which is the lease itself and serves nothing else.
        size: How many ports the block has, the first one included.
        guard: The socket that holds it.
    """

    first: int
    size: int
    guard: socket.socket

    def port(self, offset: int) -> int:
        """The port at an offset; offset 0 is the lease itself.

        Raises:
            ValueError: The block ends before it.
        """
        if not 0 < offset < self.size:
            raise ValueError(f"offset {offset} is not in a block of {self.size} ports")
        return self.first + offset

    def release(self) -> None:
        """Give the block back."""
        self.guard.close()


def take(size: int = BLOCK, above: Sequence[int] = ()) -> Lease:
    """Lease a block of free ports on this node.

    Args:
        size: Ports that are needed, the lease's own included; rounded up to whole blocks.
        above: Distances above the second port of the block at which a port must be free too.

    Returns:
        The lease, held by this process and not by its children.

    Raises:
        NoPortsError: Every block is taken.
    """
    size = -(-size // BLOCK) * BLOCK
    for first in _candidates(size, above):
        guard = _bound(first)
        if guard is None:
            continue
        others = [*range(first + 1, first + size), *(first + 1 + distance for distance in above)]
        if all(is_free(port) for port in others):
            return Lease(first, size, guard)
        guard.close()
    low, high = ephemeral_range()
    raise NoPortsError(f"no {size} free ports in a row between {FIRST_PORT} and {min(low, high) - 1}")


def ephemeral_range() -> tuple[int, int]:
    """The ports that the kernel hands to clients: a service there can lose its port to one of them."""
    with contextlib.suppress(OSError, ValueError):
        low, high = map(int, Path(EPHEMERAL).read_text(encoding="ascii").split())
        return low, high
    return EPHEMERAL_DEFAULT


def _candidates(size: int, above: Sequence[int]) -> Iterator[int]:
    """Blocks in random order, those first whose ports above are out of the clients' way as well."""
    low, high = ephemeral_range()
    last = min(low if low > FIRST_PORT + size else high, LAST_SERVER_PORT) - size
    blocks = list(range(FIRST_PORT, last + 1, size))
    random.shuffle(blocks)
    blocks.sort(key=lambda first: any(low <= first + 1 + distance <= high for distance in above))
    yield from blocks


def _bound(port: int) -> socket.socket | None:
    """Bind a port on all addresses, without the option that would share it."""
    holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        holder.bind(("", port))
    except OSError:
        holder.close()
        return None
    return holder


def is_free(port: int) -> bool:
    """Whether nothing listens on a port or holds it."""
    holder = _bound(port)
    if holder is None:
        return False
    holder.close()
    return True


def rewritten(
    document: Mapping[str, Any], slots: Sequence[Mapping[str, Any]], lease: Lease
) -> dict[str, Any]:
    """Put a lease's ports into a config.

    Args:
        document: The resolved config; left as it is.
        slots: For each service its `offset` in the block and the `paths` of the fields that hold its
            port: a number, or an address whose port is replaced. `[*]` stands for every element of a
            list.
        lease: The block.

    Returns:
        The config with every field rewritten.
    """
    changed: dict[str, Any] = _copied(document)
    for slot in slots:
        port = lease.port(int(slot["offset"]))
        for path in slot["paths"]:
            _rewrite(changed, str(path).replace("[*]", ".*").split("."), port)
    return changed


def _copied(value: Any) -> Any:  # noqa: ANN401 - a JSON value
    if isinstance(value, dict):
        return {key: _copied(below) for key, below in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _rewrite(value: Any, path: Sequence[str], port: int) -> None:  # noqa: ANN401 - a JSON value
    """Replace the port at a path; a path that the config does not have names a service it lacks."""
    name, *rest = path
    keys: Any = ()
    if isinstance(value, list):
        keys = range(len(value)) if name == "*" else ()
    elif isinstance(value, dict) and name in value:
        keys = (name,)
    for key in keys:
        if rest:
            _rewrite(value[key], rest, port)
        elif isinstance(value[key], str):
            value[key] = re.sub(r":\d+(?=/|$)", f":{port}", value[key])
        elif value[key] is not None:
            value[key] = port
