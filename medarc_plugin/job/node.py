"""What this node gave to the job: read once, before anything is checked."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .allocation import SLICE, Device, parse_devices, visible_tokens, with_slices
from .child import ask

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .child import Answer

NVIDIA_SMI_SECONDS = 20.0
NVIDIA_SMI_ARGUMENTS = ("--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader")

# A cgroup's file says "max", or a number near 2**63, where there is no limit.
NO_LIMIT = 2**60


@dataclass(frozen=True)
class Driver:
    """What `nvidia-smi` said.

    Attributes:
        devices: The GPUs that it lists; `None` when it is missing or failed.
        problem: Why it lists none.
    """

    devices: tuple[Device, ...] | None
    problem: str = ""


@dataclass(frozen=True)
class Node:
    """The facts of this allocation.

    Attributes:
        host: Name of the node.
        job_id: The job's id; empty outside SLURM.
        restart_count: How often SLURM has restarted this job.
        variables: The environment as the job found it.
        affinity: CPUs that this process may run on.
        cpus: CPUs that SLURM says are the job's; `None` where it says nothing.
        memory_mib: Memory that the job may use, in MiB; `None` where nothing limits it.
        driver: What `nvidia-smi` said.
    """

    host: str
    job_id: str
    restart_count: int
    variables: Mapping[str, str]
    affinity: int
    cpus: int | None
    memory_mib: int | None
    driver: Driver


def look_around(variables: Mapping[str, str], meanwhile: Callable[[], object] | None = None) -> Node:
    """Collect the facts.

    Args:
        variables: The environment as the job found it.
        meanwhile: Called every second until the driver answers.
    """
    return Node(
        host=socket.gethostname(),
        job_id=variables.get("SLURM_JOB_ID", ""),
        restart_count=_number(variables, "SLURM_RESTART_COUNT") or 0,
        variables=variables,
        affinity=len(os.sched_getaffinity(0)),
        cpus=_number(variables, "SLURM_CPUS_ON_NODE") or _number(variables, "SLURM_CPUS_PER_TASK"),
        memory_mib=_memory(variables),
        driver=_ask_driver(variables, meanwhile),
    )


def _number(variables: Mapping[str, str], name: str) -> int | None:
    text = variables.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else None


def _memory(variables: Mapping[str, str]) -> int | None:
    # 0 stands for all of the node's memory.
    granted = _number(variables, "SLURM_MEM_PER_NODE")
    if granted is None:
        per_cpu = _number(variables, "SLURM_MEM_PER_CPU")
        granted = (per_cpu or 0) * (_number(variables, "SLURM_CPUS_ON_NODE") or 0)
    limits = [limit for limit in (granted, _cgroup_memory()) if limit]
    return min(limits, default=None)


def _cgroup_memory() -> int | None:
    """Find the tightest memory limit, in MiB, of the cgroups that this process is in."""
    limits = []
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, name = Path("/sys/fs/cgroup"), "memory.max"
        elif "memory" in controllers.split(","):
            root, name = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
        else:
            continue
        folder = root / path.lstrip("/")
        for group in (folder, *folder.parents):
            text = _text(group / name).strip()
            if text.isdigit() and int(text) < NO_LIMIT:
                limits.append(int(text) // 2**20)
            if group == root:
                break
    return min(limits, default=None)


def _text(path: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        return path.read_text(encoding="utf-8")
    return ""


def _ask_driver(variables: Mapping[str, str], meanwhile: Callable[[], object] | None) -> Driver:
    def answer_to(*command: str) -> Answer:
        return ask(command, variables, Path("/"), NVIDIA_SMI_SECONDS, meanwhile=meanwhile)

    program = shutil.which("nvidia-smi", path=variables.get("PATH", os.defpath))
    if program is None:
        return Driver(None, "no NVIDIA driver on this node: nvidia-smi was not found")
    try:
        answer = answer_to(program, *NVIDIA_SMI_ARGUMENTS)
        if answer.code is None:
            return Driver(None, f"nvidia-smi did not answer within {NVIDIA_SMI_SECONDS:.0f} s")
        if answer.code != 0:
            return Driver(None, f"nvidia-smi failed: {_first_line(answer.output)}")
        devices = parse_devices(answer.output)
        if any(token.startswith(SLICE) for token in visible_tokens(variables)):
            listed = answer_to(program, "-L")
            devices = with_slices(devices, listed.output if listed.code == 0 else "")
        return Driver(devices)
    except (OSError, ValueError) as error:
        return Driver(None, f"nvidia-smi cannot be used: {error}")


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "it said nothing")
