"""The variables that the options stand for, set through the hook that is there for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medarc_plugin import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from medarc_plugin.models import JobPlan


@hookimpl
def medarc_job_environment(plan: JobPlan) -> Mapping[str, str]:
    """Export what `--hf-cache-dir` and `--hf-hub-offline` mean to huggingface_hub.

    Both names are documented at
    https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables.
    """
    options = plan.options
    found: dict[str, str] = {}
    if options.hf_cache_dir is not None:
        found["HF_HOME"] = str(options.hf_cache_dir.absolute())
    if options.hf_hub_offline:
        found["HF_HUB_OFFLINE"] = "1"
    return found
