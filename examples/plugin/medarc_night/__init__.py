"""An example plugin: one implementation of each hook, each as short as it can be."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from medarc_plugin import hookimpl
from medarc_plugin.backends.slurm import SlurmBackend
from medarc_plugin.models import Problem

if TYPE_CHECKING:
    from medarc_plugin.models import JobPlan, Request, Resolved, Submission
    from medarc_plugin.options import SlurmOptions


class NightBackend(SlurmBackend):
    """SLURM, but not before ten in the evening, unless `--begin` says otherwise."""

    name = "night"

    def plan(self, resolved: Resolved, options: SlurmOptions, request: Request) -> JobPlan:
        """Plan as for SLURM, with a begin time."""
        if options.begin is None:
            options = options.model_copy(update={"begin": "22:00"})
        return replace(super().plan(resolved, options, request), backend=self.name)


@hookimpl
def medarc_register_backends() -> list[NightBackend]:
    """Offer `--backend night`."""
    return [NightBackend()]


@hookimpl
def medarc_template_dirs() -> list[Path]:
    """Offer our `rl.sbatch.j2`."""
    return [Path(__file__).parent / "templates"]


@hookimpl
def medarc_preflight(plan: JobPlan) -> list[Problem]:
    """Warn about run directories in the home directory, which is small on most clusters."""
    if plan.run_dir.is_relative_to(Path.home()):
        return [
            Problem(
                "home directory",
                f"{plan.run_dir} lies in your home directory, where checkpoints soon fill the quota",
                hint="choose an --output-dir on the scratch file system",
                fatal=False,
            )
        ]
    return []


@hookimpl
def medarc_job_environment(plan: JobPlan) -> dict[str, str]:
    """Make NCCL say what goes wrong, where there is more than one GPU."""
    return {"NCCL_DEBUG": "WARN"} if plan.allocation.gpus > 1 else {}


@hookimpl
def medarc_submitted(submission: Submission, plan: JobPlan) -> None:
    """Keep a list of tonight's runs."""
    path = os.environ.get("MEDARC_NIGHT_LOG")
    if path:
        with Path(path).open("a", encoding="utf-8") as log:
            log.write(f"{submission.job_id} {plan.run_dir}\n")
