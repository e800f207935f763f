"""The hooks that plugins implement; the built-in backends and checks use the same ones.

A plugin is a module or object with functions marked `@medarc_plugin.hookimpl`, named in the
entry-point group `medarc_plugin` of its distribution:

    [project.entry-points.medarc_plugin]
    mycluster = "mycluster.plugin"

A plugin that raises is named in the error and nothing is submitted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from medarc_plugin.models import Backend, JobPlan, Problem, Submission

hookspec = pluggy.HookspecMarker("medarc")


@hookspec
def medarc_register_backends() -> Iterable[Backend]:  # type: ignore[empty-body]
    """Offer backends for `--backend NAME`.

    Called once, when plugins are loaded.

    Returns:
        Objects with the attributes of `medarc_plugin.models.Backend`. Two plugins that offer the same
        name are an error that names both.
    """


@hookspec
def medarc_template_dirs() -> Iterable[Path]:  # type: ignore[empty-body]
    """Offer folders with templates that stand before the built-in ones.

    Called once before rendering. A file named `rl.sbatch.j2`, `sft.sbatch.j2` or `inference.sbatch.j2`
    replaces that script; it may `{% extends "_job.sbatch.j2" %}` and fill single blocks.

    Returns:
        Existing folders. The user's own `--template-path` comes first, then plugins in the order of
        their names, then the built-in folder.
    """


@hookspec
def medarc_preflight(plan: JobPlan) -> Iterable[Problem]:  # type: ignore[empty-body]
    """Look at a plan before anything is written, and name what is wrong with it.

    All implementations run and all problems are shown together; a fatal one refuses the run.

    Args:
        plan: The whole plan, the resolved config included, and in `plan.cluster` what the cluster said of
            itself, where it was asked.

    Returns:
        The problems found; none is the good case. One that is in the way of a submission alone has
        `submission` set: a dry run warns of it.
    """


@hookspec
def medarc_job_environment(plan: JobPlan) -> Mapping[str, str]:  # type: ignore[empty-body]
    """Set environment variables for the run.

    They are exported by the batch script in plain text, so never a secret: `--env NAME` is for those.

    Args:
        plan: The plan so far.

    Returns:
        Names and values. Two plugins with different values for one name are an error that names both;
        a user's own `--env NAME=VALUE` wins over every plugin.
    """


@hookspec
def medarc_submitted(submission: Submission, plan: JobPlan) -> None:
    """Learn that a run was accepted: notify somebody, keep an index, tag a tracker.

    Called after the record of the submission lies in the run directory. A failure here is reported as
    a warning that names the plugin; the job stays submitted.

    Args:
        submission: The job's id and where its files are.
        plan: What was submitted.
    """


HOOKS = (
    medarc_register_backends,
    medarc_job_environment,
    medarc_preflight,
    medarc_template_dirs,
    medarc_submitted,
)
"""Every hook, in the order in which a launch calls them."""
