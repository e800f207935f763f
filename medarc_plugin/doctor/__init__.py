"""Examines the whole chain, from this machine to the cluster and prime-rl, and says what is in the way.

Every check runs in a thread of its own and has a time limit: what hangs, a file system or a program, is
named, and keeps none of the others.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from medarc_plugin.doctor import machine, prime_rl, settings, slurm
from medarc_plugin.doctor.findings import (
    FAILED,
    OK,
    SKIPPED,
    WARNING,
    Finding,
    ToldElsewhereError,
    failed,
    of_error,
    skipped,
)
from medarc_plugin.doctor.subject import Subject
from medarc_plugin.errors import MedarcError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "CHECKS",
    "FAILED",
    "OK",
    "SKIPPED",
    "WARNING",
    "Check",
    "Examined",
    "Finding",
    "Subject",
    "examine",
]


@dataclass(frozen=True)
class Check:
    """A thing that is looked at.

    Attributes:
        group: Its heading.
        name: Its name.
        look: Looks at it.
        seconds: How long it may take.
        deep_seconds: The same with `--deep`.
    """

    group: str
    name: str
    look: Callable[[Subject], Iterator[Finding]]
    seconds: float = 10.0
    deep_seconds: float | None = None


HERE, SETTINGS, CLUSTER, PRIME_RL = "this machine", "settings", "cluster", "prime-rl"

CHECKS = (
    Check(HERE, "Python", machine.python),
    Check(HERE, "uv", machine.uv),
    Check(HERE, "medarc_plugin", machine.package),
    Check(HERE, "plugins", machine.loaded_plugins),
    Check(HERE, "commands", machine.commands),
    Check(HERE, "import hook", machine.import_hook),
    Check(HERE, "GPUs", machine.gpus),
    Check(HERE, "disk", machine.disk),
    Check(SETTINGS, "profiles", settings.profiles_in_force),
    Check(SETTINGS, "variables", settings.variables),
    Check(SETTINGS, "runs", settings.list_of_runs),
    Check(SETTINGS, "resolved configs", settings.resolved_configs),
    Check(SETTINGS, "compiled code", settings.compiled_code),
    Check(SETTINGS, "models", settings.hub_cache),
    Check(SETTINGS, "HF token", settings.hub_token),
    Check(SETTINGS, "W&B key", settings.wandb_key),
    Check(CLUSTER, "commands", slurm.commands),
    Check(CLUSTER, "controller", slurm.controller),
    Check(CLUSTER, "SLURM", slurm.version),
    Check(CLUSTER, "clock", slurm.clock),
    Check(CLUSTER, "partitions", slurm.partitions),
    Check(CLUSTER, "your partition", slurm.chosen),
    Check(CLUSTER, "accounts", slurm.accounts),
    Check(CLUSTER, "folders", settings.shared_folders),
    Check(CLUSTER, "questions", slurm.questions),
    Check(PRIME_RL, "place", prime_rl.place, 30.0),
    Check(PRIME_RL, "Python", prime_rl.interpreter, 30.0),
    Check(PRIME_RL, "packages", prime_rl.packages, 30.0),
    Check(PRIME_RL, "schema", prime_rl.schema, 120.0),
    Check(PRIME_RL, "environments", prime_rl.environments, 120.0),
    Check(PRIME_RL, "imports", prime_rl.imports, 120.0, 340.0),
)
"""All checks, in the order in which they are shown: what takes longest comes last."""


@dataclass
class Examined:
    """A check that is done, or was given up.

    Attributes:
        check: The check.
        findings: What it found.
        seconds: How long it took.
    """

    check: Check
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0


def examine(
    subject: Subject, checks: tuple[Check, ...] = CHECKS, waiting: Callable[[Check], None] | None = None
) -> Iterator[Examined]:
    """Run all checks at the same time, and yield them in their order as soon as each is done.

    Args:
        subject: What they look at.
        checks: The checks.
        waiting: Told of a check that takes a while.
    """
    began = time.monotonic()
    running = [_Running(check, subject) for check in checks]
    for one in running:
        if waiting is not None and not one.is_done(soon=A_WHILE):
            waiting(one.check)
        yield one.examined(began)


A_WHILE = 0.5
"""Seconds after which somebody who waits wants to know for what."""


class _Running:
    """A check at work.

    Args:
        check: The check.
        subject: What it looks at.
    """

    def __init__(self, check: Check, subject: Subject) -> None:
        self.check, self._subject = check, subject
        self._findings: list[Finding] = []
        self._seconds = 0.0
        # A daemon: nobody waits at the end for one that hangs.
        self._thread = threading.Thread(target=self._run, daemon=True, name=check.name)
        self._thread.start()

    def _run(self) -> None:
        began = time.monotonic()
        try:
            for finding in self.check.look(self._subject):
                self._findings.append(finding)
        except MedarcError as error:
            self._findings.append(of_error(error))
        except ToldElsewhereError as error:
            self._findings.append(skipped(str(error)))
        except Exception as error:
            # A check is to find what is wrong with this machine, not to fall over it.
            self._findings.append(failed(f"{type(error).__name__}: {error}"))
        self._seconds = time.monotonic() - began

    def is_done(self, soon: float) -> bool:
        """Whether it is, or will be within some seconds."""
        self._thread.join(soon)
        return not self._thread.is_alive()

    def examined(self, began: float) -> Examined:
        """Wait for its end, or for its time to be over."""
        check = self.check
        limit = (check.deep_seconds if self._subject.deep else None) or check.seconds
        self._thread.join(max(0.0, began + limit - time.monotonic()))
        found = list(self._findings)
        if self._thread.is_alive():
            hint = "a file system, a program or a network that hangs; the other checks may tell which"
            return Examined(check, [*found, failed(f"no answer within {limit:g} s", hint)], limit)
        return Examined(check, found, self._seconds)
