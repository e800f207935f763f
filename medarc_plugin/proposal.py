"""Proposes a `medarc.toml` from what is known of a cluster: facts in, text out.

Each value stands with the reason for it, and what else could be chosen stands beside it as a comment. What
holds for one partition alone stands in a section of its own as soon as there are several: in `[slurm]` it
would hold for the others too.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import tomli_w

from medarc_plugin.errors import MedarcError
from medarc_plugin.host.memory import memory_of_type
from medarc_plugin.profiles import Layer, settle
from medarc_plugin.slurm.access import Charged, accounts_of, charged, listed, why_not
from medarc_plugin.slurm.facts import ANY_TYPE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from medarc_plugin.slurm.facts import ClusterFacts, Node, Partition, Qos

DAY = 86_400
"""Seconds of the longest time limit that is proposed where the cluster allows more: a run that meets its
limit goes on from its newest checkpoint, and a shorter job starts sooner."""

WIDTH = 110


@dataclass(frozen=True)
class Entry:
    """A line of the proposal.

    Attributes:
        key: The option.
        value: Its value.
        why: The reason, for the comment.
        taken: Whether it is proposed; else it is a choice that stands there as a comment.
    """

    key: str
    value: str | int | bool
    why: str = ""
    taken: bool = True


@dataclass(frozen=True)
class Proposal:
    """A proposal.

    Attributes:
        text: The file.
        partition: The partition that runs go to; `None` where none is good for them.
        why_none: Why there is none.
        asked: Whether SLURM told its partitions.
        unknown: What the cluster did not tell, a few words each.
    """

    text: str
    partition: str | None
    why_none: str
    asked: bool
    unknown: tuple[str, ...]


def propose(facts: ClusterFacts, beside: Sequence[Entry] = ()) -> Proposal:
    """Propose a profile.

    Args:
        facts: What is known of the cluster.
        beside: What was found on this machine beside it.
    """
    unknown = _unknown(facts)
    refused = {partition.name: why_not(facts, partition) for partition in facts.partitions or ()}
    good = sorted(
        (one for one in facts.partitions or () if refused[one.name] is None),
        key=lambda one: _rank(facts, one),
    )
    sections = [(one, _entries(facts, one)) for one in good]
    common, sections = _in_common(sections)
    if not good:
        common = [*_partitions_to_choose(facts, refused), *common]
    lines = _header(facts, refused, unknown)
    if len(sections) == 1:
        common, sections = [*sections[0][1], *common], []
    names = _profile_names([one for one, _ in sections])
    if sections:
        lines += [
            _toml("default_profile", names[0], "when neither --profile nor MEDARC_PROFILE names one"),
            "",
        ]
    lines += ["[slurm] # for every run", *_lines([*common, *beside])]
    for name, (_, entries) in zip(names, sections, strict=True):
        lines += ["", f"[profile.{name}] # --profile {name}", *_lines(entries)]
    return Proposal(
        text="\n".join(lines) + "\n",
        partition=good[0].name if good else None,
        why_none="" if good else _why_none(facts, refused),
        asked=facts.partitions is not None,
        unknown=unknown,
    )


def _unknown(facts: ClusterFacts) -> tuple[str, ...]:
    """Name what the cluster did not tell, once for each reason."""
    by_reason: dict[str, list[str]] = {}
    for one in facts.unknown:
        by_reason.setdefault(one.why, []).append(one.what)
    return tuple(f"{listed(what)} ({why})" for why, what in by_reason.items())


def _rank(facts: ClusterFacts, partition: Partition) -> tuple[object, ...]:
    """Put the partition first that most runs want: of the good ones the default, else the largest."""
    usable = sum(node.gpu_count for node in facts.nodes_of(partition) if node.usable)
    longest = partition.max_time is None, partition.max_time or 0
    return (
        *(usable == 0, not partition.default, partition.hidden, partition.whole_nodes),
        *(-usable, not longest[0], -longest[1], partition.name),
    )


def _entries(facts: ClusterFacts, partition: Partition) -> list[Entry]:
    """What is proposed for jobs of a partition."""
    paid = charged(facts, partition)
    where = "the cluster's default; " if partition.default else ""
    entries = [Entry("partition", partition.name, where + nodes_in_words(facts, partition))]
    entries += _gpu_entries(facts, partition)
    entries += _share_entries(facts, partition)
    entries += _time_entries(facts, partition, paid)
    if partition.whole_nodes:
        why = "SLURM gives each job there the whole node: let a run use all of its GPUs"
        entries.append(Entry("exclusive", value=True, why=why))
    entries += _account_entries(partition, paid)
    entries += _qos_entries(facts, partition, paid)
    return [*entries, *_feature_entries(facts, partition), *_reservation_entries(facts, partition)]


def _gpu_entries(facts: ClusterFacts, partition: Partition) -> list[Entry]:
    totals: Counter[str] = Counter()
    for node in facts.nodes_of(partition):
        totals.update(node.gpus)
    kinds = [kind for kind in sorted(totals) if kind != ANY_TYPE]
    if len(totals) == 1 and kinds:
        return [Entry("gpu_type", kinds[0], f"the only type in {partition.name}"), *_memory_entries(kinds[0])]
    return [
        Entry("gpu_type", kind, f"{totals[kind]} of them in {partition.name}", taken=False) for kind in kinds
    ]


def _memory_entries(kind: str) -> list[Entry]:
    if memory_of_type(kind) is not None:
        return []
    why = "of one of them: --single-gpu plans with it, and the type does not tell"
    return [Entry("gpu_memory", "80G", why, taken=False)]


def _share_entries(facts: ClusterFacts, partition: Partition) -> list[Entry]:
    """What of a node's CPUs and memory goes with one of its GPUs, on the node that has least for it."""
    nodes = _gpu_nodes(facts, partition)
    if not nodes:
        return []
    limits = facts.defaults_of(partition)
    most_cpus, most_memory = partition.max_cpus_per_node, limits.max_memory_per_node

    def cpus_of(node: Node) -> int:
        return min(node.cpus, most_cpus or node.cpus)

    def memory_of(node: Node) -> int:
        return min(node.memory, most_memory or node.memory)

    poorest = min(nodes, key=lambda node: cpus_of(node) // node.gpu_count)
    cpus = max(1, cpus_of(poorest) // poorest.gpu_count)
    capped = f" (MaxCPUsPerNode of {partition.name})" if cpus_of(poorest) < poorest.cpus else ""
    entries = [
        Entry(
            "cpus_per_gpu",
            cpus,
            f"{poorest.name} has {cpus_of(poorest)} CPUs{capped} for {_gpus(poorest.gpu_count)}",
        )
    ]
    poorest = min(nodes, key=lambda node: memory_of(node) // node.gpu_count)
    memory = memory_of(poorest) // poorest.gpu_count
    why = f"{poorest.name} has {_size_in_words(memory_of(poorest))} for {_gpus(poorest.gpu_count)}"
    if memory_of(poorest) < poorest.memory:
        why += f" (MaxMemPerNode of {partition.name})"
    if limits.max_memory_per_cpu and limits.max_memory_per_cpu * cpus < memory:
        memory = limits.max_memory_per_cpu * cpus
        why = f"at most {_size_in_words(limits.max_memory_per_cpu)} for each CPU (MaxMemPerCPU)"
    if memory < 1:
        return entries
    counted = facts.settings is None or facts.settings.memory_counts
    if not counted:
        why += "; SLURM does not give out memory here, so that a job need not ask for it"
    return [*entries, Entry("mem_per_gpu", _size(memory), why, taken=counted)]


def _time_entries(facts: ClusterFacts, partition: Partition, paid: Charged) -> list[Entry]:
    limits = [(partition.max_time, f"MaxTime of {partition.name}")]
    for name, whose in (
        (paid.qos or paid.by_itself, "of QoS"),
        (partition.qos, f"of {partition.name}'s QoS"),
    ):
        if (qos := _qos(facts, name)) is not None:
            limits.append((qos.max_wall, f"MaxWall {whose} {qos.name}"))
    if paid.account is not None:
        limits.append((paid.account.max_wall, f"MaxWall of account {paid.account.account}"))
    known = [(seconds, name) for seconds, name in limits if seconds]
    default = partition.default_time
    wanted = max(default or 0, DAY)
    if not known:
        why = f"{partition.name} has no limit; a shorter job starts sooner"
        return [Entry("time", _time(wanted), why)]
    longest, name = min(known)
    why = f"{name} is {_time(longest)}"
    why += f", DefaultTime {_time(default)}" if default else ""
    why += "; a shorter job starts sooner" if wanted < longest else ""
    return [Entry("time", _time(min(longest, wanted)), why)]


def _account_entries(partition: Partition, paid: Charged) -> list[Entry]:
    if paid.account is None:
        why = f"{partition.name} is for these accounts alone"
        return [Entry("account", name, why, taken=False) for name in paid.accounts]
    name = paid.account.account
    if name == paid.default:
        why = "your default account"
    elif paid.default and partition.allow_accounts is not None:
        why = f"{partition.name} does not take your default account, {paid.default}"
    else:
        why = "an account of yours"
    others = [one for one in paid.accounts if one != name]
    return [
        Entry("account", name, why),
        *(Entry("account", one, "another account of yours", taken=False) for one in others),
    ]


def _qos_entries(facts: ClusterFacts, partition: Partition, paid: Charged) -> list[Entry]:
    if paid.account is None:
        why = f"{partition.name} is for these QoS alone"
        return [Entry("qos", name, why, taken=False) for name in paid.offered]
    if paid.qos is None:
        return []
    account = paid.account.account
    if paid.qos == paid.by_itself:
        why = f"the default with account {account}"
    else:
        own = f", {paid.by_itself}," if paid.by_itself else ""
        why = f"{partition.name} does not take the default with account {account}{own} but this"
    others = [name for name in paid.offered if name != paid.qos]
    entries = [Entry("qos", paid.qos, _joined(why, _limits(_qos(facts, paid.qos))))]
    entries += [Entry("qos", name, _limits(_qos(facts, name)), taken=False) for name in others]
    return entries


def _feature_entries(facts: ClusterFacts, partition: Partition) -> list[Entry]:
    """Features that tell some of the nodes from others, beside those that are named like their GPUs."""
    nodes = _gpu_nodes(facts, partition)
    counts = Counter(feature for node in nodes for feature in set(node.features))
    kinds = {kind for node in nodes for kind in node.gpus}
    return [
        Entry("constraint", feature, f"{count} of {_count(len(nodes), 'node')}", taken=False)
        for feature, count in sorted(counts.items())
        if count < len(nodes) and feature not in kinds
    ][:MOST_FEATURES]


MOST_FEATURES = 6
"""Features that are named: some sites have hundreds."""


def _reservation_entries(facts: ClusterFacts, partition: Partition) -> list[Entry]:
    accounts = set(accounts_of(facts))
    entries = []
    for one in facts.reservations or ():
        mine = facts.user in one.users or accounts & set(one.accounts) or facts.groups & set(one.groups)
        if mine and "MAINT" not in one.flags and one.partition in (None, partition.name):
            why = f"{one.nodes or 'its nodes'}, from {one.start or 'now'} to {one.end or 'further notice'}"
            entries.append(Entry("reservation", one.name, why, taken=False))
    return entries


def _qos(facts: ClusterFacts, name: str | None) -> Qos | None:
    known = (facts.accounting.qos if facts.accounting else None) or ()
    return next((one for one in known if one.name == name), None)


def _limits(qos: Qos | None) -> str:
    """Say what a QoS limits, in a few words."""
    if qos is None:
        return ""
    parts = [f"at most {_time(qos.max_wall)}"] if qos.max_wall else []
    for amounts, whose in (
        (qos.max_tres, "a job"),
        (qos.max_tres_per_user, "your jobs together"),
        (qos.group_tres, "everybody's jobs together"),
    ):
        if amounts:
            parts.append(f"{_amounts(amounts)} for {whose}")
    if qos.max_jobs_per_user is not None:
        parts.append(f"{_count(qos.max_jobs_per_user, 'running job')} of yours")
    return ", ".join(parts)


def _amounts(amounts: Mapping[str, int]) -> str:
    def words(name: str, amount: int) -> str:
        if name == "mem":
            return f"{_size_in_words(amount)} of memory"
        if name in {"gres/gpu", "cpu", "node"}:
            return _count(amount, {"gres/gpu": "GPU", "cpu": "CPU"}.get(name, name))
        return f"{amount}x {name.removeprefix('gres/gpu:')}"

    return " and ".join(words(name, amount) for name, amount in amounts.items())


def _gpu_nodes(facts: ClusterFacts, partition: Partition) -> list[Node]:
    """The nodes of a partition that have GPUs: those that start jobs now, else all."""
    nodes = [node for node in facts.nodes_of(partition) if node.gpu_count]
    return [node for node in nodes if node.usable] or nodes


def nodes_in_words(facts: ClusterFacts, partition: Partition) -> str:
    """Say what nodes with GPUs a partition has: `3 nodes with 8 h100 each, 1 of them drained`."""
    if facts.nodes is None:
        return "its nodes are not known"
    groups: Counter[tuple[tuple[str, int], ...]] = Counter()
    troubles: dict[object, Counter[str]] = {}
    for node in facts.nodes_of(partition):
        if node.gpu_count:
            kinds = tuple(sorted(node.gpus.items()))
            groups[kinds] += 1
            if node.trouble:
                troubles.setdefault(kinds, Counter())[node.trouble] += 1
    parts = []
    for kinds, count in groups.most_common(MOST_KINDS):
        what = " and ".join(f"{number}x {kind}" if kind else _count(number, "GPU") for kind, number in kinds)
        words = f"{_count(count, 'node')} with {what}" + (" each" if count > 1 else "")
        words += "".join(
            f", {number} of them {why}" for why, number in troubles.get(kinds, Counter()).items()
        )
        parts.append(words)
    more, hidden = len(groups) - MOST_KINDS, facts.hidden_of(partition)
    parts += [f"{_count(more, 'more kind')} of nodes"] if more > 0 else []
    parts += [f"{_count(hidden, 'node')} that SLURM does not show now"] if hidden else []
    return "; ".join(parts)


MOST_KINDS = 3
"""Kinds of nodes that a line names."""


def _in_common(
    sections: list[tuple[Partition, list[Entry]]],
) -> tuple[list[Entry], list[tuple[Partition, list[Entry]]]]:
    """Take out what is the same in all sections and belongs to the user, not to a partition."""
    if len(sections) < 2:  # noqa: PLR2004 - nothing to have in common
        return [], sections
    common: list[Entry] = []
    for key in ("account", "qos", "reservation"):
        proposed = {
            tuple(one.value for one in entries if one.key == key and one.taken) for _, entries in sections
        }
        if len(proposed) > 1:
            break  # a QoS is one of an account's
        first, *others = ([one for one in entries if one.key == key] for _, entries in sections)
        shared = [one for one in first if all(_says(one, other) for other in others)]
        common += shared
        sections = [
            (name, [one for one in entries if one.key != key or not _says(one, shared)])
            for name, entries in sections
        ]
    return common, sections


def _says(entry: Entry, entries: Iterable[Entry]) -> bool:
    """Whether an entry is among others, whatever the reason for it."""
    return any((one.key, one.value, one.taken) == (entry.key, entry.value, entry.taken) for one in entries)


def _partitions_to_choose(facts: ClusterFacts, refused: dict[str, str | None]) -> list[Entry]:
    """What stands for the partition where none is good: those that have GPUs, else a name to be filled in."""
    named = [
        Entry("partition", one.name, f"{refused[one.name]}; {nodes_in_words(facts, one)}", taken=False)
        for one in facts.partitions or ()
        if any(node.gpu_count for node in facts.nodes_of(one))
    ]
    fallback = Entry("partition", "NAME", "`sinfo -s` lists them", taken=False)
    rest = [
        Entry("gpu_type", "TYPE", '`sinfo -o "%P %G"` lists them', taken=False),
        Entry("cpus_per_gpu", 8, "a GPU's fair part of a node's CPUs", taken=False),
        Entry("mem_per_gpu", "64G", "and of its memory", taken=False),
        Entry("time", "8:00:00", "unset: the partition's default", taken=False),
        Entry("account", "NAME", "`sacctmgr show associations user=$USER` lists yours", taken=False),
    ]
    return [*(named or [fallback]), *rest]


def _why_none(facts: ClusterFacts, refused: dict[str, str | None]) -> str:
    if facts.partitions is None:
        why = next((one.why for one in facts.unknown if one.what == "partitions"), "it gave no answer")
        return f"SLURM could not be asked: {why}"
    if not facts.partitions:
        return "SLURM shows no partition"
    return f"no partition is good for a run: {_refusals(refused)}"


def _refusals(refused: dict[str, str | None]) -> str:
    return "; ".join(f"{name} {why}" for name, why in refused.items() if why)


def _header(facts: ClusterFacts, refused: dict[str, str | None], unknown: Sequence[str]) -> list[str]:
    settings = facts.settings
    which = f"cluster {settings.name} (SLURM {settings.version})" if settings else "a cluster"
    taken = "A line behind # is a choice that was not taken; `medarc_slurm options` lists every key."
    said = [f"Proposed by `medarc_slurm init` for {which}. {taken}"]
    if words := _refusals(refused):
        said.append(f"Not proposed: {words}.")
    if unknown:
        said.append(f"Not known: {'; '.join(unknown)}.")
    if settings is not None and not settings.accounting:
        said.append("No accounting runs, so that no account and no QoS is needed.")
    return [*(line for text in said for line in _wrapped(text)), ""]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(_plain(text), WIDTH, initial_indent="# ", subsequent_indent="# ")


def _lines(entries: Iterable[Entry]) -> list[str]:
    return [
        ("" if entry.taken and _is_good(entry) else "# ") + _toml(entry.key, entry.value, entry.why)
        for entry in entries
    ]


def _is_good(entry: Entry) -> bool:
    """Whether the option takes the value: SLURM's names may be what no option is."""
    try:
        settle([Layer("", {entry.key: entry.value})])
    except MedarcError:
        return False
    return True


def _toml(key: str, value: object, why: str) -> str:
    return f"{tomli_w.dumps({key: value}).strip()} {_comment(why)}".rstrip()


def _comment(text: str) -> str:
    return f"# {_plain(text)}" if text else ""


def _plain(text: str) -> str:
    """Make one line of what may be anything: reasons of operators, names."""
    return "".join(character if character.isprintable() else " " for character in text)


def _profile_names(partitions: Sequence[Partition]) -> list[str]:
    names: list[str] = []
    for partition in partitions:
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", partition.name)
        again = sum(1 for one in names if one == name)
        names.append(f"{name}-{again + 1}" if again else name)
    return names


def _time(seconds: int) -> str:
    """Write seconds as SLURM does: `2-00:00:00`, `8:00:00`."""
    days, rest = divmod(seconds, DAY)
    clock = f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}-{clock.rjust(8, '0')}" if days else clock


def _size(mib: int) -> str:
    return f"{mib // 1024}G" if mib >= 1024 else f"{mib}M"  # noqa: PLR2004


def _size_in_words(mib: int) -> str:
    return f"{mib / 1024:.1f}".removesuffix(".0") + " GiB" if mib >= 1024 else f"{mib} MiB"  # noqa: PLR2004


def _gpus(count: int) -> str:
    return "its GPU" if count == 1 else f"{count} GPUs"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _joined(*parts: str) -> str:
    return "; ".join(filter(None, parts))
