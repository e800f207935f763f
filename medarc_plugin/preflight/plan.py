"""Whether a plan holds together, and this machine can write it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from medarc_plugin.models import Problem
from medarc_plugin.options import megabytes, time_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from medarc_plugin.models import JobPlan


def run_directory_can_be_written(plan: JobPlan) -> Iterator[Problem]:
    """The run directory, or the nearest folder above it, must take files."""
    place = next(path for path in (plan.run_dir, *plan.run_dir.parents) if os.path.lexists(path))
    if not place.is_dir():
        yield Problem(
            "run directory",
            f"{plan.run_dir} cannot be made: {place} is not a folder",
            "choose another --output-dir",
        )
    elif not os.access(place, os.W_OK | os.X_OK):
        yield Problem(
            "run directory",
            f"{plan.run_dir} cannot be written: no permission in {place}",
            "choose an --output-dir on a file system that you and the compute nodes can write",
        )


def working_directory_exists(plan: JobPlan) -> Iterator[Problem]:
    """The job starts there; SLURM would quietly run in /tmp instead."""
    folder = plan.launch.working_directory
    if not folder.is_dir():
        yield Problem("project directory", f"{folder} is not a folder", "name another with --project-dir")


def template_exists(plan: JobPlan) -> Iterator[Problem]:
    """A template of the user's own must be there."""
    if plan.template_path is not None and not plan.template_path.is_file():
        yield Problem("template", f"{plan.template_path} is not a file", "check --template-path")


def passed_variables_are_set(plan: JobPlan) -> Iterator[Problem]:
    """What `--env NAME` promises to pass on must be there."""
    for name in plan.options.env:
        if "=" not in name and name not in os.environ:
            way = "or leave the option out"
            if not _is_typed(plan, name):
                way = "which the recorded command or a profile names; or give it a value: "
                way += f"--env {name}=VALUE"
            yield Problem(
                "environment",
                f"--env {name}: the variable is not set here, so it cannot be passed on",
                f"export {name}, {way}",
            )


def _is_typed(plan: JobPlan, name: str) -> bool:
    """Whether the option stands in what was typed; a plan of somebody else's making does not say."""
    words = plan.provenance.get("typed") or ()
    return not words or any(word in {name, f"--env={name}", f"--slurm.env={name}"} for word in words)


def sharing_is_possible(plan: JobPlan) -> Iterator[Problem]:
    """Trainer and vLLM on one GPU need room beside each other."""
    share, needs = plan.resolved.memory_share, plan.resolved.memory
    if not plan.resolved.gpus.shared:
        return
    if needs is not None and needs.refusal:
        yield Problem("GPU memory", *needs.refusal)
    elif needs is not None and needs.unknown and not needs.fixed:
        yield Problem(
            "GPU memory",
            f"the model's size is unknown ({needs.unknown}): vLLM gets a share of {share:g}, and nobody has "
            "looked whether the trainer fits beside it",
            "put the model into the Hugging Face cache (--hf-cache-dir) or name a local folder, or set "
            f"{needs.share_path}",
            fatal=False,
        )
    elif needs is not None and needs.fixed and needs.gpu_mib and needs.inference_bytes:
        given = float(share or 0) * needs.gpu_mib * 2**20
        if given < needs.inference_bytes:
            yield Problem(
                "GPU memory",
                f"vLLM may not start: its share of {share:g} is {given / 2**30:.1f} GiB, and it needs about "
                f"{needs.inference_bytes / 2**30:.1f}",
                f"raise {needs.share_path} or leave it out, or lower vLLM's max_model_len",
                fatal=False,
            )
    elif share is not None and float(share) > _MOST_SHARED and (needs is None or needs.fixed):
        yield Problem(
            "GPU memory",
            f"vLLM takes {float(share):.0%} of the GPU that it shares, which leaves the trainer little",
            f"lower {needs.share_path if needs else 'gpu_memory_utilization'}, or leave it out",
            fatal=False,
        )


def warning_comes_behind_the_start(plan: JobPlan) -> Iterator[Problem]:
    """A warning that is as long as the job would end it at its start."""
    limit = _limit(plan)
    if limit is not None and "signal_time" in plan.options.model_fields_set:
        seconds = plan.options.signal_time
        if seconds and plan.options.requeue and seconds + EARLY_SECONDS >= limit:
            yield Problem(
                "warning",
                f"--signal-time {seconds}: SLURM may send the warning up to {EARLY_SECONDS} s earlier, which "
                f"is the start of a job of {limit} s",
                "ask for less, or for none with --signal-time 0",
            )


def checkpoints_come_in_time(plan: JobPlan) -> Iterator[Problem]:
    """A run that meets its time limit goes on from its newest checkpoint, if it has one by then."""
    resolved = plan.resolved
    if resolved.entrypoint == "inference" or resolved.checkpoint_interval is not None:
        return
    if not resolved.saves:
        yield Problem(
            "checkpoints",
            "the config has no [ckpt], so that nothing of the run is kept: no checkpoint and no weights",
            "an empty [ckpt] saves at the end, --ckpt-interval STEPS now and then too",
            fatal=False,
        )
    elif _limit(plan) is not None and resolved.max_steps != 1:
        again = ", and it starts again from the beginning" if plan.options.requeue else ""
        yield Problem(
            "checkpoints",
            "no checkpoint interval is set: if the time limit is too short for the run, all of it is lost"
            f"{again}",
            "--ckpt-interval STEPS saves now and then",
            fatal=False,
        )


def _limit(plan: JobPlan) -> int | None:
    """The time limit in seconds, where one was asked for."""
    if plan.backend == "local" or plan.launch.rehearse or plan.options.time is None:
        return None
    return time_seconds(plan.options.time)


EARLY_SECONDS = 60


def memory_has_a_unit(plan: JobPlan) -> Iterator[Problem]:
    """A size without a unit is in MiB, and few mean that."""
    for option, size in (("--mem", plan.options.mem), ("--mem-per-gpu", plan.options.mem_per_gpu)):
        if size and 0 < megabytes(size) < LEAST_MIB:
            number = megabytes(size)
            yield Problem(
                "memory",
                f"{option} {number} MiB is less than any run needs; a number without a unit is in MiB",
                f"{option} {number}G",
                fatal=False,
            )


LEAST_MIB = 1024
"""Less memory than this no run can begin with."""


def config_is_checked(plan: JobPlan) -> Iterator[Problem]:
    """Without prime-rl, or with one that is not known here, nobody has validated the config."""
    resolved = plan.resolved
    if resolved.checked:
        return
    if resolved.host is None:
        why = "prime-rl was not found"
        hint = "name prime-rl with --prime-rl-dir or PRIME_RL_DIR to validate it"
    else:
        why = f"the schema of this prime-rl is not known, and taken for that of {resolved.shape}"
        hint = "a prime-rl that the README names validates it"
    yield Problem(
        "config",
        f"the config is unchecked: {why}, so its files and overrides are only merged",
        hint,
        fatal=False,
    )


_MOST_SHARED = 0.7

CHECKS: tuple[Callable[[JobPlan], Iterator[Problem]], ...] = (
    run_directory_can_be_written,
    working_directory_exists,
    template_exists,
    passed_variables_are_set,
    memory_has_a_unit,
    sharing_is_possible,
    warning_comes_behind_the_start,
    checkpoints_come_in_time,
    config_is_checked,
)
"""What is looked at whether or not the run is submitted."""
