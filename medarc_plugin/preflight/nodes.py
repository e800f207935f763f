"""Whether some node of a partition can ever give what the job asks for, now, and beside its neighbours."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medarc_plugin.preflight.findings import (
    counted,
    listed,
    memory_option,
    memory_words,
    nearest,
    refused,
    warned,
)
from medarc_plugin.preflight.partitions import open_ones
from medarc_plugin.slurm.facts import ANY_TYPE
from medarc_plugin.slurm.hostlist import expand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from medarc_plugin.models import Problem
    from medarc_plugin.preflight.target import Target
    from medarc_plugin.slurm.facts import Node

LESS_GPUS = "--train-gpus, --infer-gpus or --gpus"


@dataclass(frozen=True)
class Need:
    """Something that a node must have.

    Attributes:
        met: Whether a node has it.
        words: What it is.
        explain: Say that no node of the partition has it.
    """

    met: Callable[[Node], bool]
    words: str
    explain: Callable[[Target], Problem]


def needs_of(target: Target) -> list[Need]:
    """List what the job needs of its node."""
    wish = target.wish
    found = [
        Need(lambda node: target.gpus_of(node) >= wish.gpus, wish.gpu_words, _without_gpus),
        Need(
            lambda node: target.cpus_on(node) <= target.most_cpus(node),
            counted(wish.cpus, "CPU"),
            _without_cpus,
        ),
    ]
    if wish.memory is not None or target.defaults.has_memory:
        amount = f"{memory_words(wish.memory)} of memory" if wish.memory is not None else ""
        words = amount or "the memory that the cluster gives by default"
        found.append(
            Need(lambda node: target.memory_on(node) <= target.most_memory(node), words, _without_memory)
        )
    if wish.constraint:
        words = f"the constraint {wish.constraint}"
        found.append(Need(lambda node: meets(wish.constraint or "", node.features), words, _without_features))
    if (wanted := expand(wish.nodelist or "")) is not None:
        found.append(Need(lambda node: node.name in wanted, f"--nodelist {wish.nodelist}", _not_in_list))
    if (unwanted := expand(wish.exclude or "")) is not None:
        found.append(Need(lambda node: node.name not in unwanted, f"--exclude {wish.exclude}", _all_excluded))
    if (reserved := target.reserved) is not None:
        words = f"reservation {wish.reservation!r}"
        found.append(Need(lambda node: node.name in reserved, words, _not_reserved))
    return found


def some_node_can_take_it(target: Target) -> Iterator[Problem]:
    """A node of the partition, whatever its state, has what the job asks for."""
    if target.facts.nodes is None or target.hidden:
        return
    if not target.nodes:
        message = f"partition {target.partition.name!r} has no nodes"
        yield refused("partition", message, "another --partition; `sinfo -s` lists them with their nodes")
        return
    needs = needs_of(target)
    missing = [need for need in needs if not any(need.met(node) for node in target.nodes)]
    # Memory that nobody asked for comes with the CPUs or GPUs that are too many.
    asked = [
        need for need in missing if target.wish.memory is not None or need.explain is not _without_memory
    ]
    yield from (need.explain(target) for need in asked or missing)
    if not missing and not fitting(target):
        yield _not_together(target, needs)


def fitting(target: Target) -> list[Node]:
    """The nodes that have all that the job asks for, whatever their state."""
    needs = needs_of(target)
    return [node for node in target.nodes if all(need.met(node) for need in needs)]


def _not_together(target: Target, needs: Sequence[Need]) -> Problem:
    def lacking(node: Node) -> list[str]:
        return [need.words for need in needs if not need.met(node)]

    # Of those that lack as little, the one with most GPUs is what the job was meant for.
    near = min(target.nodes, key=lambda node: (len(lacking(node)), -target.gpus_of(node)))
    wanted = ", ".join(need.words for need in needs)
    return refused(
        "GPUs",
        f"no node of partition {target.partition.name!r} has all of it: {wanted}",
        f"{near.name} ({_described(near)}) comes nearest and lacks: {', '.join(lacking(near))}",
    )


def _described(node: Node) -> str:
    return f"{_gpus_described(node)}, {node.cpus} CPUs, {memory_words(node.memory)}"


def _gpus_described(node: Node) -> str:
    return ", ".join(f"{count} {kind or 'GPUs'}" for kind, count in node.gpus.items()) or "no GPUs"


def _without_gpus(target: Target) -> Problem:
    wish, name = target.wish, target.partition.name
    most = max(target.gpus_of(node) for node in target.nodes)
    elsewhere = _partitions_with(target)
    if most:
        return refused(
            "GPUs",
            f"no node of partition {name!r} has {wish.gpu_words}: the most is {most}",
            f"ask for at most {most} with {LESS_GPUS}{elsewhere}",
        )
    kinds = sorted({kind for node in target.nodes for kind in node.gpus})
    if wish.gpu_type is None or not kinds:
        hint = (
            f"another --partition{elsewhere}" if elsewhere else "this cluster gives no GPUs (`sinfo -o %G`)"
        )
        return refused("GPUs", f"no node of partition {name!r} has a GPU", hint)
    return refused(
        "GPUs",
        f"no node of partition {name!r} has GPUs of type {wish.gpu_type!r}",
        _other_types(target, kinds) + elsewhere,
    )


def _other_types(target: Target, kinds: Sequence[str]) -> str:
    kind = target.wish.gpu_type or ""
    if kinds == [ANY_TYPE]:
        features = {feature for node in target.nodes for feature in node.features}
        near = nearest(kind, features, misspelt=False)
        return "its GPUs have no type: leave --gpu-type out" + (
            f", and say --constraint {near}" if near else ""
        )
    near = nearest(kind, [one for one in kinds if one], misspelt=False)
    return (
        f"did you mean {near}? " if near else ""
    ) + f"the types there are: {listed(one or 'none' for one in kinds)}"


def _partitions_with(target: Target) -> str:
    """Name other partitions that have such GPUs."""
    facts = target.facts
    candidates = [one for one in map(facts.partition, open_ones(facts)) if one is not None]
    names = [
        one.name
        for one in candidates
        if any(target.gpus_of(node) >= target.wish.gpus for node in facts.nodes_of(one))
    ]
    return f"; partitions that have it: {listed(names)}" if names else ""


def _without_cpus(target: Target) -> Problem:
    wish, partition = target.wish, target.partition
    node = max(target.nodes, key=target.most_cpus)
    most = target.most_cpus(node)
    limit = " (its MaxCPUsPerNode)" if most < node.cpus else ""
    asked = min(target.cpus_on(one) for one in target.nodes)
    why, hint = "", f"--cpus-per-gpu {max(1, most // max(1, wish.gpus))} or less"
    if asked > wish.cpus:
        # SLURM takes as many CPUs as the memory is worth.
        why = f", which come with {memory_words(target.memory_on(node))} of memory"
        memory = most * (target.defaults.max_memory_per_cpu or 0) / max(1, wish.gpus)
        hint = f"--mem-per-gpu {memory_option(memory)} or less"
    return refused(
        "CPUs",
        f"no node of partition {partition.name!r} can give {asked} CPUs{why}: the most is {most}{limit}",
        hint,
    )


def _without_memory(target: Target) -> Problem:
    wish, partition = target.wish, target.partition
    node = max(target.nodes, key=target.most_memory)
    most = target.most_memory(node)
    limit = " (its MaxMemPerNode)" if most < node.memory else ""
    asked = min(target.memory_on(one) for one in target.nodes)
    whence = ", the default for such a job" if wish.memory is None else ""
    return refused(
        "memory",
        f"no node of partition {partition.name!r} can give {memory_words(asked)}{whence}: "
        f"the most is {memory_words(most)}{limit}",
        f"{_memory_flag(target, most, wish.gpus)} or less",
    )


def _memory_flag(target: Target, memory: float, gpus: int) -> str:
    """Write memory for so many GPUs in the option that the job asked with."""
    if target.wish.mem:
        return f"--mem {memory_option(memory)}"
    return f"--mem-per-gpu {memory_option(memory / max(1, gpus))}"


def _without_features(target: Target) -> Problem:
    here = sorted({feature for node in target.nodes for feature in node.features})
    return refused(
        "constraint",
        f"no node of partition {target.partition.name!r} meets --constraint {target.wish.constraint}",
        f"the features there are: {listed(here)}",
    )


def _not_in_list(target: Target) -> Problem:
    return refused(
        "nodes",
        f"--nodelist {target.wish.nodelist} names no node of partition {target.partition.name!r}",
        f"its nodes are: {listed(node.name for node in target.nodes)}",
    )


def _all_excluded(target: Target) -> Problem:
    return refused(
        "nodes",
        f"--exclude {target.wish.exclude} leaves no node of partition {target.partition.name!r}",
        f"its nodes are: {listed(node.name for node in target.nodes)}",
    )


def _not_reserved(target: Target) -> Problem:
    nodes = target.reservation.nodes if target.reservation else ""
    return refused(
        "reservation",
        f"reservation {target.wish.reservation!r} has no node of partition {target.partition.name!r}",
        f"its nodes are {nodes}; another --partition, or leave --reservation out",
    )


def meets(constraint: str, features: Sequence[str]) -> bool:
    """Whether features meet a constraint, as far as it is of one kind.

    Args:
        constraint: As sbatch takes it: `a`, `a&b`, `a|b`, `[a|b]`. What mixes kinds is taken to be met.
        features: A node's features.
    """
    plain = constraint.strip()
    if plain.startswith("[") and plain.endswith("]"):
        plain = plain[1:-1]
    names = [name.partition("*")[0].strip() for name in re.split(r"[&|]", plain)]
    if re.search(r"[\[\]()!,]", plain) or ("&" in plain and "|" in plain):
        return True
    return (
        any(name in features for name in names) if "|" in plain else all(name in features for name in names)
    )


def _is_usable(target: Target, node: Node) -> bool:
    """Whether a node starts such a job now: a reservation's own nodes may be kept from all others."""
    return node.usable or (target.reserved is not None and node.trouble == "in maintenance")


def nodes_are_in_service(target: Target) -> Iterator[Problem]:
    """Not all nodes that could take the job are drained or down now."""
    fit = fitting(target)
    if not fit or target.hidden or any(_is_usable(target, node) for node in fit):
        return
    what = (
        f"the one node that can take it is {fit[0].trouble}"
        if len(fit) == 1
        else (f"none of the {len(fit)} nodes that can take it is in service")
    )
    named = listed(
        f"{node.name} {node.trouble}" + (f" ({node.reason})" if node.reason else "") for node in fit
    )
    yield warned("nodes", f"{what} now, so the job will wait: {named}", "`sinfo -R` says why and since when")


def good_neighbour(target: Target) -> Iterator[Problem]:
    """The job leaves the node's other GPUs their share of CPUs and memory."""
    wish = target.wish
    fit = fitting(target)
    shared = [node for node in fit if target.gpus_of(node) and node.gpu_count > wish.gpus]
    # A node where it takes every GPU has nobody left to mind.
    if not wish.gpus or not shared or len(shared) < len(fit) or wish.exclusive:
        return
    if target.partition.whole_nodes:
        idle = min(node.gpu_count for node in shared) - wish.gpus
        yield warned(
            "neighbours",
            f"partition {target.partition.name!r} gives whole nodes alone, so {counted(idle, 'GPU')} of the "
            "job's node will be idle",
            f"use them with {LESS_GPUS}, or take a partition that shares nodes",
        )
        return
    cpus = list(_cpu_share(target, shared))
    yield from cpus
    # Memory that comes with CPUs is too much with them.
    told = cpus and wish.memory is None and target.defaults.memory_per_cpu is not None
    if not told and (target.facts.settings is None or target.facts.settings.memory_counts):
        yield from _memory_share(target, shared)


def _cpu_share(target: Target, nodes: Sequence[Node]) -> Iterator[Problem]:
    gpus = target.wish.gpus
    node = max(nodes, key=lambda one: one.cpus * gpus // one.gpu_count)
    asked, share = target.cpus_on(node), node.cpus * gpus // node.gpu_count
    if asked > max(share, 1):
        yield warned(
            "neighbours",
            f"the job takes {asked} CPUs for {_some_gpus(gpus, node)}; their share of its {node.cpus} CPUs "
            f"is {share}, and jobs on the others may find too few",
            f"--cpus-per-gpu {max(1, node.cpus // node.gpu_count)}",
        )


def _some_gpus(gpus: int, node: Node) -> str:
    return f"{gpus} of the {node.gpu_count} GPUs of {node.name}"


def _memory_share(target: Target, nodes: Sequence[Node]) -> Iterator[Problem]:
    gpus = target.wish.gpus
    node = max(nodes, key=lambda one: one.memory * gpus // one.gpu_count)
    asked, share = target.memory_on(node), node.memory * gpus // node.gpu_count
    whole, hint = memory_words(node.memory), _memory_flag(target, share, gpus)
    if target.wish.memory is None and not target.defaults.has_memory:
        yield warned(
            "neighbours",
            f"neither the job nor the cluster says how much memory it gets, so it takes all {whole} of "
            f"{node.name} and keeps its other {counted(node.gpu_count - gpus, 'GPU')} from everybody",
            hint,
        )
    elif asked > share:
        whence = "" if target.wish.memory is not None else ", the cluster's default,"
        yield warned(
            "neighbours",
            f"the job takes {memory_words(asked)}{whence} for {_some_gpus(gpus, node)}; their share of its "
            f"{whole} is {memory_words(share)}, and jobs on the others may find too little",
            hint,
        )


CHECKS: tuple[Callable[[Target], Iterator[Problem]], ...] = (
    some_node_can_take_it,
    nodes_are_in_service,
    good_neighbour,
)
"""What is looked at for each partition where the job may run."""
