"""The text of SLURM's configuration files: decided values in, text out, nothing read or written.

What each unusual line is for stands beside it; the rest is what any small cluster has.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from medarc_plugin.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from medarc_plugin.sandbox.gpus import Gpu
    from medarc_plugin.sandbox.spec import SandboxSpec

CLUSTER_NAME = "sandbox"

# A Unix socket's address holds 108 bytes with its final NUL (unix(7)).
SOCKET_PATH_BYTES = 107
_LARGEST_STEP = "99999999.4294967291"


@dataclass(frozen=True)
class Place:
    """Where the daemons find everything.

    Attributes:
        root: A short path of the sandbox's folder, without spaces.
        munge_socket: Path of munged's socket.
        user: Name of the user who runs the daemons.
        controller_port: Port of slurmctld.
        node_ports: Port of each node's slurmd, in the order of nodes.
        loopback_only: Whether SLURM can be told to listen on 127.0.0.1 alone.
    """

    root: str
    munge_socket: str
    user: str
    controller_port: int
    node_ports: tuple[int, ...]
    loopback_only: bool

    @property
    def configuration(self) -> str:
        """Path of slurm.conf."""
        return f"{self.root}/slurm.conf"


def render_slurm_conf(spec: SandboxSpec, place: Place, gpus: Sequence[Gpu]) -> str:
    """Write slurm.conf.

    Args:
        spec: The nodes and partitions.
        place: Paths, ports and the user.
        gpus: Every GPU of every node.

    Returns:
        The whole file.

    Raises:
        SandboxError: A path is too long for a socket.
    """
    root = place.root
    _check_socket_paths(spec, place)
    lines = [
        f"ClusterName={CLUSTER_NAME}",
        "SlurmctldHost=localhost(127.0.0.1)",
        f"SlurmctldPort={place.controller_port}",
        f"SlurmUser={place.user}",
        f"SlurmdUser={place.user}",
        "AuthType=auth/munge",
        # A requeued job waits for cred_expire to pass: 6 s with this value, 120 s by default.
        f"AuthInfo=socket={place.munge_socket},cred_expire=5",
        "CredType=cred/munge",
        # These two bind the address of the host's own name, whatever the lines above and the nodes
        # say, so they are of use only where that is 127.0.0.1.
        *(
            ["CommunicationParameters=NoCtldInAddrAny,NoInAddrAny"]
            if place.loopback_only
            else ["# The host's name is not 127.0.0.1: the daemons listen everywhere, behind munge."]
        ),
        f"StateSaveLocation={root}/state",
        f"SlurmdSpoolDir={root}/spool/%n",
        f"SlurmctldPidFile={root}/run/slurmctld.pid",
        f"SlurmdPidFile={root}/run/slurmd-%n.pid",
        f"SlurmctldLogFile={root}/log/slurmctld.log",
        f"SlurmdLogFile={root}/log/slurmd-%n.log",
        "SlurmctldDebug=verbose",
        "SlurmdDebug=verbose",
        "MailProg=/bin/true",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "SwitchType=switch/none",
        "MpiDefault=none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core_Memory",
        f"DefMemPerCPU={max(1, spec.memory_mib // spec.cpus)}",
        "GresTypes=gpu",
        "ReturnToService=2",
        # Lets a node claim more CPUs and memory than this machine has.
        "SlurmdParameters=config_overrides",
        "JobCompType=jobcomp/filetxt",
        f"JobCompLoc={root}/log/jobs.txt",
        "MinJobAge=300",
        "KillWait=30",
        "SchedulerType=sched/backfill",
        # Without batch_sched_delay=0 a job on an idle node waits seconds for its start.
        "SchedulerParameters=sched_min_interval=0,sched_interval=1,bf_interval=1,batch_sched_delay=0",
        *_node_lines(spec, place, gpus),
    ]
    if spec.partition is not None:
        lines.append(
            f"PartitionName={spec.partition} Nodes=ALL Default=YES "
            "DefaultTime=1-00:00:00 MaxTime=7-00:00:00 State=UP"
        )
    return _text([*_not_overridden(lines, spec.extra_lines), *spec.extra_lines])


def render_gres_conf(place: Place, gpus: Sequence[Gpu]) -> str:
    """Write gres.conf, which names a device file for each GPU.

    SLURM insists on a device, and on a different name for each: every GPU gets a link of its own,
    to its device or, for a stand-in, to /dev/null. Regular files give an empty CUDA_VISIBLE_DEVICES.

    Args:
        place: Paths.
        gpus: Every GPU of every node.

    Returns:
        The whole file; empty without GPUs.
    """
    return _text(
        f"NodeName={gpu.node} Name=gpu Type={gpu.type} File={place.root}/{device_link(gpu)}" for gpu in gpus
    )


def render_cgroup_conf(version: tuple[int, int]) -> str | None:
    """Write cgroup.conf, which slurmd loads although nothing here uses cgroups.

    Detecting the cgroup version fails in containers. From 24.05 it can be switched off; before
    that, `cgroup/v1` loads anywhere; before 21.08 the key is an error.

    Args:
        version: SLURM's version, `(22, 5)`.

    Returns:
        The whole file; `None` where there must be none.
    """
    if version >= (24, 5):
        return "CgroupPlugin=disabled\n"
    if version >= (21, 8):
        return "CgroupPlugin=cgroup/v1\n"
    return None


def device_link(gpu: Gpu) -> str:
    """Give a GPU's device file in the sandbox, relative to its folder."""
    return f"gpu/{gpu.node}/gpu{gpu.index}"


def _node_lines(spec: SandboxSpec, place: Place, gpus: Sequence[Gpu]) -> list[str]:
    return [
        f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} "
        f"CPUs={spec.cpus} Boards=1 SocketsPerBoard=1 CoresPerSocket={spec.cpus} ThreadsPerCore=1 "
        f"RealMemory={spec.memory_mib}{_gres([gpu for gpu in gpus if gpu.node == name])}"
        for name, port in zip(spec.node_names, place.node_ports, strict=True)
    ]


def _gres(gpus: Sequence[Gpu]) -> str:
    if not gpus:
        return ""
    kinds = groupby(sorted(gpu.type for gpu in gpus))
    counts = ",".join(f"gpu:{kind}:{len(list(group))}" for kind, group in kinds)
    features = ",".join(dict.fromkeys(gpu.type for gpu in gpus))
    return f" Gres={counts} Feature={features}"


def _not_overridden(lines: Sequence[str], extra: Sequence[str]) -> list[str]:
    """Leave out what is set anew: SLURM takes the last, with a complaint in every command."""
    taken = {_setting(line) for line in extra} - {"nodename", "partitionname"}
    return [line for line in lines if _setting(line) not in taken]


def _setting(line: str) -> str:
    return line.partition("=")[0].strip().lower()


def _check_socket_paths(spec: SandboxSpec, place: Place) -> None:
    longest = max(spec.node_names, key=len)
    sockets = (
        place.munge_socket,
        f"{place.root}/spool/{longest}/{longest}_{_LARGEST_STEP}",
    )
    for path in sockets:
        if (length := len(path.encode())) > SOCKET_PATH_BYTES:
            raise SandboxError(
                f"the path of a socket would have {length} bytes, and {SOCKET_PATH_BYTES} is the "
                f"most: {path}",
                hint="this should not happen with the short path under /tmp; check /tmp",
            )


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
