"""Plans without a command line, for tests of what comes after one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from medarc_plugin.backends.slurm import SlurmBackend
from medarc_plugin.models import GpuNeeds, Host, JobPlan, Request, Resolved
from medarc_plugin.options import SlurmOptions


def make_resolved(run_dir: Path, **changes: Any) -> Resolved:
    host = Host(Path("/opt/prime-rl/.venv/bin/python"), Path("/opt/prime-rl"), "--prime-rl-dir")
    resolved = Resolved(
        entrypoint="rl",
        run_dir=run_dir,
        gpus=GpuNeeds(1, 1),
        gpus_per_node=8,
        model="m",
        environments=("reverse-text",),
        max_steps=20,
        checkpoint_interval=None,
        wandb=False,
        memory_share=0.9,
        clean=False,
        resume=False,
        dry_run=False,
        document={"max_steps": 20},
        shape="main",
        checked=True,
        warnings=(),
        host=host,
    )
    return replace(resolved, **changes)


def make_plan(run_dir: Path, options: dict[str, Any] | None = None, **changes: Any) -> JobPlan:
    resolved = make_resolved(run_dir, **changes)
    request = Request(resolved.entrypoint, "slurm", ())
    return SlurmBackend().plan(resolved, SlurmOptions.model_validate(options or {}), request)
