"""Single jobs in detail: what one asked for and how it stands, and which jobs hold the GPUs of some nodes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from medarc_plugin.process import run
from medarc_plugin.slurm.gateway import QUERY_TIMEOUT, Cluster
from medarc_plugin.slurm.parsing import fields, parse_gres, parse_memory, parse_time, parse_tres
from medarc_plugin.slurm.queue import FIELD, RECORD, moment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

GPU = "gres/gpu"

_JOB_NAME = re.compile(r" JobName=.*? (?=UserId=\S+\(\d+\) GroupId=)")
_NOTHING = frozenset({"", "(null)", "N/A", "None", "Unknown"})

HOLDER_FIELDS = ("%A", "%u", "%T", "%S", "%e", "%b", "%C", "%N", "%Q")
"""What squeue is asked of jobs that hold or want GPUs."""

GOING = "RUNNING,SUSPENDED,COMPLETING,CONFIGURING,STOPPED"
"""States of jobs that hold what they were given."""


@dataclass(frozen=True)
class JobDetail:
    """A job as `scontrol show job` describes it.

    Attributes:
        job_id: Its id.
        state: SLURM's word.
        reason: Why it is in that state, with `_` for blanks.
        exit_code: `code:signal` of the script.
        dependency: What is left of its dependencies: `afterok:12(unfulfilled)`.
        partitions: Those that it may run in.
        time_limit: In seconds; `None` for none.
        start: When it started, or is expected to.
        eligible: From when on it may start.
        cpus: CPUs that it asks for.
        memory: MiB that it asks for; `None` where the cluster does not say.
        gpus: GPUs that it asks for, by type, on a node.
        constraint: Node features.
        nodelist: Nodes that it must have.
        exclude: Nodes that it must not have.
        reservation: Its reservation.
        account: Its account.
        qos: Its QoS.
        nice: What it takes off its own priority.
        exclusive: Whether it takes whole nodes.
        command: Its script.
        comment: Its comment.
    """

    job_id: str
    state: str
    reason: str | None = None
    exit_code: str | None = None
    dependency: str | None = None
    partitions: tuple[str, ...] = ()
    time_limit: int | None = None
    start: datetime | None = None
    eligible: datetime | None = None
    cpus: int | None = None
    memory: int | None = None
    gpus: Mapping[str, int] = field(default_factory=dict)
    constraint: str | None = None
    nodelist: str | None = None
    exclude: str | None = None
    reservation: str | None = None
    account: str | None = None
    qos: str | None = None
    nice: int = 0
    exclusive: bool = False
    command: str | None = None
    comment: str | None = None


@dataclass(frozen=True)
class Holder:
    """A job that holds something of a node, or waits for it.

    Attributes:
        job_id: Its id.
        user: Whose.
        state: SLURM's word.
        start: When it started, or is expected to.
        end: When its time limit ends it.
        gpus: GPUs of it on each node; `None` where SLURM does not say.
        cpus: Its CPUs.
        node: The node or nodes, as a host list.
        priority: Its priority.
    """

    job_id: str
    user: str
    state: str
    start: datetime | None
    end: datetime | None
    gpus: int | None
    cpus: int | None
    node: str | None
    priority: int | None = None


def detail(cluster: Cluster, job_id: str) -> JobDetail | None:
    """Ask the controller about a job; `None` when it does not know it, or does not answer."""
    argv = ["scontrol", *cluster.option, "-o", "show", "job", job_id]
    done = run(argv, env=cluster.environment, timeout=QUERY_TIMEOUT)
    line = next((each for each in done.stdout.splitlines() if each.startswith("JobId=")), None)
    return None if not done.ok or line is None else read_detail(line)


def read_detail(line: str) -> JobDetail:
    """Read a line of `scontrol -o show job`."""
    # A job's name stands before everything else, and may read like any field.
    values = fields(_JOB_NAME.sub(" ", line.strip(), count=1))

    def word(name: str) -> str | None:
        value = values.get(name, "")
        return None if value in _NOTHING else value

    asked = parse_tres(values.get("ReqTRES") or values.get("TRES") or "")
    comment = re.search(r" Comment=(.*?)(?=\s+\w+=|\s*$)", line)
    return JobDetail(
        job_id=values.get("JobId", ""),
        state=values.get("JobState", ""),
        reason=word("Reason"),
        exit_code=word("ExitCode"),
        dependency=word("Dependency"),
        partitions=tuple(name for name in (word("Partition") or "").split(",") if name),
        time_limit=parse_time(values.get("TimeLimit", "")),
        start=moment(word("StartTime")),
        eligible=moment(word("EligibleTime")),
        # `8`, or `8-16` of a job that leaves it open.
        cpus=_number(values.get("NumCPUs", "").partition("-")[0]),
        memory=_memory(values, asked),
        gpus=_gpus(values, asked),
        constraint=word("Features"),
        nodelist=word("ReqNodeList"),
        exclude=word("ExcNodeList"),
        reservation=word("Reservation"),
        account=word("Account"),
        qos=word("QOS"),
        nice=_number(values.get("Nice", "")) or 0,
        exclusive=values.get("OverSubscribe") in {"NO", "EXCLUSIVE"},
        command=word("Command"),
        comment=comment[1] if comment else None,
    )


def _memory(values: Mapping[str, str], asked: Mapping[str, int]) -> int | None:
    if asked.get("mem"):
        return asked["mem"]
    node = parse_memory(values.get("MinMemoryNode", ""))
    if node:
        return node
    each = parse_memory(values.get("MinMemoryCPU", ""))
    cpus = _number(values.get("NumCPUs", "").partition("-")[0])
    return each * cpus if each and cpus else None


def _gpus(values: Mapping[str, str], asked: Mapping[str, int]) -> dict[str, int]:
    for name in ("TresPerNode", "TresPerJob", "Gres"):
        found = gpus_of(values.get(name, ""))
        if found:
            return found
    typed = {
        name.removeprefix(f"{GPU}:"): count for name, count in asked.items() if name.startswith(f"{GPU}:")
    }
    return typed or ({"": asked[GPU]} if asked.get(GPU) else {})


def gpus_of(text: str) -> dict[str, int]:
    """Count GPUs by type in a request: `gpu:2`, `gres:gpu:2`, `gres/gpu:h100:2`, `gres/gpu:h100=2`."""
    plain = re.sub(r"gres[:/]", "", text).replace("=", ":")
    return parse_gres(plain).get("gpu", {})


def holders(cluster: Cluster, nodes: Sequence[str]) -> list[Holder] | None:
    """List the jobs that run on some nodes; `None` when SLURM does not say."""
    return _ask(cluster, "-t", GOING, "-w", ",".join(nodes))


def waiting(cluster: Cluster, partitions: Sequence[str]) -> list[Holder] | None:
    """List the jobs that wait in some partitions; `None` when SLURM does not say."""
    return _ask(cluster, "-t", "PENDING", "-p", ",".join(partitions))


def of_user(cluster: Cluster, user: str) -> list[Holder] | None:
    """List a user's running jobs; `None` when SLURM does not say."""
    return _ask(cluster, "-t", GOING, "-u", user)


def _ask(cluster: Cluster, *which: str) -> list[Holder] | None:
    form = RECORD + FIELD.join(HOLDER_FIELDS)
    argv = ["squeue", *cluster.option, "-h", "-a", *which, "-o", form]
    done = run(argv, env=_plain(cluster), timeout=QUERY_TIMEOUT)
    if not done.ok:
        return None
    return [each for each in map(_holder, done.stdout.split(RECORD)[1:]) if each is not None]


def _holder(text: str) -> Holder | None:
    values = [value.strip() for value in text.split(FIELD)]
    if len(values) != len(HOLDER_FIELDS):
        return None
    job_id, user, state, start, end, gres, cpus, node, priority = values
    # A job that asked by `--gpus` has its GPUs nowhere in this column.
    gpus = None if gres in _NOTHING else sum(gpus_of(gres).values())
    known = None if node in _NOTHING else node
    number = _number(priority)
    return Holder(job_id, user, state, moment(start), moment(end), gpus, _number(cpus), known, number)


def states(cluster: Cluster, job_ids: Iterable[str]) -> dict[str, JobDetail | None]:
    """Ask how some jobs stand; `None` for one that the controller does not know."""
    return {job_id: detail(cluster, job_id) for job_id in job_ids}


def _plain(cluster: Cluster) -> dict[str, str]:
    """The user's own wishes for these commands would hide jobs."""
    kept = cluster.environment.items()
    return {name: value for name, value in kept if not name.startswith(("SQUEUE_", "SACCT_"))}


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"-?\d+", text) else None
