"""What the sandbox's controller says, and the little that it is told."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medarc_plugin.process import run
from medarc_plugin.sandbox.spec import NodeStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

_ANSWER_SECONDS = 15.0
_WORKING = frozenset({"idle", "mixed", "allocated", "completing"})
_BROKEN = frozenset({"drain", "fail", "not_responding", "invalid_reg", "powered_down"})


@dataclass(frozen=True)
class Controller:
    """SLURM's commands, bound to one sandbox.

    Attributes:
        configuration: Path of slurm.conf.
        programs: Paths of programs by name; those on PATH where one is missing.
    """

    configuration: str
    programs: dict[str, str]

    def nodes(self) -> tuple[NodeStatus, ...] | None:
        """Ask for the nodes; `None` when the controller does not answer."""
        answer = self._ask("scontrol", "-o", "show", "node")
        return None if answer is None else parse_nodes(answer)

    def queue_length(self) -> int | None:
        """Count jobs that wait or run; `None` when the controller does not answer."""
        answer = self._ask("squeue", "-h", "-a", "-o", "%i")
        return None if answer is None else len(answer.splitlines())

    def resume(self, nodes: Sequence[NodeStatus]) -> None:
        """Take nodes back into service which the controller had given up."""
        names = ",".join(node.name for node in nodes)
        self._ask("scontrol", "update", f"NodeName={names}", "State=RESUME")

    def cancel_all(self, user: str) -> None:
        """Cancel a user's jobs, waiting and running."""
        self._ask("scancel", "-u", user)

    def _ask(self, program: str, *arguments: str) -> str | None:
        answer = run(
            [self.programs.get(program, program), *arguments],
            env=client_environment(self.configuration),
            timeout=_ANSWER_SECONDS,
        )
        return answer.stdout if answer.ok else None


def client_environment(configuration: str) -> dict[str, str]:
    """Give this process's environment, made to speak with a sandbox and nothing else.

    Inside a job, SLURM_* and SBATCH_* are about that job and would be taken as wishes.

    Args:
        configuration: Path of slurm.conf.
    """
    prefixes = ("SLURM_", "SBATCH_", "SALLOC_", "SRUN_", "SINFO_", "SQUEUE_", "SCANCEL_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    return kept | {"SLURM_CONF": configuration}


def parse_nodes(text: str) -> tuple[NodeStatus, ...]:
    """Read what `scontrol -o show node` printed, a node a line.

    Args:
        text: Lines of `Name=value` pairs; values may hold spaces, but none of those read here.
    """
    nodes = []
    for line in text.splitlines():
        pairs = re.findall(r"(?:^|\s)(NodeName|State|CPUTot|RealMemory|Gres)=(\S*)", line)
        # The first of a name counts: free text (Reason, OS) comes later and may look like a pair.
        values = dict(reversed(pairs))
        if "NodeName" in values:
            nodes.append(
                NodeStatus(
                    name=values["NodeName"],
                    state=values.get("State", "unknown").lower(),
                    cpus=int(values.get("CPUTot", 0)),
                    memory_mib=int(values.get("RealMemory", 0)),
                    gres=values.get("Gres", "(null)"),
                )
            )
    return tuple(nodes)


def is_ready(node: NodeStatus) -> bool:
    """Whether a node takes jobs; `*` after a state means that the node does not answer."""
    base, *flags = node.state.split("+")
    return base in _WORKING and not _BROKEN.intersection(flags)


def is_given_up(node: NodeStatus) -> bool:
    """Whether a node will not take jobs again by itself."""
    base, *flags = node.state.split("+")
    return base.rstrip("*") in {"down", "error", "fail"} or bool(_BROKEN.intersection(flags))
