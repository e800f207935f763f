"""What would start sooner: the smallest changes to a request with which it fits what is free now.

Each is a fact about the nodes at this moment, never a guess: where SLURM does not say what is free, nothing
is proposed. Others who wait may take it first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from medarc_plugin.preflight import accounts, nodes, partitions
from medarc_plugin.preflight.findings import counted, memory_option, time_words
from medarc_plugin.preflight.free import counts_memory, fits_now, next_reservation
from medarc_plugin.preflight.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from medarc_plugin.preflight.target import Wish
    from medarc_plugin.why.pending import Waiting

MOST = 3
"""Changes that are proposed."""

SHORTEST = 600
"""Seconds of a time limit below which nothing is proposed: a run has hardly begun then."""


@dataclass(frozen=True)
class Change:
    """A change to a request with which it would fit now.

    Attributes:
        options: What to launch it with.
        words: What that means.
        node: A node that has it free.
    """

    options: str
    words: str
    node: str

    def __str__(self) -> str:
        return f"{self.options} would fit what is free on {self.node} now: {self.words}"

    def document(self) -> dict[str, Any]:
        """The facts for `--json`."""
        return {"options": self.options, "words": self.words, "node": self.node}


def changes(waiting: Waiting) -> list[Change]:
    """List the smallest changes with which a job would fit what is free now.

    Args:
        waiting: The job.
    """
    if waiting.facts.nodes is None or not waiting.targets:
        return []
    found: dict[str, Change] = {}
    for search in (_shorter, _anywhere, _less_beside, _other_type, _other_partition, _fewer_gpus):
        for change in search(waiting):
            found.setdefault(change.options, change)
    return list(found.values())[:MOST]


def _free(waiting: Waiting, wish: Wish, within: list[Target] | None = None) -> str | None:
    """A node that has what a changed job asks for free now."""
    for target in within if within is not None else waiting.targets:
        changed = Target(wish, target.partition, target.facts)
        for node in nodes.fitting(changed):
            if fits_now(changed, node):
                return node.name
    return None


def _shorter(waiting: Waiting) -> Iterator[Change]:
    """A time limit that ends before a reservation, or before a job that comes first, begins."""
    now = datetime.now(UTC)
    for target in waiting.targets:
        for node in nodes.fitting(target):
            begins = next_reservation(target, node)
            late = waiting.wish.time is None or (begins is not None and waiting.wish.time > begins)
            if (
                begins is None
                or begins < SHORTEST
                or not late
                or not fits_now(target, node, whatever_time=True)
            ):
                continue
            yield Change(
                f"--time {_minutes(begins)}", "it ends before a reservation of the node begins", node.name
            )
            return
    starts = [each.start for each in waiting.before if each.start and each.start > now]
    seconds = (min(starts) - now).total_seconds() if starts else 0.0
    long = waiting.wish.time is None or waiting.wish.time > seconds
    node_name = _free(waiting, waiting.wish) if seconds >= SHORTEST and long else None
    if node_name is not None:
        words = "it ends before the jobs that come first are expected to start"
        yield Change(f"--time {_minutes(seconds)}", words, node_name)


def _minutes(seconds: float) -> str:
    """A time limit of whole minutes that ends before."""
    return time_words((seconds - 60) // 60 * 60)


def _anywhere(waiting: Waiting) -> Iterator[Change]:
    """Without what keeps it to certain nodes."""
    wish = waiting.wish
    for option, value, freed in (
        ("--nodelist", wish.nodelist, replace(wish, nodelist=None)),
        ("--exclude", wish.exclude, replace(wish, exclude=None)),
        ("--constraint", wish.constraint, replace(wish, constraint=None)),
    ):
        node = _free(waiting, freed) if value else None
        if node is not None:
            yield Change(f"no {option}", f"it asks for {option} {value}", node)


def _less_beside(waiting: Waiting) -> Iterator[Change]:
    """Fewer CPUs or less memory, where the GPUs are free."""
    wish = waiting.wish
    for target in waiting.targets:
        for node in nodes.fitting(target):
            if (
                not node.usable
                or not wish.gpus
                or node.free_gpus(wish.gpu_type) < wish.gpus
                or wish.exclusive
            ):
                continue
            each = min(wish.cpus, node.cpus - node.cpus_used) // wish.gpus
            memory = wish.memory
            if memory is not None and counts_memory(waiting.facts):
                memory = min(memory, node.memory - node.memory_used)
            if each < 1 or (memory is not None and memory <= 0):
                continue
            options = []
            if each * wish.gpus < wish.cpus:
                options.append(f"--cpus-per-gpu {each}")
            if memory is not None and wish.memory is not None and memory < wish.memory:
                options.append(f"--mem {memory_option(memory)}")
            changed = replace(wish, cpus=min(wish.cpus, each * wish.gpus), memory=memory)
            if options and fits_now(Target(changed, target.partition, target.facts), node):
                words = "its GPUs are free, the CPUs or the memory beside them are not"
                yield Change(" ".join(options), words, node.name)
                return


def _other_type(waiting: Waiting) -> Iterator[Change]:
    """GPUs of another type in the same partition."""
    if waiting.wish.gpu_type is None:
        return
    kinds = dict.fromkeys(
        kind for target in waiting.targets for node in target.nodes for kind in node.gpus if kind
    )
    for kind in kinds:
        node = _free(waiting, replace(waiting.wish, gpu_type=kind)) if kind != waiting.wish.gpu_type else None
        if node is not None:
            yield Change(
                f"--gpu-type {kind}", f"GPUs of type {kind} in place of {waiting.wish.gpu_type}", node
            )
            return


_RIGHTS: tuple[Callable[[Target], Iterator[Any]], ...] = (
    partitions.partition_takes_jobs,
    partitions.partition_is_the_users,
    partitions.time_is_within,
    accounts.account_may_use_the_partition,
    accounts.limits_allow_it,
)


def _other_partition(waiting: Waiting) -> Iterator[Change]:
    """Another partition that the user may use."""
    facts = waiting.facts
    for name in partitions.open_ones(facts):
        partition = facts.partition(name)
        if partition is None or name in {target.partition.name for target in waiting.targets}:
            continue
        wish = replace(waiting.wish, partitions=(name,))
        target = Target(wish, partition, facts)
        if any(True for check in _RIGHTS for _ in check(target)):
            continue
        node = _free(waiting, wish, [target])
        if node is not None:
            yield Change(f"--partition {name}", "the same request, in another partition", node)
            return


def _fewer_gpus(waiting: Waiting) -> Iterator[Change]:
    """Fewer GPUs, with their share of CPUs and memory."""
    wish, entrypoint = waiting.wish, waiting.status.run.entrypoint
    for gpus in range(wish.gpus - 1, 0, -1):
        memory = wish.memory * gpus // wish.gpus if wish.memory is not None else None
        changed = replace(wish, gpus=gpus, cpus=max(1, wish.cpus * gpus // wish.gpus), memory=memory)
        node = _free(waiting, changed)
        if node is None:
            continue
        words = f"{counted(gpus, 'GPU')} in place of {wish.gpus}"
        if entrypoint != "rl":
            yield Change(f"--gpus {gpus}", words, node)
        elif gpus == 1:
            yield Change("--single-gpu", f"{words}, shared by trainer and vLLM where both fit", node)
        else:
            yield Change(f"--train-gpus {gpus - gpus // 2} --infer-gpus {gpus // 2}", words, node)
        return
