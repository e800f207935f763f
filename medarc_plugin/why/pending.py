"""Why a job waits: SLURM's reason in plain words, who holds what it waits for, what would start sooner."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from medarc_plugin.preflight import accounts, nodes, partitions
from medarc_plugin.preflight.findings import counted, listed, memory_words, time_words
from medarc_plugin.preflight.free import words_of_what_is_free
from medarc_plugin.preflight.target import Target, Wish
from medarc_plugin.slurm import cluster as clusters
from medarc_plugin.slurm import hostlist, jobs
from medarc_plugin.standing import clock, cluster_of, duration
from medarc_plugin.why import reasons, sooner
from medarc_plugin.why.answer import Answer, headline

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from medarc_plugin.slurm.facts import Association, ClusterFacts, Node, Qos
    from medarc_plugin.slurm.gateway import Cluster
    from medarc_plugin.slurm.jobs import Holder, JobDetail
    from medarc_plugin.standing import RunStatus
    from medarc_plugin.why.reasons import Limit, Meaning

MOST_NODES, MOST_JOBS = 4, 8
"""Nodes, and jobs on each, that are named one by one."""

SOON = 60
"""Seconds until an expected start that nobody doubts."""

REASONS_PAGE = "https://slurm.schedmd.com/job_reason_codes.html"


@dataclass(frozen=True)
class Waiting:
    """A job that waits, and what is known of its cluster.

    Attributes:
        status: The run.
        cluster: Its SLURM.
        detail: The job; `None` where SLURM does not say.
        facts: The cluster.
        wish: What the job asks for.
    """

    status: RunStatus
    cluster: Cluster
    detail: JobDetail | None
    facts: ClusterFacts
    wish: Wish

    @cached_property
    def targets(self) -> list[Target]:
        """The job in each of the partitions where it may run."""
        names: Sequence[str | None] = self.wish.partitions or (None,)
        found = [self.facts.partition(name) for name in names]
        return [Target(self.wish, each, self.facts) for each in found if each is not None]

    @cached_property
    def nodes(self) -> list[Node]:
        """The nodes that could ever take it, whatever their state."""
        found = {node.name: node for target in self.targets for node in nodes.fitting(target)}
        return list(found.values())

    @cached_property
    def holders(self) -> list[Holder] | None:
        """The jobs that run on these nodes; `None` where SLURM does not say."""
        return jobs.holders(self.cluster, [node.name for node in self.nodes]) if self.nodes else []

    @cached_property
    def before(self) -> list[Holder]:
        """The jobs that wait in the same partitions with a higher priority."""
        waiting = jobs.waiting(self.cluster, [target.partition.name for target in self.targets]) or []
        own = next((each.priority for each in waiting if each.job_id == self.status.job_id), None)
        if own is None:
            return []
        return [each for each in waiting if each.priority is not None and each.priority > own]


@dataclass
class _Told:
    """What is found to say, as it is found."""

    lines: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def explain(status: RunStatus) -> Answer:
    """Say why a run's job waits, for what, and what would start sooner."""
    cluster = cluster_of(status.run)
    detail = (
        jobs.detail(cluster, status.job_id) if (status.job_id or "").isdigit() and status.job_id else None
    )
    facts = clusters.ask(cluster)
    waiting = Waiting(status, cluster, detail, facts, wish_of(status, detail))
    reason = status.reason or (detail.reason if detail else None) or "None"
    meaning = reasons.meaning_of(reason)
    told = _Told()
    _say_reason(told, reason, meaning)
    if meaning is not None:
        TELLERS.get(meaning.kind, _nothing)(told, waiting, reason)
    _say_start(told, waiting, meaning)
    if meaning is not None and meaning.way:
        told.hints.insert(0, meaning.way.replace("JOB", status.job_id or "JOB"))
    if meaning is not None and meaning.kind in {reasons.RESOURCES, reasons.PRIORITY, reasons.NODES}:
        changes = sooner.changes(waiting)
        told.hints += [str(each) for each in changes]
        told.facts["sooner"] = [each.document() for each in changes]
    if facts.unknown:
        told.lines.append("not known: " + "; ".join(f"{each.what} ({each.why})" for each in facts.unknown))
    since = f" since {clock(status.submitted).removeprefix('at ')}" if status.submitted else ""
    again = " again" if status.records.attempts else ""
    document = {
        "reason": reason,
        "kind": meaning.kind if meaning else None,
        "meaning": meaning.words if meaning else None,
        "known": meaning is not None,
        "estimated_start": status.estimated_start.isoformat() if status.estimated_start else None,
        **dict.fromkeys(("nodes", "jobs", "limit", "depends_on", "sooner")),
        **told.facts,
    }
    words = headline(status, f"waits{again}{since}")
    return Answer(status, words, tuple(told.lines), tuple(dict.fromkeys(told.hints)), {"waiting": document})


def wish_of(status: RunStatus, detail: JobDetail | None) -> Wish:
    """What a job asks for: as SLURM has it, else as it was planned."""
    gpus = status.gpus or 0
    if detail is None:
        return Wish((status.partition,) if status.partition else (), gpus, None, 1, None, None)
    asked = sum(detail.gpus.values()) or gpus
    kinds = [kind for kind in detail.gpus if kind]
    return Wish(
        partitions=detail.partitions,
        gpus=asked,
        gpu_type=kinds[0] if len(kinds) == 1 else None,
        cpus=detail.cpus or 1,
        memory=detail.memory,
        time=detail.time_limit,
        exclusive=detail.exclusive,
        constraint=detail.constraint,
        nodelist=detail.nodelist,
        exclude=detail.exclude,
        reservation=detail.reservation,
        account=detail.account,
        qos=detail.qos,
    )


def _say_reason(told: _Told, reason: str, meaning: Meaning | None) -> None:
    if meaning is None:
        told.lines.append(f"SLURM's reason: {reason}; it is not known here what that means")
        told.hints.append(f"{REASONS_PAGE} lists SLURM's reasons")
        return
    told.lines.append(f"SLURM's reason: {reason}: {meaning.words}")


def _say_start(told: _Told, waiting: Waiting, meaning: Meaning | None) -> None:
    start = waiting.status.estimated_start
    if start is not None:
        wait = (start - datetime.now(UTC)).total_seconds()
        soon = f", in {duration(wait)}" if wait > 0 else ""
        doubt = meaning is not None and meaning.kind in {reasons.RESOURCES, reasons.PRIORITY, reasons.OTHER}
        free = words_of_what_is_free(waiting.targets) if doubt and wait > SOON else None
        told.lines.append(f"SLURM expects to start it {clock(start)}{soon}" + (f"; {free}" if free else ""))
    elif meaning is not None and meaning.kind in {reasons.RESOURCES, reasons.PRIORITY}:
        told.lines.append("SLURM does not say yet when it would start")


def _nothing(told: _Told, waiting: Waiting, reason: str) -> None:
    """There is nothing to add to the reason."""


# What is in use, and by whom


def _tell_resources(told: _Told, waiting: Waiting, _: str) -> None:
    told.lines.append(_asked(waiting))
    _tell_idle_nodes(told, waiting)
    usable = [node for node in waiting.nodes if node.usable]
    told.facts["nodes"] = [_node_document(node) for node in waiting.nodes]
    told.facts["jobs"] = [_holder_document(each) for each in waiting.holders or ()]
    for node in usable[:MOST_NODES]:
        told.lines.append(_in_use(node, waiting))
    if len(usable) > MOST_NODES:
        free = max((node.free_gpus() for node in usable[MOST_NODES:]), default=0)
        told.lines.append(
            f"{len(usable) - MOST_NODES} more nodes, with at most {counted(free, 'free GPU')} each"
        )
    ends = sorted(each.end for each in waiting.holders or () if each.end and each.gpus != 0)
    if ends:
        told.lines.append(f"the first of these jobs ends {clock(ends[0])} at the latest")


def _tell_priority(told: _Told, waiting: Waiting, reason: str) -> None:
    _tell_resources(told, waiting, reason)
    before = waiting.before
    if before:
        named = [f"{each.job_id} ({each.user})" for each in before]
        wait = "waits" if len(before) == 1 else "wait"
        told.lines.append(
            f"{counted(len(before), 'job')} with a higher priority {wait} there: {listed(named)}"
        )
    if waiting.detail is not None and waiting.detail.nice > 0:
        told.hints.append(f"it lowers its own priority by --nice {waiting.detail.nice}")


def _asked(waiting: Waiting) -> str:
    wish = waiting.wish
    parts = [wish.gpu_words, counted(wish.cpus, "CPU")]
    if wish.memory:
        parts.append(f"{memory_words(wish.memory)} of memory")
    if wish.time is not None:
        parts.append(f"{time_words(wish.time)} of time")
    where = listed(
        [target.partition.name for target in waiting.targets] or wish.partitions, "the default one"
    )
    names = [node.name for node in waiting.nodes]
    if waiting.facts.nodes is None:
        could = ""
    elif names:
        could = f"; {counted(len(names), 'node')} could give that: {listed(names)}"
    else:
        could = "; no node could ever give that"
    return f"it asks for {', '.join(parts)} in partition {where}{could}"


def _in_use(node: Node, waiting: Waiting) -> str:
    kinds = listed(f"{kind or 'no type'}" for kind in node.gpus)
    used = sum(node.gpus_used.values())
    words = f"{node.name}: {used} of {node.gpu_count} GPUs ({kinds}) in use"
    words += f", {counted(node.cpus - node.cpus_used, 'CPU')} free"
    if waiting.facts.settings is None or waiting.facts.settings.memory_counts:
        words += f", {memory_words(max(0, node.memory - node.memory_used))} free"
    own = [each for each in waiting.holders or () if node.name in (hostlist.expand(each.node or "") or ())]
    own = sorted(own, key=lambda each: (-(each.gpus or 0), each.job_id))
    if waiting.holders is None:
        return f"{words}; SLURM does not say by whom"
    shown = [_holder(each) for each in own[:MOST_JOBS]]
    more = [f"{len(own) - MOST_JOBS} more jobs"] if len(own) > MOST_JOBS else []
    known = sum(each.gpus or 0 for each in own)
    open_ = any(each.gpus is None for each in own)
    if used > known and not open_:
        more.append(f"{counted(used - known, 'GPU')} by jobs that SLURM does not show you")
    return f"{words}, by {'; '.join(shown + more)}" if shown or more else words


def _holder(each: Holder) -> str:
    gpus = "GPUs not said" if each.gpus is None else counted(each.gpus, "GPU")
    until = f", until {clock(each.end).removeprefix('at ')} at the latest" if each.end else ""
    return f"job {each.job_id} ({each.user}, {gpus}{until})"


def _holder_document(each: Holder) -> dict[str, Any]:
    return {
        "job_id": each.job_id,
        "user": each.user,
        "state": each.state,
        "node": each.node,
        "gpus": each.gpus,
        "cpus": each.cpus,
        "ends_at_the_latest": each.end.isoformat() if each.end else None,
    }


def _node_document(node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "usable": node.usable,
        "trouble": node.trouble,
        "trouble_reason": node.reason,
        "gpus": node.gpu_count,
        "gpus_free": node.free_gpus() if node.usable else 0,
        "cpus_free": max(0, node.cpus - node.cpus_used),
        "memory_free": max(0, node.memory - node.memory_used),
    }


def _tell_idle_nodes(told: _Told, waiting: Waiting) -> None:
    """Tell which of the nodes that could take the job start nothing now, and why."""
    idle = [node for node in waiting.nodes if not node.usable]
    for node in idle[:MOST_NODES]:
        why = f": {node.reason}" if node.reason else ""
        told.lines.append(f"{node.name} is {node.trouble}{why}")
    if len(idle) > MOST_NODES:
        told.lines.append(f"{counted(len(idle) - MOST_NODES, 'more node')} of those start nothing now")


def _tell_nodes(told: _Told, waiting: Waiting, _: str) -> None:
    told.lines.append(_asked(waiting))
    told.facts["nodes"] = [_node_document(node) for node in waiting.nodes]
    down = [target.partition for target in waiting.targets if target.partition.state != "UP"]
    told.lines += [f"partition {each.name} is {each.state}" for each in down]
    others = [name for name in partitions.open_ones(waiting.facts) if name not in waiting.wish.partitions]
    if down and others:
        told.hints.append(f"partitions that are up: {listed(others)}")
    _tell_idle_nodes(told, waiting)
    for reservation in waiting.facts.reservations or ():
        names = set(hostlist.expand(reservation.nodes or "") or ())
        if names & {node.name for node in waiting.nodes} and reservation.name != waiting.wish.reservation:
            told.lines.append(
                f"reservation {reservation.name} has {reservation.nodes} "
                f"from {reservation.start} to {reservation.end}"
            )


# Limits, other jobs, times


def _tell_limit(told: _Told, waiting: Waiting, reason: str) -> None:
    limit = reasons.limit_of(reason)
    if limit is None:
        return
    values = list(_values(limit, waiting))
    told.facts["limit"] = {
        "resource": limit.resource,
        "scope": limit.scope,
        "of": "qos" if limit.qos else "association",
        "name": None,
        "value": None,
        "in_use": None,
        "asked": _amount_asked(limit, waiting.wish),
    }
    used = _in_use_by_user(limit, waiting)
    for owner, value in values[:1]:
        told.facts["limit"] |= {"value": value, "in_use": used, "name": owner}
        now = f", {_amount(limit, used)} of yours in use now" if used is not None else ""
        asked = told.facts["limit"]["asked"]
        more = f", and this job asks for {_amount(limit, asked)}" if asked else ""
        told.lines.append(f"the limit of {owner} is {_amount(limit, value)}{now}{more}")
    own = [each for each in jobs.of_user(waiting.cluster, waiting.facts.user) or () if each.gpus != 0]
    if own and limit.scope in {"user", "group", "account"}:
        told.facts["jobs"] = [_holder_document(each) for each in own]
        told.lines.append("your jobs that run: " + "; ".join(map(_holder, own[:MOST_JOBS])))


def _values(limit: Limit, waiting: Waiting) -> Iterator[tuple[str, int]]:
    """The values of a limit, each with whose it is, the most particular first."""
    known = waiting.facts.accounting
    if known is None or limit.spent:
        return
    wish = waiting.wish
    if limit.qos:
        names = [wish.qos, *(target.partition.qos for target in waiting.targets)]
        for one in known.qos or ():
            value = _of_qos(limit, one)
            if one.name in names and value is not None:
                yield f"QoS {one.name}", value
        return
    for association in (*(known.associations or ()), *(known.accounts or ())):
        value = _of_association(limit, association)
        if association.account == (wish.account or known.default_account) and value is not None:
            yield (
                f"{'user' if association.user else 'account'} {association.user or association.account}",
                value,
            )


def _of_qos(limit: Limit, one: Qos) -> int | None:
    if limit.resource == "wall":
        return one.max_wall
    if limit.resource in {"jobs", "submit"}:
        return one.max_jobs_per_user if limit.resource == "jobs" else one.max_submit_per_user
    table = {"job": one.max_tres, "user": one.max_tres_per_user, "group": one.group_tres}.get(limit.scope)
    return (one.min_tres if limit.minimum else table or {}).get(_tres(limit))


def _of_association(limit: Limit, one: Association) -> int | None:
    if limit.resource == "wall":
        return one.max_wall
    if limit.resource in {"jobs", "submit"}:
        return one.max_jobs if limit.resource == "jobs" else one.max_submit
    return (one.group_tres if limit.scope == "group" else one.max_tres).get(_tres(limit))


def _tres(limit: Limit) -> str:
    return "gres/gpu" if limit.resource == "gpu" else limit.resource


def _in_use_by_user(limit: Limit, waiting: Waiting) -> int | None:
    """How much of a resource the user's running jobs have; `None` where that is not to be known."""
    if limit.resource not in {"jobs", "gpu", "cpu"} or limit.scope == "job":
        return None
    own = jobs.of_user(waiting.cluster, waiting.facts.user)
    if own is None:
        return None
    if limit.resource == "jobs":
        return len(own)
    return sum((each.gpus if limit.resource == "gpu" else each.cpus) or 0 for each in own)


def _amount_asked(limit: Limit, wish: Wish) -> int | None:
    asked = {"gpu": wish.gpus, "cpu": wish.cpus, "mem": wish.memory, "node": 1}
    if limit.resource == "wall":
        return int(wish.time) if wish.time is not None else None
    return asked.get(limit.resource)


def _amount(limit: Limit, value: int) -> str:
    if limit.resource == "wall":
        return time_words(value)
    if limit.resource == "mem":
        return memory_words(value)
    return counted(
        value, {"gpu": "GPU", "cpu": "CPU", "node": "node", "jobs": "job", "submit": "job"}[limit.resource]
    )


_DEPENDENCY = re.compile(r"(?:(\w+):)?(\d+)(?:_\S+?)?(?:\+\d+)?\((\w+)\)")


def _tell_dependency(told: _Told, waiting: Waiting, _: str) -> None:
    text = (waiting.detail.dependency if waiting.detail else None) or ""
    found = [(kind or "after", job_id, state) for kind, job_id, state in _DEPENDENCY.findall(text)]
    how = jobs.states(waiting.cluster, dict.fromkeys(job_id for _, job_id, _ in found))
    told.facts["depends_on"] = []
    for kind, job_id, state in found:
        known = how[job_id]
        words = f"which is {known.state}" if known else "which SLURM no longer knows"
        end = f", with exit code {known.exit_code}" if known and known.exit_code not in {None, "0:0"} else ""
        told.lines.append(f"it depends on job {job_id} ({kind}, {state}), {words}{end}")
        told.facts["depends_on"].append(
            {
                "job_id": job_id,
                "kind": kind,
                "met": state == "fulfilled",
                "state": known.state if known else None,
            }
        )
    if not found and text:
        told.lines.append(f"what is left of its dependency: {text}")


def _tell_time(told: _Told, waiting: Waiting, _: str) -> None:
    begin = waiting.detail.eligible if waiting.detail else None
    if begin is not None and begin > datetime.now(UTC):
        told.lines.append(
            f"it may start {clock(begin)}, in {duration((begin - datetime.now(UTC)).total_seconds())}"
        )
    wanted = waiting.wish.reservation
    for one in waiting.facts.reservations or ():
        if one.name == wanted:
            told.lines.append(f"reservation {one.name} lasts from {one.start} to {one.end}")


def _tell_refused(told: _Told, waiting: Waiting, reason: str) -> None:
    """Tell what of the request cannot be had, as the check before a submission would."""
    told.lines.append(_asked(waiting))
    for target in waiting.targets:
        for check in (
            partitions.time_is_within,
            partitions.partition_takes_jobs,
            partitions.partition_is_the_users,
            nodes.some_node_can_take_it,
            accounts.limits_allow_it,
        ):
            for problem in check(target):
                told.lines.append(problem.message)
                if problem.hint:
                    told.hints.append(problem.hint)
    limit = reasons.limit_of(reason)
    if limit is not None:
        _tell_limit(told, waiting, reason)


TELLERS = {
    reasons.RESOURCES: _tell_resources,
    reasons.PRIORITY: _tell_priority,
    reasons.LIMIT: _tell_limit,
    reasons.DEPENDENCY: _tell_dependency,
    reasons.NODES: _tell_nodes,
    reasons.TIME: _tell_time,
    reasons.REFUSED: _tell_refused,
}
"""What tells more, by the kind of a reason."""
