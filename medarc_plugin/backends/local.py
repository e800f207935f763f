"""The local backend: the same run directory and job code, on this machine, in the foreground."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from medarc_plugin import hookimpl
from medarc_plugin.backends import planning
from medarc_plugin.errors import SlurmError
from medarc_plugin.models import (
    Allocation,
    JobPlan,
    JobState,
    Request,
    Resolved,
    Submission,
    TextFile,
)
from medarc_plugin.process import run, run_attached

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from medarc_plugin.options import SlurmOptions


class LocalBackend:
    """Runs prime-rl here, on the GPUs that are visible."""

    name = "local"
    foreground = True

    def plan(self, resolved: Resolved, options: SlurmOptions, request: Request) -> JobPlan:
        """Plan without an allocation: options that only SLURM understands have no effect."""
        allocation = Allocation(
            gpus=resolved.gpus.allocated,
            gpu_type=None,
            cpus=0,
            memory=None,
            time=None,
            partition=None,
            account=None,
            qos=None,
        )
        return planning.new_plan(self.name, resolved, options, request, allocation, planning.new_token())

    def render(self, plan: JobPlan, template_dirs: tuple[Path, ...]) -> tuple[TextFile, ...]:
        """Render config, plan and job code; there is no script."""
        del template_dirs
        return planning.run_file_texts(plan)

    def command(self, plan: JobPlan) -> tuple[str, ...]:
        """The job code with its plan, in the environment that a script would export."""
        values = {**visible_gpus(plan), **plan.launch.environment}
        prefix = ["env", *(f"{name}={value}" for name, value in values.items())] if values else []
        return (*prefix, *planning.job_command(plan))

    def submit(self, plan: JobPlan, secrets: Mapping[str, str]) -> Submission:
        """Run to the end and report the exit code."""
        started = datetime.now(UTC).isoformat(timespec="seconds")
        code = run_attached(
            self.command(plan),
            env={**os.environ, **secrets},
            cwd=plan.launch.working_directory,
        )
        return Submission(
            job_id=f"local-{os.getpid()}",
            cluster=None,
            script=plan.files.plan,
            log=plan.run_dir / "logs" / "latest",
            submitted_at=started,
            token=plan.token,
            backend=self.name,
            exit_code=code,
        )

    def query(self, submission: Submission) -> JobState:
        """A run in the foreground is over when there is a record of it."""
        if submission.exit_code is None:
            return JobState("GONE")
        code = submission.exit_code
        return JobState("COMPLETED" if code == 0 else "FAILED", exit_code=f"{code}:0")

    def cancel(self, submission: Submission) -> None:
        """Say that Ctrl-C does this."""
        raise SlurmError(
            f"run {submission.job_id} is in the foreground of its terminal",
            hint="press Ctrl-C there",
        )


def visible_gpus(plan: JobPlan) -> dict[str, str]:
    """Take as many of the visible GPUs as the run wants, the first ones.

    Without CUDA_VISIBLE_DEVICES these are the GPUs that nvidia-smi lists. Where there are too few, the
    variable is left as it is, and the job code says what is missing.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        listed = run(["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], timeout=30)
        ids = listed.stdout.split() if listed.ok else []
    else:
        ids = [item.strip() for item in given.split(",") if item.strip()]
    wanted = plan.allocation.gpus
    return {"CUDA_VISIBLE_DEVICES": ",".join(ids[:wanted])} if len(ids) >= wanted else {}


@hookimpl
def medarc_register_backends() -> Iterable[LocalBackend]:
    """Offer `--backend local`."""
    return [LocalBackend()]
