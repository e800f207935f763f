"""What a sandbox is asked to be, and what it was found to be."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from medarc_plugin.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Mapping

GpuKind = Literal["auto", "standin"]

MAX_NODES = 32
_GPU_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class SandboxSpec:
    """The machine that the sandbox pretends to be.

    SLURM believes these numbers whatever the real machine has, so that a job which asks for eight
    CPUs a GPU starts on a laptop too.

    Attributes:
        nodes: How many nodes; each is a slurmd of its own on this machine.
        cpus: CPUs of each node.
        memory_mib: Memory of each node, in MiB.
        gpus: GPUs of each node; `None` is all real ones when there are some, else eight stand-ins.
            Real ones need a single node.
        gpu_type: The type in `--gres=gpu:TYPE:N`; `None` is the real GPUs' own, else `h100`.
        gpu_kind: `auto` takes real GPUs when there are some; `standin` never does.
        partition: Name of the default partition, which holds every node; `None` for no such
            partition, when `extra_lines` brings its own.
        extra_lines: Further lines of slurm.conf, as they are: partitions, preemption, limits. A
            setting given here wins over the sandbox's own.
    """

    nodes: int = 1
    cpus: int = 64
    memory_mib: int = 512_000
    gpus: int | None = None
    gpu_type: str | None = None
    gpu_kind: GpuKind = "auto"
    partition: str | None = "debug"
    extra_lines: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what SLURM could not run.

        Raises:
            SandboxError: A number or a name is out of range.
        """
        _require(1 <= self.nodes <= MAX_NODES, f"{self.nodes} nodes", f"between 1 and {MAX_NODES}")
        _require(self.cpus >= 1, f"{self.cpus} CPUs", "at least 1")
        _require(self.memory_mib >= self.cpus, f"{self.memory_mib} MiB", "at least 1 MiB a CPU")
        _require(self.gpus is None or self.gpus >= 0, f"{self.gpus} GPUs", "0 or more")
        _require(
            self.gpu_type is None or _GPU_TYPE.fullmatch(self.gpu_type) is not None,
            f"the GPU type {self.gpu_type!r}",
            "letters, digits, `_`, `.` and `-`",
        )
        _require(
            self.partition is None or _GPU_TYPE.fullmatch(self.partition) is not None,
            f"the partition {self.partition!r}",
            "letters, digits, `_`, `.` and `-`",
        )

    @property
    def node_names(self) -> tuple[str, ...]:
        """Names of the nodes: node1, node2 and so on."""
        return tuple(f"node{number}" for number in range(1, self.nodes + 1))

    def to_dict(self) -> dict[str, Any]:
        """Give the fields as JSON can hold them."""
        return asdict(self) | {"extra_lines": list(self.extra_lines)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SandboxSpec:
        """Read what `to_dict` gave; fields that are not known here are left out.

        Raises:
            TypeError: A value has a type that no spec has.
        """
        known = {field.name for field in fields(cls)}
        chosen = {name: value for name, value in values.items() if name in known}
        return cls(**chosen | {"extra_lines": tuple(chosen.get("extra_lines", ()))})


@dataclass(frozen=True)
class DaemonStatus:
    """One daemon of the sandbox.

    Attributes:
        name: `munged`, `slurmctld` or `slurmd-NODE`.
        pid: Its process id; `None` when it does not run.
    """

    name: str
    pid: int | None

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.pid is not None


@dataclass(frozen=True)
class NodeStatus:
    """One node as the controller sees it.

    Attributes:
        name: The node's name.
        state: In SLURM's long form and lower case, with its suffixes: `idle`, `mixed`, `down*`.
        cpus: CPUs.
        memory_mib: Memory in MiB.
        gres: Generic resources as sinfo prints them: `gpu:h100:8`, `(null)` for none.
    """

    name: str
    state: str
    cpus: int
    memory_mib: int
    gres: str


@dataclass(frozen=True)
class SandboxStatus:
    """What there is of a sandbox right now.

    Attributes:
        state: `up` when every daemon runs and the controller answers, `down` when none runs, else
            `partly`.
        directory: The sandbox's folder.
        daemons: Every daemon that belongs to it, running or not; empty without a sandbox.
        nodes: The nodes; empty when the controller does not answer.
        gpus: GPUs of each node.
        gpu_type: Their type; several are joined by a comma.
        real_gpus: Whether they are this machine's own GPUs; stand-ins are only counted.
        queue_length: Jobs that wait or run; `None` when the controller does not answer.
        slurm_version: SLURM's version, `22.05`; empty without a sandbox.
        started: Names of the daemons that this call to `up` started.
    """

    state: Literal["up", "partly", "down"]
    directory: str
    daemons: tuple[DaemonStatus, ...] = ()
    nodes: tuple[NodeStatus, ...] = ()
    gpus: int = 0
    gpu_type: str = ""
    real_gpus: bool = False
    queue_length: int | None = None
    slurm_version: str = ""
    started: tuple[str, ...] = ()


def _require(holds: bool, given: str, expected: str) -> None:
    if not holds:
        raise SandboxError(f"a sandbox with {given} cannot be", hint=f"expected {expected}")
