"""What is free at this moment, as far as SLURM says: whether a job fits it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from medarc_plugin.preflight.findings import counted
from medarc_plugin.preflight.nodes import fitting
from medarc_plugin.slurm import hostlist
from medarc_plugin.slurm.queue import moment

if TYPE_CHECKING:
    from collections.abc import Iterable

    from medarc_plugin.preflight.target import Target
    from medarc_plugin.slurm.facts import ClusterFacts, Node, Reservation


def words_of_what_is_free(targets: Iterable[Target]) -> str | None:
    """Say that a job would fit what is free now; `None` when it would not, or nobody knows.

    Args:
        targets: The job in each of the partitions where it may run.
    """
    for target in targets:
        for node in fitting(target) if target.facts.nodes is not None else ():
            if fits_now(target, node):
                kind = target.wish.gpu_type
                gpus = counted(node.free_gpus(kind), f"{kind} GPU" if kind else "GPU")
                return f"{gpus} of {node.name} {'is' if gpus.startswith('1 ') else 'are'} free now"
    return None


def fits_now(target: Target, node: Node, *, whatever_time: bool = False) -> bool:
    """Whether a node has what a job asks for free at this moment, and may use it.

    Args:
        target: The job in a partition of the node.
        node: The node, one that could take it.
        whatever_time: Leave reservations that begin later aside.
    """
    wish = target.wish
    if not node.usable or target.partition.state != "UP":
        return False
    if (wish.exclusive or target.partition.whole_nodes) and node.cpus_used:
        return False
    if node.free_gpus(wish.gpu_type) < wish.gpus or node.cpus - node.cpus_used < target.cpus_on(node):
        return False
    if counts_memory(target.facts) and node.memory - node.memory_used < target.memory_on(node):
        return False
    begins = next_reservation(target, node)
    if begins is None or (whatever_time and begins > 0):
        return True
    return wish.time is not None and wish.time <= begins


def counts_memory(facts: ClusterFacts) -> bool:
    """Whether this SLURM gives memory to one job at a time."""
    return facts.settings is None or facts.settings.memory_counts


def next_reservation(target: Target, node: Node) -> float | None:
    """Say in how many seconds a reservation of others takes a node; `None` for never, 0 for now.

    Args:
        target: The job in a partition of the node.
        node: The node.
    """
    soonest: float | None = None
    for one in target.facts.reservations or ():
        if one.name == target.wish.reservation or node.name not in (hostlist.expand(one.nodes or "") or ()):
            continue
        begins = _begins_in(one)
        if begins is not None and (soonest is None or begins < soonest):
            soonest = begins
    return soonest


def _begins_in(reservation: Reservation) -> float | None:
    start, end = moment(reservation.start), moment(reservation.end)
    now = datetime.now(UTC)
    if start is None or (end is not None and end <= now):
        return None
    return max(0.0, (start - now).total_seconds())
