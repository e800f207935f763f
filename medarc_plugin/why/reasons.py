"""SLURM's reasons for letting a job wait, in plain words (https://slurm.schedmd.com/job_reason_codes.html).

The names are those of SLURM 20.11 to 25; limits of accounting, of which there are more than a hundred, are
put together from the parts of their names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

RESOURCES, PRIORITY, LIMIT, DEPENDENCY, NODES, TIME, HELD, REFUSED, OTHER = (
    *("resources", "priority", "limit", "dependency", "nodes"),
    *("time", "held", "refused", "other"),
)
"""What is to be done about a reason: wait for others' jobs, for a limit, a job, a node, a time; let it go;
change the request, without which it never starts."""


@dataclass(frozen=True)
class Meaning:
    """What a reason means.

    Attributes:
        kind: One of the kinds above.
        words: In plain words.
        way: What to do; empty for waiting.
    """

    kind: str
    words: str
    way: str = ""


@dataclass(frozen=True)
class Limit:
    """A limit of accounting, as a reason names it.

    Attributes:
        qos: Whether it is a QoS's; else an account's or a user's.
        scope: `job`, `user`, `account`, `node` or `group`: what it holds for.
        resource: `gpu` (and other generic resources), `cpu`, `mem`, `node`, `jobs`, `submit`, `wall`,
            `billing` and so on.
        minimum: Whether it asks for more instead of less.
        spent: Whether it is of time used up so far, not of what runs now.
    """

    qos: bool
    scope: str
    resource: str
    minimum: bool = False
    spent: bool = False


MEANINGS: dict[str, Meaning] = {
    "Resources": Meaning(RESOURCES, "it is the next in line, and waits until what it asks for is free"),
    "Priority": Meaning(PRIORITY, "jobs with a higher priority come first"),
    "None": Meaning(OTHER, "SLURM has not looked at it yet: that takes some seconds"),
    "WaitingForScheduling": Meaning(OTHER, "SLURM has not looked at it yet: that takes some seconds"),
    "SchedDefer": Meaning(OTHER, "the scheduler has put it off to its next round"),
    "Dependency": Meaning(DEPENDENCY, "it waits for another job"),
    "DependencyNeverSatisfied": Meaning(
        DEPENDENCY,
        "it waits for another job that ended otherwise than it should have: it never starts",
        "cancel it and submit without --dependency, or `scontrol update job=JOB dependency=`",
    ),
    "BeginTime": Meaning(
        TIME, "it may not start before a certain time: that of --begin, or some two minutes after a requeue"
    ),
    "PartitionTimeLimit": Meaning(
        REFUSED, "its time limit is longer than the partition allows: it never starts", "a shorter --time"
    ),
    "PartitionNodeLimit": Meaning(
        REFUSED, "it asks for more or fewer nodes than the partition gives a job", "another --partition"
    ),
    "PartitionMaxNodes": Meaning(
        REFUSED, "it asks for more nodes than the partition gives a job", "another --partition"
    ),
    "PartitionMinNodes": Meaning(
        REFUSED, "it asks for fewer nodes than the partition gives a job", "another --partition"
    ),
    "PartitionDown": Meaning(
        NODES, "the partition is down: it starts nothing until somebody brings it up", "another --partition"
    ),
    "PartitionInactive": Meaning(
        NODES,
        "the partition is inactive: it starts nothing until somebody brings it up",
        "another --partition",
    ),
    "PartitionConfig": Meaning(
        REFUSED,
        "no node of the partition has so much together: it never starts as it is",
        "fewer CPUs (--cpus-per-gpu), less memory or fewer GPUs, or another --partition",
    ),
    "AccountNotAllowed": Meaning(
        REFUSED, "its account may not use the partition: it never starts", "another --account or --partition"
    ),
    "QOSNotAllowed": Meaning(
        REFUSED, "its QoS may not be used there: it never starts", "another --qos or --partition"
    ),
    "InvalidAccount": Meaning(REFUSED, "its account does not exist any more", "another --account"),
    "InvalidQOS": Meaning(REFUSED, "its QoS does not exist, or its account may not use it", "another --qos"),
    "ReqNodeNotAvail": Meaning(NODES, "nodes that it needs are down, drained or reserved"),
    "NodeDown": Meaning(NODES, "a node that it needs is down"),
    "FrontEndDown": Meaning(NODES, "no front-end node is up"),
    "BadConstraints": Meaning(
        REFUSED,
        "no node has what it asks for together: it never starts",
        "other --constraint, --gpu-type or --nodelist",
    ),
    "Reservation": Meaning(TIME, "it waits for its reservation to begin"),
    "ReservationDeleted": Meaning(
        REFUSED, "its reservation was deleted: it never starts", "another --reservation, or none"
    ),
    "ReqResv": Meaning(REFUSED, "the partition takes jobs with a reservation only", "--reservation NAME"),
    "RequiresReservation": Meaning(REFUSED, "it may run in a reservation only", "--reservation NAME"),
    "JobHeldUser": Meaning(HELD, "its owner holds it back", "`scontrol release JOB`"),
    "JobHeldAdmin": Meaning(
        HELD, "an operator holds it back", "ask the operators; they alone can release it"
    ),
    "JobHoldMaxRequeue": Meaning(
        HELD,
        "it was requeued so often that SLURM holds it back",
        "see why it is requeued, mostly a node that cannot start it, then `scontrol release JOB`",
    ),
    "JobLaunchFailure": Meaning(
        HELD,
        "the node could not start it",
        "`scontrol release JOB` tries again; --exclude the node if it comes again",
    ),
    "launch failed requeued held": Meaning(
        HELD,
        "the node could not start it, and SLURM holds it back: its prolog, credentials or disk failed",
        "`scontrol release JOB` tries again; --exclude the node and tell its operators if it comes again",
    ),
    "job requeued in held state": Meaning(HELD, "it was requeued on hold", "`scontrol release JOB`"),
    "job requeued in special exit state": Meaning(
        HELD, "it was requeued on hold after an exit code that the site treats so", "`scontrol release JOB`"
    ),
    "user env retrieval failed requeued held": Meaning(
        HELD,
        "the node could not load its owner's environment, and SLURM holds it back",
        "`scontrol release JOB`",
    ),
    "RequeueExitHold": Meaning(HELD, "the site holds jobs with its exit code", "`scontrol release JOB`"),
    "RequeueExit": Meaning(TIME, "the site requeues jobs with its exit code: it starts again soon"),
    "Licenses": Meaning(LIMIT, "all licenses that it asks for are in use"),
    "JobArrayTaskLimit": Meaning(LIMIT, "as many tasks of its array run as it allows at once"),
    "MaxRequeue": Meaning(HELD, "it was requeued as often as SLURM allows", "`scontrol release JOB`"),
    "Prolog": Meaning(OTHER, "its node's prolog still runs"),
    "Cleaning": Meaning(OTHER, "its last attempt is still being cleaned up: it starts again after that"),
    "InactiveLimit": Meaning(REFUSED, "it came to the limit of idle time"),
    "TimeLimit": Meaning(OTHER, "it came to its time limit"),
    "PowerNotAvail": Meaning(RESOURCES, "there is not enough power for it now"),
    "PowerReserved": Meaning(RESOURCES, "the power is reserved for others"),
    "MaxPoweredNodes": Meaning(RESOURCES, "as many nodes are powered up as the site allows at once"),
    "FedJobLock": Meaning(OTHER, "the clusters of the federation settle which of them runs it"),
    "BurstBufferResources": Meaning(RESOURCES, "the burst buffer has no room for it now"),
    "BurstBufferStageIn": Meaning(OTHER, "its data are being put into the burst buffer"),
    "DeadLine": Meaning(
        REFUSED, "it cannot end before its deadline", "a later --deadline, or a shorter --time"
    ),
    "QOSUsageThreshold": Meaning(LIMIT, "its account's use is above what its QoS demands", "another --qos"),
    "QOSJobLimit": Meaning(LIMIT, "as many jobs run under its QoS as it allows"),
    "QOSResourceLimit": Meaning(LIMIT, "its QoS allows no more at once"),
    "QOSTimeLimit": Meaning(LIMIT, "its QoS has used up its time"),
    "AssociationJobLimit": Meaning(LIMIT, "as many jobs run under its account as it allows"),
    "AssociationResourceLimit": Meaning(LIMIT, "its account allows no more at once"),
    "AssociationTimeLimit": Meaning(LIMIT, "its account has used up its time"),
    "AccountingPolicy": Meaning(LIMIT, "a limit of accounting"),
    "ResourcesAndPriority": Meaning(PRIORITY, "jobs with a higher priority come first, and nothing is free"),
}
"""What each reason means, by SLURM's name for it."""

_LIKE: tuple[tuple[str, Meaning], ...] = (
    (
        r"Nodes required for job are DOWN, DRAINED or reserved",
        Meaning(NODES, "nodes that it needs are down, drained, or reserved for jobs of higher priority"),
    ),
    (
        r"ReqNodeNotAvail.*[Rr]eserved for maintenance",
        Meaning(
            NODES,
            "nodes that it needs are reserved for maintenance",
            "a --time that ends before the maintenance begins",
        ),
    ),
    (
        r"ReqNodeNotAvail.*May be reserved for other job",
        Meaning(NODES, "nodes that it needs are reserved for other jobs"),
    ),
)

_LIMIT = re.compile(
    r"(?P<level>QOS|Assoc)(?P<bound>Max|Grp|Min)"
    r"(?P<resource>Cpu|CPU|GRES|Mem(?:ory)?|Node|Jobs?|SubmitJobs?|WallDuration|Wall|Billing|License|BB|Energy|Unknown)"
    r"(?P<spent>(?:Run)?Minutes)?(?P<scope>PerUser|PerJob|PerNode|PerAccount)?(?:Limit|NotSatisfied)?"
)
_RESOURCES = {
    "cpu": "cpu",
    "gres": "gpu",
    "mem": "mem",
    "memory": "mem",
    "node": "node",
    "job": "jobs",
    "jobs": "jobs",
    "submitjob": "submit",
    "submitjobs": "submit",
    "wallduration": "wall",
    "wall": "wall",
}
_NAMES = {
    "gpu": "GPUs and other devices",
    "cpu": "CPUs",
    "mem": "memory",
    "node": "nodes",
    "jobs": "running jobs",
    "submit": "submitted jobs",
    "wall": "time",
    "billing": "billing units",
    "license": "licenses",
    "bb": "burst buffer",
    "energy": "energy",
}
_SCOPES = {
    "job": "a job",
    "user": "a user's jobs together",
    "account": "an account's jobs together",
    "node": "a job on a node",
    "group": "all its jobs together",
}


def plain(reason: str) -> str:
    """The reason without what SLURM adds to it: nodes, blanks as `_`, brackets."""
    return reason.strip().strip("()").replace("_", " ").partition(",")[0].strip()


def meaning_of(reason: str) -> Meaning | None:
    """Say what a reason means; `None` for one that is not known.

    Args:
        reason: As squeue or scontrol has it.
    """
    text = reason.strip().strip("()").replace("_", " ")
    for pattern, meaning in _LIKE:
        if re.search(pattern, text):
            return meaning
    known = MEANINGS.get(text) or MEANINGS.get(plain(reason))
    if known is not None:
        return known
    limit = limit_of(reason)
    return None if limit is None else _of_limit(limit)


def limit_of(reason: str) -> Limit | None:
    """Take a reason apart that names a limit of accounting; `None` for any other."""
    match = _LIMIT.fullmatch(plain(reason))
    if match is None:
        return None
    name = match["resource"].lower()
    resource = _RESOURCES.get(name, name)
    scopes = {"PerUser": "user", "PerJob": "job", "PerNode": "node", "PerAccount": "account"}
    group = match["bound"] == "Grp"
    # A limit of an association's running jobs is of all jobs that the user has there.
    fallback = "group" if group else "user" if resource in {"jobs", "submit"} else "job"
    return Limit(
        qos=match["level"] == "QOS",
        scope=scopes.get(match["scope"] or "", fallback),
        resource=resource,
        minimum=match["bound"] == "Min",
        spent=bool(match["spent"]),
    )


def _of_limit(limit: Limit) -> Meaning:
    whose = "its QoS" if limit.qos else "its account or user"
    what, scope = _NAMES.get(limit.resource, limit.resource), _SCOPES[limit.scope]
    if limit.resource in {"jobs", "submit"}:
        scope = scope.replace("'s jobs together", "").replace("all its jobs together", "all its users")
    if limit.minimum:
        return Meaning(REFUSED, f"{whose} demands more {what} of a job than it asks for", "another --qos")
    if limit.spent:
        words = f"{whose} limits the time in {what} of {scope}, and that is used up"
        return Meaning(LIMIT, words, "wait until it is renewed, or another --account or --qos")
    words = f"{whose} limits the {what} of {scope}"
    if limit.scope in {"job", "node"}:
        way = "a shorter --time" if limit.resource == "wall" else "ask for less"
        return Meaning(REFUSED, f"{words}, and it asks for more: it never starts", f"{way}, or another --qos")
    return Meaning(LIMIT, f"{words}, and that is reached")
