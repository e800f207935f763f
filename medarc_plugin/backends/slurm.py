"""The SLURM backend: one job, on one node, with the GPUs that the run needs and no more."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import medarc_plugin
from medarc_plugin import flight, hookimpl, lifesigns
from medarc_plugin.backends import planning
from medarc_plugin.errors import UsageError
from medarc_plugin.flight import Flight, seconds
from medarc_plugin.models import (
    Allocation,
    Directive,
    JobPlan,
    JobState,
    Request,
    Resolved,
    Submission,
    TextFile,
    Trial,
)
from medarc_plugin.options import SlurmOptions, knobs, megabytes, warning_seconds
from medarc_plugin.render import check_script, check_syntax, render
from medarc_plugin.slurm import cluster, delivery, directives, gateway, lookup, lost, trial

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from medarc_plugin.slurm.facts import ClusterFacts
    from medarc_plugin.slurm.queue import Job

NAME_LIMIT = 1024
"""Bytes that sbatch takes for a job name or a comment (seen on 22.05)."""


class SlurmBackend:
    """Writes a batch script and submits it with `sbatch`."""

    name = "slurm"

    def __init_subclass__(cls, **options: object) -> None:
        """Launch a subclass that has a `submit` of its own by that one."""
        super().__init_subclass__(**options)
        if "submit" in vars(cls) and "submit_once" not in vars(cls):
            setattr(cls, "submit_once", None)  # noqa: B010 - for mypy it is a method for good

    def plan(self, resolved: Resolved, options: SlurmOptions, request: Request) -> JobPlan:
        """Decide the allocation: see `medarc_plugin.models.Backend.plan`."""
        token = planning.new_token()
        allocation = allocate(resolved, options, token)
        return planning.new_plan(self.name, resolved, options, request, allocation, token)

    def render(self, plan: JobPlan, template_dirs: tuple[Path, ...]) -> tuple[TextFile, ...]:
        """Render script, config, plan and job code: see `medarc_plugin.models.Backend.render`."""
        text = render(plan.template, script_context(plan), template_dirs)
        check_script(plan.template, text)
        if plan.launch.setup or plan.template_path:
            check_syntax(plan.template, text)
        return (TextFile(plan.files.script, text, 0o755), *planning.run_file_texts(plan))

    def command(self, plan: JobPlan) -> tuple[str, ...]:
        """`sbatch --parsable SCRIPT`."""
        return gateway.sbatch_command(plan.files.script)

    def submit(self, plan: JobPlan, secrets: Mapping[str, str]) -> Submission:
        """Submit the script: see `medarc_plugin.models.Backend.submit`."""
        return SlurmBackend.submit_once(self, plan, secrets, Flight(plan))

    def submit_once(self, plan: JobPlan, secrets: Mapping[str, str], flight: Flight) -> Submission:
        """Submit the script exactly once: see `medarc_plugin.models.CarefulBackend.submit_once`."""
        began = datetime.now(UTC)
        at = gateway.Cluster(_named_cluster(plan.options))
        flight.name_cluster(at.name)
        accepted = delivery.deliver(plan.files.script, secrets, flight, began.timestamp(), at)
        return Submission(
            job_id=accepted.job_id,
            cluster=accepted.cluster,
            script=plan.files.script,
            log=plan.files.log_of(accepted.job_id),
            submitted_at=datetime.now(UTC).isoformat(timespec="seconds"),
            token=plan.token,
            backend=self.name,
            slurm_conf=os.environ.get("SLURM_CONF"),
        )

    def survey(self, plan: JobPlan, seconds: float) -> ClusterFacts | None:
        """Ask the cluster: see `medarc_plugin.models.ClusterBackend.survey`."""
        at = _destination(plan.options)
        return None if at is None else cluster.ask(at, seconds=seconds)

    def try_out(self, plan: JobPlan, script: str, seconds: float) -> Trial:
        """`sbatch --test-only`: see `medarc_plugin.models.ClusterBackend.try_out`."""
        return trial.try_out(script, _destination(plan.options) or gateway.HERE, seconds)

    def query(self, submission: Submission) -> JobState:
        """Ask SLURM, and accept no other job under the same id.

        The script may have been submitted again by hand, or its submission cut off before it was
        recorded: a queued or running job with the token is this run's, whatever its id.
        """
        if submission.slurm_conf is not None and not Path(submission.slurm_conf).exists():
            # A sandbox that was taken down ended its jobs and left nothing to ask.
            return JobState(gateway.GONE)
        at, since = _asked(submission), seconds(submission.submitted_at)
        note = flight.read(submission.script.parent / "configs" / "launch")
        earlier = note.earlier if note is not None and note.token == submission.token else ()
        found = lookup.find(lookup.Sought(submission.token, submission.script, since, earlier), at)
        if found and (not submission.job_id or not found[-1].over):
            return _found(found[-1])
        if not submission.job_id:
            return JobState(gateway.UNKNOWN) if found is None else _unknown_to_slurm(submission, earlier)
        state = gateway.job_state(submission.job_id, at, submission.token, submission.script, since)
        if state.state == gateway.GONE and found:
            return _found(found[-1])
        return state if state.state != gateway.GONE else _what_became_of(submission, state)

    def cancel(self, submission: Submission) -> None:
        """`scancel JOB`."""
        gateway.cancel(submission.job_id, gateway.Cluster(submission.cluster, submission.slurm_conf))


def allocate(resolved: Resolved, options: SlurmOptions, token: str) -> Allocation:
    """Turn needs and options into what is asked of SLURM.

    Raises:
        UsageError: A name or comment is longer than SLURM takes.
    """
    gpus = resolved.gpus.allocated
    cpus = options.cpus_per_gpu * gpus
    memory = options.mem
    if options.mem_per_gpu:
        memory = f"{megabytes(options.mem_per_gpu) * gpus}M"
    lines = [
        Directive("job-name", _limited("--job-name", planning.job_name(resolved, options))),
        Directive("comment", _limited("--comment", comment(options.comment, token), comment(None, token))),
        # The word that SLURM reads patterns in is the path alone: attempts share one log, appended.
        Directive("output", pattern=directives.log_pattern(resolved.run_dir, "job_%j.log")),
        Directive("open-mode", "append"),
        Directive("requeue" if options.requeue else "no-requeue"),
        *_warning(resolved, options),
        Directive("nodes", "1"),
        Directive("ntasks", "1"),
        Directive("cpus-per-task", str(cpus)),
        _gpu_directive(options, gpus),
    ]
    if memory:
        lines.append(Directive("mem", memory))
    for name, knob in knobs().items():
        value = getattr(options, name)
        if knob.sbatch and value is not None:
            lines.append(Directive(knob.sbatch, str(value)))
    if options.exclusive:
        lines.append(Directive("exclusive"))
    lines += [_extra(text) for text in options.sbatch_arg]
    if options.dependency and not any(line.name == "kill-on-invalid-dep" for line in lines):
        # Else a job whose dependency failed stays in the queue for ever.
        lines.append(Directive("kill-on-invalid-dep", "yes"))
    return Allocation(
        gpus=gpus,
        gpu_type=options.gpu_type,
        cpus=cpus,
        memory=memory,
        time=options.time,
        partition=options.partition,
        account=options.account,
        qos=options.qos,
        directives=tuple(lines),
    )


def _named_cluster(options: SlurmOptions) -> str | None:
    """What `--sbatch-arg clusters=NAME` asks for; `None` for the cluster of this machine."""
    named = [text.partition("=") for text in options.sbatch_arg]
    return next((name for key, _, name in named if key in {"cluster", "clusters"}), None)


def _destination(options: SlurmOptions) -> gateway.Cluster | None:
    """The cluster that sbatch would send the job to; `None` where it chooses among several."""
    named = gateway.Cluster(_named_cluster(options))
    return None if named.several else named


def comment(words: str | None, token: str) -> str:
    """The job's comment: the user's words, then the word by which the plugin knows its job."""
    return f"{words} [medarc:{token}]" if words else f"[medarc:{token}]"


def script_context(plan: JobPlan) -> dict[str, object]:
    """Everything that a template may use."""
    return {
        **plan.template_context,
        "directives": [directives.line(line) for line in plan.allocation.directives],
        "entrypoint": plan.resolved.entrypoint,
        "gpu_summary": planning.gpu_summary(plan.resolved),
        "gpus": plan.allocation.gpus,
        "version": medarc_plugin.__version__,
        "script_path": plan.files.script,
        "log_path": plan.files.log,
        "run_dir": plan.run_dir,
        "environment": plan.launch.environment,
        "project_dir": plan.launch.working_directory,
        "modules": plan.launch.modules,
        "setup": plan.launch.setup,
        "dotenv": True,
        "python": plan.launch.python,
        "job_code": plan.files.job,
        "plan_path": plan.files.plan,
    }


def _warning(resolved: Resolved, options: SlurmOptions) -> list[Directive]:
    """Ask for a signal ahead of the end, for whom that is worth ending early.

    It goes to the batch process alone, which is the one that owns the run.
    """
    seconds = warning_seconds(options)
    worth = options.requeue and seconds and resolved.entrypoint != "inference"
    return [Directive("signal", f"B:USR2@{seconds}")] if worth else []


def _gpu_directive(options: SlurmOptions, gpus: int) -> Directive:
    kind = f"{options.gpu_type}:" if options.gpu_type else ""
    prefix = "gpu:" if options.gpu_flag == "gres" else ""
    return Directive(options.gpu_flag, f"{prefix}{kind}{gpus}")


def _extra(text: str) -> Directive:
    key, equals, value = text.partition("=")
    return Directive(key, value if equals else None)


def _limited(option: str, value: str, added: str = "") -> str:
    """Refuse a value that sbatch would not take, with the words of this plugin that it ends with."""
    if len(value.encode()) > NAME_LIMIT:
        own = f", of which this plugin's own word takes {len(added) + 1}" if added else ""
        excess = len(value.encode()) - NAME_LIMIT
        raise UsageError(
            f"{option} is longer than the {NAME_LIMIT} bytes that SLURM takes{own}",
            hint=f"shorten it by {excess} byte{'' if excess == 1 else 's'}",
        )
    return value


def _asked(submission: Submission) -> gateway.Cluster:
    # A run that was submitted without SLURM_CONF is not known to the SLURM that is named there now.
    return gateway.Cluster(submission.cluster, submission.slurm_conf or "")


def _found(job: Job) -> JobState:
    return JobState(job.state, job_id=job.job_id, cluster=job.cluster)


def _unknown_to_slurm(submission: Submission, earlier: tuple[str, ...]) -> JobState:
    """Say what is known of a submission without a recorded id of which SLURM has no job."""
    run_dir = submission.script.parent
    signs = lifesigns.read(run_dir, submission.token)
    new = lifesigns.newest_log(run_dir, earlier) if submission.submitted_at else None
    return JobState(gateway.GONE, job_id=signs.job_id or new)


def _what_became_of(submission: Submission, state: JobState) -> JobState:
    """Tell a job that SLURM forgot before its end from one that is only too old."""
    told = lost.controller(_asked(submission))
    launch = submission.script.parent / "configs" / "launch"
    reason = flight.elsewhere(launch, submission.token, told.cluster if told is not None else None)
    if reason is not None:
        return JobState(gateway.UNKNOWN, reason)
    since = seconds(submission.submitted_at)
    signs = lifesigns.read(submission.script.parent, submission.token, submission.job_id, since=since)
    age = time.time() - since
    taken = state.reason == gateway.TAKEN
    found = lost.judge(submission.job_id, age, signs, told or lost.Controller(), taken=taken)
    return JobState(found.state, f"{found.began}, and {found.evidence}")


@hookimpl
def medarc_register_backends() -> Iterable[SlurmBackend]:
    """Offer `--backend slurm`."""
    return [SlurmBackend()]
