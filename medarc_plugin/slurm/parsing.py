"""Reads what SLURM's queries print, the same from 20.11 to 26.05: text in, facts out.

What cannot be read is left out, as if it had not been said. The forms that are read were seen on 20.11.4,
22.05.8, 24.11.5 and 26.05.5: `tests/captured/cluster` holds them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from medarc_plugin.options import time_seconds
from medarc_plugin.slurm.facts import (
    ANY_TYPE,
    Association,
    Defaults,
    Node,
    Partition,
    Qos,
    Reservation,
    Settings,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

NOTHING = frozenset(
    {"", "(null)", "N/A", "NONE", "None", "n/a", "UNLIMITED", "INFINITE", "infinite", "INVALID"}
)
"""How SLURM says that there is no value, or no limit."""

STATE_MARKS = {
    "*": "NOT_RESPONDING",
    "~": "POWERED_DOWN",
    "#": "POWERING_UP",
    "!": "POWER_DOWN",
    "%": "POWERING_DOWN",
    "$": "MAINTENANCE",
    "@": "REBOOT_REQUESTED",
    "^": "REBOOT_ISSUED",
    "-": "PLANNED",
}
"""What a character behind a node's state means (https://slurm.schedmd.com/sinfo.html#SECTION_NODE-STATE-CODES)."""

STATE_FLAGS = {"MAINT": "MAINTENANCE", "DRAINED": "DRAIN", "DRAINING": "DRAIN", "POWER": "POWERED_DOWN"}
"""Older or longer names of flags."""


def fields(line: str) -> dict[str, str]:
    """Split a line of `scontrol -o show`; the first of a name counts, since free text comes last.

    Args:
        line: `Name=value` pairs; the values read here hold no spaces.
    """
    found: dict[str, str] = {}
    for name, value in re.findall(r"(?:^|(?<=\s))([A-Za-z][\w/:\[\]]*)=(\S*)", line):
        found.setdefault(name, value)
    return found


def parse_settings(text: str) -> Settings:
    """Read `scontrol show config`."""
    values = dict(re.findall(r"^(\w+)\s*= ?(.*?)\s*$", text, re.MULTILINE))
    return Settings(
        name=_word(values.get("ClusterName", "")),
        version=_word(values.get("SLURM_VERSION", "")),
        enforce_part_limits=values.get("EnforcePartLimits", "NO").upper(),
        accounting=values.get("AccountingStorageType", "").endswith("slurmdbd"),
        enforced=frozenset(_list(values.get("AccountingStorageEnforce", "").lower())) - {"none"},
        private=frozenset(_list(values.get("PrivateData", ""))) - {"none"},
        # What schedules no memory: CR_Core, CR_CPU, CR_Socket, and whole nodes.
        memory_counts="MEMORY" in values.get("SelectTypeParameters", "CR_CORE_MEMORY").upper(),
        slurm_user=_word(values.get("SlurmUser", "").partition("(")[0]),
        changed_by=tuple(
            name
            for kind in ("JobSubmitPlugins", "CliFilterPlugins")
            for name in _list(values.get(kind, ""))
            if name.rpartition("/")[2] not in CHANGES_NOTHING
        ),
        defaults=_defaults(values),
    )


CHANGES_NOTHING = frozenset({"none", "logging", "require_timelimit", "throttle", "cray_aries", "syslog"})
"""SLURM's own plugins for submissions that leave partition, account and QoS alone."""


def parse_partitions(text: str) -> tuple[Partition, ...]:
    """Read `scontrol -a -o show partition`."""
    return tuple(
        _partition(values) for values in map(fields, text.splitlines()) if values.get("PartitionName")
    )


def _partition(values: Mapping[str, str]) -> Partition:
    return Partition(
        name=values["PartitionName"],
        default=values.get("Default") == "YES",
        state=values.get("State", "UP"),
        max_time=parse_time(values.get("MaxTime", "")),
        default_time=parse_time(values.get("DefaultTime", "")),
        min_nodes=_number(values.get("MinNodes", "")) or 0,
        max_nodes=_number(values.get("MaxNodes", "")),
        total_nodes=_number(values.get("TotalNodes", "")),
        max_cpus_per_node=_number(values.get("MaxCPUsPerNode", "")),
        allow_groups=_allowed(values.get("AllowGroups", "ALL")),
        allow_accounts=_allowed(values.get("AllowAccounts", "ALL")),
        deny_accounts=_list(values.get("DenyAccounts", "")),
        allow_qos=_allowed(values.get("AllowQos", "ALL")),
        deny_qos=_list(values.get("DenyQos", "")),
        qos=_word(values.get("QoS", "")),
        # 26.05 has a key of its own for what OverSubscribe said before.
        whole_nodes=values.get("OverSubscribe") == "EXCLUSIVE" or values.get("Exclusive") in {"NODE", "TOPO"},
        only_root=values.get("RootOnly") == "YES",
        needs_reservation=values.get("ReqResv") == "YES",
        hidden=values.get("Hidden") == "YES",
        defaults=_defaults(values),
    )


def _defaults(values: Mapping[str, str]) -> Defaults:
    """Read defaults and limits, which partitions and the cluster name alike."""
    per_gpu = dict(part.partition("=")[::2] for part in _list(values.get("JobDefaults", "")))
    return Defaults(
        # A default or limit of 0 is none.
        memory_per_cpu=_number(values.get("DefMemPerCPU", "")) or None,
        memory_per_node=_number(values.get("DefMemPerNode", "")) or None,
        memory_per_gpu=_number(per_gpu.get("DefMemPerGPU", "")) or None,
        cpus_per_gpu=_number(per_gpu.get("DefCpuPerGPU", "")),
        max_memory_per_cpu=_number(values.get("MaxMemPerCPU", "")) or None,
        max_memory_per_node=_number(values.get("MaxMemPerNode", "")) or None,
    )


def parse_nodes(text: str) -> tuple[Node, ...]:
    """Read `scontrol -a -d -o show node`."""
    return tuple(
        _node(values, line)
        for line, values in ((line, fields(line)) for line in text.splitlines())
        if values.get("NodeName")
    )


def _node(values: Mapping[str, str], line: str) -> Node:
    state, flags = parse_state(values.get("State", "UNKNOWN"))
    threads = _number(values.get("ThreadsPerCore", "")) or 1
    # Up to 21.08 the cores that SLURM keeps for itself are not yet taken off.
    kept = 0 if "CPUEfctv" in values else (_number(values.get("CoreSpecCount", "")) or 0) * threads
    cpus = _number(values.get("CPUEfctv", "")) or _number(values.get("CPUTot", "")) or 0
    memory = (_number(values.get("RealMemory", "")) or 0) - (_number(values.get("MemSpecLimit", "")) or 0)
    gres = parse_gres(values.get("Gres", ""))
    return Node(
        name=values["NodeName"],
        partitions=_list(values.get("Partitions", "")),
        state=state,
        flags=flags,
        cpus=cpus - kept,
        memory=memory,
        gpus=gres.get("gpu", {}),
        shards=gres.get("shard", {}),
        features=_list(values.get("AvailableFeatures", "")),
        cpus_used=_number(values.get("CPUAlloc", "")) or 0,
        memory_used=_number(values.get("AllocMem", "")) or 0,
        gpus_used=_gpus_used(values),
        reason=_reason(line),
        host=_word(values.get("NodeHostName", "")),
    )


def _gpus_used(values: Mapping[str, str]) -> dict[str, int]:
    """Say how many GPUs are given out: in detail, else what accounting is told of them."""
    used = parse_gres(values.get("GresUsed", "")).get("gpu")
    if used is not None:
        return {kind: count for kind, count in used.items() if count}
    allocated = parse_tres(values.get("AllocTRES", ""))
    typed = {
        name.partition(":")[2]: count for name, count in allocated.items() if name.startswith("gres/gpu:")
    }
    total = allocated.get("gres/gpu", 0)
    return typed or ({ANY_TYPE: total} if total else {})


def _reason(line: str) -> str | None:
    found = re.search(
        r"\sReason=(.*?)(?: \[[^\]]*@[^\]]*\])?(?:\s+(?:Comment|Extra|ReservationName)=.*)?\s*$", line
    )
    return _word(found[1]) if found else None


def parse_state(text: str) -> tuple[str, frozenset[str]]:
    """Take a node's state apart: `IDLE+DRAIN`, `DOWN$`, `UNKNOWN*`, `idle~`, `draining`.

    Returns:
        What it does, and what else is said of it, both in capitals.
    """
    base, *flags = text.upper().split("+")
    marks = re.search(r"[*~#!%$@^-]*$", base)
    found = {STATE_MARKS[mark] for mark in (marks[0] if marks else "")}
    base = base.rstrip("".join(STATE_MARKS))
    found |= {STATE_FLAGS.get(flag, flag) for flag in flags}
    if base in {"DRAINED", "DRAINING", "MAINT", "PLANNED", "RESERVED"}:
        return ("MIXED" if base == "DRAINING" else "IDLE"), frozenset(found | {STATE_FLAGS.get(base, base)})
    return base, frozenset(found)


def parse_gres(text: str) -> dict[str, dict[str, int]]:
    """Count generic resources by name and type.

    Args:
        text: `gpu:h100:8(S:0-1)`, `gpu:8`, `gpu:a100:2,gpu:v100:4`, `gpu:1g.10gb:7`, `shard:h100:32`,
            `gpu:h100:2(IDX:0-1)`, `(null)`.

    Returns:
        `{"gpu": {"h100": 8}}`; the type is `ANY_TYPE` where there is none.
    """
    found: dict[str, dict[str, int]] = {}
    # What stands in brackets, sockets or indices, holds commas of its own.
    for part in _list(re.sub(r"\([^)]*\)", "", text)):
        name, *rest = part.split(":")
        rest = [word for word in rest if word != "no_consume"]
        count = _count(rest.pop()) if rest and _count(rest[-1]) is not None else 1
        kinds = found.setdefault(name, {})
        kind = ":".join(rest) or ANY_TYPE
        kinds[kind] = kinds.get(kind, 0) + (count or 0)
    return found


def parse_tres(text: str) -> dict[str, int]:
    """Read amounts of resources.

    Args:
        text: `cpu=64,gres/gpu=8,gres/gpu:h100=4,mem=500G`.

    Returns:
        Amounts by name, `mem` in MiB. A resource without a limit is left out.
    """
    found = {}
    for part in _list(text):
        name, _, value = part.partition("=")
        amount = parse_memory(value) if name == "mem" else _count(value)
        if amount is not None:
            found[name] = amount
    return found


def parse_memory(text: str) -> int | None:
    """Read memory like `500G`, `62.50G`, `512000M` or `512000`, in MiB."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGTP]?)", text)
    if match is None:
        return None
    return int(float(match[1]) * 1024.0 ** ("KMGTP".index(match[2] or "M") - 1))


def parse_time(text: str) -> int | None:
    """Read a time limit like `7-00:00:00`, `01:00:00` or `10:00`, in seconds; `None` for none."""
    return time_seconds(text) if re.fullmatch(r"(?:\d+-)?\d+(?::\d+){0,2}", text) else None


def parse_reservations(text: str) -> tuple[Reservation, ...]:
    """Read `scontrol -o show reservation`."""
    return tuple(
        Reservation(
            name=values["ReservationName"],
            state=values.get("State", "ACTIVE"),
            start=_word(values.get("StartTime", "")),
            end=_word(values.get("EndTime", "")),
            partition=_word(values.get("PartitionName", "")),
            nodes=_word(values.get("Nodes", "")),
            users=_list(values.get("Users", "")),
            accounts=_list(values.get("Accounts", "")),
            groups=_list(values.get("Groups", "")),
            flags=_list(values.get("Flags", "")),
        )
        for values in map(fields, text.splitlines())
        if values.get("ReservationName")
    )


USER_FIELDS = (
    *("DefaultAccount", "Cluster", "Account", "Partition", "QOS", "DefaultQOS"),
    *("MaxWall", "MaxTRES", "GrpTRES", "MaxJobs", "MaxSubmitJobs"),
)
"""What `sacctmgr -n -P show user withassoc` is asked for."""

ACCOUNT_FIELDS = (
    "Cluster",
    "Account",
    "ParentName",
    "MaxWall",
    "MaxTRES",
    "GrpTRES",
    "MaxJobs",
    "MaxSubmitJobs",
)
"""What `sacctmgr -n -P show assoc where user=` is asked for: the accounts themselves."""

QOS_FIELDS = (
    *("Name", "MaxWall", "MaxTRES", "MaxTRESPU", "MinTRES", "GrpTRES"),
    *("MaxJobsPU", "MaxSubmitPU", "Flags", "Priority"),
)
"""What `sacctmgr -n -P show qos` is asked for."""


def parse_user(text: str, user: str, cluster: str | None) -> tuple[str | None, tuple[Association, ...]]:
    """Read the rows of `USER_FIELDS`.

    Args:
        text: What was printed.
        user: The user.
        cluster: The cluster, of several in one database; `None` takes all.

    Returns:
        The default account, and the user's associations.
    """
    # Each cluster of a database has a default of its own. Whom no account knows has a row without a cluster.
    rows = [row for row in _rows(text, USER_FIELDS) if _is_of(row, cluster) or not row["Cluster"]]
    mine = [row for row in rows if row["Account"]]
    default = next((row["DefaultAccount"] for row in rows if row["DefaultAccount"]), None)
    return default, tuple(_association(row, user) for row in mine)


def parse_accounts(text: str, cluster: str | None) -> tuple[Association, ...]:
    """Read the rows of `ACCOUNT_FIELDS`."""
    return tuple(_association(row, None) for row in _rows(text, ACCOUNT_FIELDS) if _is_of(row, cluster))


def _association(row: Mapping[str, str], user: str | None) -> Association:
    return Association(
        account=row["Account"],
        user=user,
        partition=_word(row.get("Partition", "")),
        parent=_word(row.get("ParentName", "")),
        qos=_list(row.get("QOS", "")),
        default_qos=_word(row.get("DefaultQOS", "")),
        max_wall=parse_time(row["MaxWall"]),
        max_tres=parse_tres(row["MaxTRES"]),
        group_tres=parse_tres(row["GrpTRES"]),
        max_jobs=_number(row["MaxJobs"]),
        max_submit=_number(row["MaxSubmitJobs"]),
    )


def parse_qos(text: str) -> tuple[Qos, ...]:
    """Read the rows of `QOS_FIELDS`."""
    return tuple(
        Qos(
            name=row["Name"],
            max_wall=parse_time(row["MaxWall"]),
            max_tres=parse_tres(row["MaxTRES"]),
            max_tres_per_user=parse_tres(row["MaxTRESPU"]),
            min_tres=parse_tres(row["MinTRES"]),
            group_tres=parse_tres(row["GrpTRES"]),
            max_jobs_per_user=_number(row["MaxJobsPU"]),
            max_submit_per_user=_number(row["MaxSubmitPU"]),
            flags=frozenset(_list(row["Flags"])),
            priority=_number(row["Priority"]) or 0,
        )
        for row in _rows(text, QOS_FIELDS)
    )


def _rows(text: str, names: Sequence[str]) -> Iterator[dict[str, str]]:
    """Split what `-n -P` prints; a line with another number of columns is none of its rows."""
    for line in text.splitlines():
        columns = line.split("|")
        if len(columns) == len(names):
            yield dict(zip(names, columns, strict=True))


def _is_of(row: Mapping[str, str], cluster: str | None) -> bool:
    return cluster is None or row["Cluster"].lower() == cluster.lower()


def _word(text: str) -> str | None:
    return None if text in NOTHING else text


def _list(text: str) -> tuple[str, ...]:
    return () if text in NOTHING else tuple(part for part in text.split(",") if part)


def _allowed(text: str) -> tuple[str, ...] | None:
    return None if text.upper() == "ALL" else _list(text)


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _count(text: str) -> int | None:
    """Read a count, which SLURM may print as `4K`; with a `.` it is the type of a MIG slice."""
    match = re.fullmatch(r"(\d+)([KMG]?)", text)
    return int(match[1]) * 1024 ** ("KMG".index(match[2]) + 1 if match[2] else 0) if match else None
