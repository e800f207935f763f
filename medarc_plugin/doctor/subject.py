"""What is examined: this user's settings, prime-rl and cluster, each looked up when a check asks for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from medarc_plugin import launch
from medarc_plugin.doctor.findings import Once, ToldElsewhereError
from medarc_plugin.host import diagnosis, resolve
from medarc_plugin.models import ENTRYPOINTS, Request
from medarc_plugin.slurm import cluster, gateway
from medarc_plugin.slurm.gateway import HERE

if TYPE_CHECKING:
    from medarc_plugin.errors import MedarcError
    from medarc_plugin.models import Entrypoint, Host, Resolved
    from medarc_plugin.process import Completed
    from medarc_plugin.profiles import Settled
    from medarc_plugin.slurm.facts import ClusterFacts

SMALLEST = Path(resolve.__file__).with_name("smallest")
"""Configs that say as little as prime-rl allows."""

RESOLVE_SECONDS = 60.0
"""For prime-rl to import its configs: some ten seconds, and more from a cold network file system."""

SLURM_SECONDS = 6.0
"""For each question to SLURM. A controller that is down is given up on after 9 s by SLURM's commands."""


class Subject:
    """What is examined.

    Args:
        profile: The profile to take options from.
        prime_rl_dir: prime-rl's checkout, where one was named.
        config: A run's config, whose environments are looked for.
        deep: Whether checks may take their time: nothing from caches, and everything imported.

    Attributes:
        settled: The options that hold.
        host: prime-rl; `None` where there is none.
        version: That of prime-rl's Python; `None` when it does not say.
        facts: What is known of the cluster.
        settings: SLURM's own settings as it prints them.
        answers: What prime-rl makes of a config, by entry point: resolved, or why not.
    """

    def __init__(
        self,
        profile: str | None = None,
        prime_rl_dir: Path | None = None,
        config: Path | None = None,
        *,
        deep: bool = False,
    ) -> None:
        self.profile, self.config, self.deep = profile, config, deep
        self._options = {} if prime_rl_dir is None else {"prime_rl_dir": str(prime_rl_dir)}
        self.settled: Once[Settled] = Once(self._settled, "profiles")
        self.host: Once[Host | None] = Once(self._host, "place")
        self.version: Once[str | None] = Once(self._version, "Python")
        self.facts: Once[ClusterFacts] = Once(lambda: cluster.ask(seconds=SLURM_SECONDS), "questions")
        self.settings: Once[Completed] = Once(lambda: ask_slurm("scontrol", "show", "config"), "controller")
        self.answers: Once[dict[Entrypoint, Resolved | MedarcError]] = Once(self._answers, "schema")

    def _settled(self) -> Settled:
        given = ("@", str(self.config)) if self.config else ()
        return launch.settle_values(given, self._options, profile=self.profile)

    def _host(self) -> Host | None:
        return launch.find_host(Request("rl", "slurm", (), dry_run=True), self.settled())

    def _version(self) -> str | None:
        host = self.host()
        return None if host is None else diagnosis.python_version(host)

    def _answers(self) -> dict[Entrypoint, Resolved | MedarcError]:
        """Ask prime-rl about all configs at once: its interpreter starts once, if at all."""
        host, settled = self.host(), self.settled()
        if host is None:
            return {}
        if self.version() is None:
            raise ToldElsewhereError("Python")  # what does not start is not waited for once more
        # Of a config that was named nobody says which of the commands it is for.
        configs: dict[Entrypoint, Path] = (
            dict.fromkeys(ENTRYPOINTS, self.config)
            if self.config
            else {"rl": SMALLEST / "rl.toml", "sft": SMALLEST / "sft.toml"}
        )
        questions = [
            resolve.Question(_request(name, path, cache=not self.deep), settled.options, host)
            for name, path in configs.items()
        ]
        answers = resolve.resolve_all(questions, seconds=RESOLVE_SECONDS)
        return dict(zip(configs, answers, strict=True))


def _request(entrypoint: Entrypoint, config: Path, *, cache: bool) -> Request:
    return Request(
        entrypoint, "slurm", ("@", str(config)), run_dir=Path("runs/doctor"), dry_run=True, cache=cache
    )


def ask_slurm(*argv: str) -> Completed:
    """Run one of SLURM's commands, as a submission would."""
    return gateway.ask(argv, HERE.environment, SLURM_SECONDS)


def program(name: str) -> str | None:
    """Where a program is on PATH."""
    import shutil

    return shutil.which(name, path=os.environ.get("PATH", os.defpath))
