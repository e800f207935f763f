"""A job as a partition sees it: what it asks for in numbers, and what the partition has."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from medarc_plugin.options import megabytes, time_seconds
from medarc_plugin.slurm.hostlist import expand

if TYPE_CHECKING:
    from medarc_plugin.models import JobPlan
    from medarc_plugin.slurm.facts import ClusterFacts, Defaults, Node, Partition, Reservation


@dataclass(frozen=True)
class Wish:
    """What a job asks for.

    Attributes:
        partitions: Names of the partitions, of which SLURM takes one; none for the default one.
        gpus: GPUs on the one node.
        gpu_type: Their type; `None` takes any.
        cpus: CPUs.
        memory: Memory in MiB; `None` leaves it to the cluster.
        time: Time limit in seconds, infinite for `UNLIMITED`; `None` leaves it to the partition.
        exclusive: The whole node.
        constraint: Node features.
        nodelist: The nodes that it must have, as typed.
        exclude: The nodes that it must not have, as typed.
        reservation: The reservation.
        account: The account.
        qos: The QoS.
        mem: Whether `--mem` asks for the memory, and not `--mem-per-gpu`.
    """

    partitions: tuple[str, ...]
    gpus: int
    gpu_type: str | None
    cpus: int
    memory: int | None
    time: float | None
    exclusive: bool = False
    constraint: str | None = None
    nodelist: str | None = None
    exclude: str | None = None
    reservation: str | None = None
    account: str | None = None
    qos: str | None = None
    mem: bool = False

    @property
    def gpu_words(self) -> str:
        """Its GPUs in words."""
        kind = f" of type {self.gpu_type}" if self.gpu_type else ""
        return f"{self.gpus} GPU{'' if self.gpus == 1 else 's'}{kind}"


def wish_of(plan: JobPlan) -> Wish:
    """Read what a plan asks for."""
    allocation, options = plan.allocation, plan.options
    seconds: float | None = None
    if allocation.time is not None:
        limit = time_seconds(allocation.time)
        # SLURM counts a time limit in whole minutes, rounded up.
        seconds = float("inf") if limit is None else -(-limit // 60) * 60
    return Wish(
        partitions=tuple(name for name in (allocation.partition or "").split(",") if name),
        gpus=allocation.gpus,
        gpu_type=allocation.gpu_type,
        cpus=allocation.cpus,
        memory=megabytes(allocation.memory) if allocation.memory else None,
        time=seconds,
        exclusive=options.exclusive,
        constraint=options.constraint,
        nodelist=options.nodelist,
        exclude=options.exclude,
        reservation=options.reservation,
        account=allocation.account,
        qos=allocation.qos,
        mem=bool(options.mem),
    )


@dataclass(frozen=True)
class Target:
    """A job in one of the partitions where it may run.

    Attributes:
        wish: What it asks for.
        partition: The partition.
        facts: The cluster.
    """

    wish: Wish
    partition: Partition
    facts: ClusterFacts

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The partition's nodes, whatever their state; none where nodes are not known."""
        return tuple(node for node in self.facts.nodes_of(self.partition) if node.state != "FUTURE")

    @property
    def hidden(self) -> int:
        """How many of its nodes SLURM does not show."""
        return self.facts.hidden_of(self.partition)

    @cached_property
    def defaults(self) -> Defaults:
        """The partition's defaults and limits."""
        return self.facts.defaults_of(self.partition)

    @cached_property
    def reservation(self) -> Reservation | None:
        """The reservation that the job names, if there is one."""
        known = self.facts.reservations or ()
        return next((one for one in known if one.name == self.wish.reservation), None)

    @cached_property
    def reserved(self) -> frozenset[str] | None:
        """The nodes of that reservation; `None` where it is not one for certain nodes."""
        text = self.reservation.nodes if self.reservation else None
        names = expand(text) if text else None
        return None if names is None else frozenset(names)

    def memory_on(self, node: Node) -> int:
        """The memory that the job gets on a node, in MiB.

        What goes by GPUs wins over what goes by CPUs; where nobody says anything, it is all that the node has
        (seen on 22.05 and 26.05).
        """
        if self.wish.memory is not None:
            return self.wish.memory
        rules = self.defaults
        if rules.memory_per_gpu is not None and self.wish.gpus:
            return rules.memory_per_gpu * self.wish.gpus
        if rules.memory_per_node is not None:
            return rules.memory_per_node
        if rules.memory_per_cpu is not None:
            return rules.memory_per_cpu * self.wish.cpus
        return node.memory

    def cpus_on(self, node: Node) -> int:
        """The CPUs that the job gets on a node: more than it asks for where memory goes by CPUs."""
        most = self.defaults.max_memory_per_cpu
        said = self.wish.memory is not None or self.defaults.has_memory
        return max(self.wish.cpus, -(-self.memory_on(node) // most) if most and said else 0)

    def gpus_of(self, node: Node) -> int:
        """The GPUs of a node that are of the wanted type."""
        return node.gpu_count if self.wish.gpu_type is None else node.gpus.get(self.wish.gpu_type, 0)

    def most_cpus(self, node: Node) -> int:
        """The most CPUs that a job of the partition can have on a node."""
        limit = self.partition.max_cpus_per_node
        return node.cpus if limit is None else min(node.cpus, limit)

    def most_memory(self, node: Node) -> int:
        """The most memory that a job of the partition can have on a node."""
        limit = self.defaults.max_memory_per_node
        return node.memory if limit is None else min(node.memory, limit)
