"""What every built-in backend decides the same way: files, launch, and how they become text."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import socket
import sys
import uuid
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import medarc_plugin
from medarc_plugin import job
from medarc_plugin.host import fields
from medarc_plugin.job import formats
from medarc_plugin.job.formats import Format, form_of
from medarc_plugin.job.hub import hub_home
from medarc_plugin.job.memory import MemoryShareError, share_for
from medarc_plugin.models import (
    Allocation,
    JobPlan,
    LaunchSpec,
    MemoryNeeds,
    Request,
    Resolved,
    RunFiles,
    TextFile,
)
from medarc_plugin.options import megabytes, time_seconds, warning_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from medarc_plugin.job.failures import Failure
    from medarc_plugin.options import SlurmOptions

LAUNCH_FORMAT = 2
"""Version of launch.json; the frozen job code refuses any other."""

GRACE_SECONDS = 10
"""Between SIGTERM and SIGKILL: less than SLURM's own KillWait, which is 30 seconds unless a site
changes it (https://slurm.schedmd.com/slurm.conf.html#OPT_KillWait)."""

BEAT_SECONDS = 5
"""Between two heartbeats of an attempt. One that misses three is taken for dead."""

SECRET_VARIABLES = ("HF_TOKEN", "WANDB_API_KEY")
"""What `--auto-auth` passes on."""


def run_files(run_dir: Path, entrypoint: str) -> RunFiles:
    """Lay out the files of a run, under the names that prime-rl's run-directory guard allows."""
    return RunFiles(
        script=run_dir / f"{entrypoint}.sbatch",
        log=run_dir / "job_%j.log",
        config=run_dir / "configs" / f"{entrypoint}.json",
        launch=run_dir / "configs" / "launch",
    )


def new_plan(
    backend: str,
    resolved: Resolved,
    options: SlurmOptions,
    request: Request,
    allocation: Allocation,
    token: str,
) -> JobPlan:
    """Put together the plan for an allocation."""
    resolved = with_share(resolved)
    files = run_files(resolved.run_dir, resolved.entrypoint)
    # Without prime-rl the job code still runs, here, to say in the job what is missing.
    python = resolved.host.python if resolved.host else Path(sys.executable)
    launch = LaunchSpec(
        python=python,
        module=f"prime_rl.entrypoints.{resolved.entrypoint}",
        arguments=("@", str(files.config)),
        working_directory=(options.project_dir or Path()).absolute(),
        modules=options.module,
        setup=(*options.setup, *((options.pre_run_command,) if options.pre_run_command else ())),
        environment=_environment(options),
        passed=passed_names(options),
        rehearse=request.rehearse,
    )
    return JobPlan(
        name=job_name(resolved, options),
        backend=backend,
        token=token,
        resolved=resolved,
        options=options,
        run_dir=resolved.run_dir,
        allocation=allocation,
        launch=launch,
        files=files,
        template=options.template_path.name if options.template_path else f"{resolved.entrypoint}.sbatch.j2",
        template_path=options.template_path.absolute() if options.template_path else None,
        template_context=_prime_rl_context(resolved, options, files),
        provenance=_provenance(resolved, request),
        preflight=request.preflight,
    )


def with_share(resolved: Resolved) -> Resolved:
    """Work out vLLM's share of a GPU that it shares, where GPU and needs are known.

    The job does the same for the GPU that it got.
    """
    needs = resolved.memory
    if needs is None or needs.trainer is None or needs.gpu_mib is None:
        return resolved
    try:
        share = share_for(_memory_document(needs), needs.gpu_mib)
    except MemoryShareError as error:
        return replace(resolved, memory=replace(needs, refusal=(str(error), error.hint)))
    document = copy.deepcopy(dict(resolved.document))
    fields.put(document, needs.share_path, share)
    needs = replace(needs, share=share)
    return replace(resolved, memory=needs, memory_share=share, document=document)


def _memory_document(needs: MemoryNeeds) -> dict[str, Any]:
    """What the job needs to work out the share, as it stands in launch.json."""
    names = ("trainer_bytes", "inference_bytes", "reserve_bytes", "share", "share_path", "fixed")
    values = asdict(needs)
    return {name: values[name] for name in names}


def new_token() -> str:
    """Make the word that tells this submission from any other."""
    return uuid.uuid4().hex[:12]


def job_name(resolved: Resolved, options: SlurmOptions) -> str:
    """The job's name: what was asked for, else the run directory's."""
    return options.job_name if options.job_name is not None else resolved.run_dir.name


def passed_names(options: SlurmOptions) -> tuple[str, ...]:
    """Names of the variables whose values travel in the submission's environment only."""
    named = [text for text in options.env if "=" not in text]
    return tuple(dict.fromkeys([*named, *(SECRET_VARIABLES if options.auto_auth else ())]))


def run_file_texts(plan: JobPlan) -> tuple[TextFile, ...]:
    """Render everything but the script: config, plan, provenance and the frozen job code."""
    return (
        TextFile(plan.files.config, config := _json(plan.resolved.document)),
        TextFile(plan.files.resolved, config),
        TextFile(plan.files.plan, _json(launch_document(plan))),
        TextFile(plan.files.provenance, _json(plan.provenance)),
        *(
            TextFile(plan.files.job / path.name, path.read_text(encoding="utf-8"))
            for path in sorted(job_code().glob("*.py"))
        ),
    )


MARK_TEXT = """\
A rehearsal of medarc_plugin (--rehearse) looks for this file to see whether a node shares this folder with
the host in its name. It can be deleted.
"""


def _mark(plan: JobPlan) -> Path | None:
    """The mark that a rehearsal looks for in the hub's cache; `None` where none can be left."""
    if not plan.launch.rehearse:
        return None
    home = hub_home({**os.environ, **plan.launch.environment})
    host = re.sub(r"[^\w.-]", "_", socket.gethostname())
    return home / f".medarc-{host}" if home.is_dir() and os.access(home, os.W_OK | os.X_OK) else None


def leave_mark(plan: JobPlan) -> None:
    """Leave the mark of this host for a rehearsal, outside of the run; do without where that fails."""
    mark = _mark(plan)
    if mark is not None:
        with contextlib.suppress(OSError):
            mark.write_text(MARK_TEXT, encoding="utf-8")


def _mark_document(plan: JobPlan) -> dict[str, str | None] | None:
    if not plan.launch.rehearse:
        return None
    mark = _mark(plan)
    return {"host": socket.gethostname(), "file": None if mark is None else str(mark)}


def launch_document(plan: JobPlan) -> dict[str, Any]:
    """Write the plan as the job code reads it."""
    resolved = plan.resolved
    return {
        "format": LAUNCH_FORMAT,
        "name": plan.name,
        "entrypoint": resolved.entrypoint,
        "backend": plan.backend,
        "token": plan.token,
        "run_dir": str(plan.run_dir),
        "python": str(resolved.host.python) if resolved.host else None,
        "prime_rl_dir": str(resolved.host.directory) if resolved.host and resolved.host.directory else None,
        "module": plan.launch.module,
        "arguments": list(plan.launch.arguments),
        "working_directory": str(plan.launch.working_directory),
        "gpus": {
            "count": resolved.gpus.allocated,
            "shared": resolved.gpus.shared,
            "trainer": resolved.gpus.train,
            "inference": resolved.gpus.infer,
        },
        "cpus": plan.allocation.cpus,
        "memory_mib": megabytes(plan.allocation.memory) if plan.allocation.memory else None,
        "memory": _memory_document(resolved.memory) if resolved.memory else None,
        "min_free_disk_mib": megabytes(plan.options.min_free_disk) if plan.options.min_free_disk else None,
        "ports": resolved.ports,
        "fields": fields.for_job(resolved.entrypoint, fields.SHAPES[resolved.shape]),
        "idle_timeout": time_seconds(plan.options.idle_timeout) if plan.options.idle_timeout else None,
        "caches": {
            "warm": plan.options.warm_cache,
            "most_mib": megabytes(plan.options.warm_cache_size),
            # Said on purpose for this run, and so not moved into the job's own caches.
            "kept": sorted({text.partition("=")[0] for text in plan.options.env}),
        },
        "expected_variables": list(plan.launch.passed),
        "environments": [name.replace("-", "_") for name in resolved.environments],
        "checked": resolved.checked,
        "rehearse": plan.launch.rehearse,
        "mark": _mark_document(plan),
        "export": plan.options.export,
        "survive": {
            "requeue": plan.options.requeue,
            "max_requeues": plan.options.max_requeues,
            "signal_seconds": warning_seconds(plan.options),
            "grace_seconds": GRACE_SECONDS,
            "beat_seconds": BEAT_SECONDS,
        },
    }


def job_code() -> Path:
    """The folder of the job code that submissions freeze."""
    return Path(job.__file__).parent


def log_format(shape: str) -> Format:
    """What is known of the logs and metrics of a prime-rl, by the name of its shape."""
    return form_of(shape)


def read_log_line(text: str) -> formats.Line:
    """Take a line of a log apart, whichever of prime-rl's programs wrote it."""
    return formats.read_line(text)


def first_failure(run_dir: Path, shape: str, lines: Iterable[str]) -> Failure | None:
    """Find the component that failed first, as the job itself finds it.

    Args:
        run_dir: The run directory; its newest launch's logs are looked at.
        shape: Name of the prime-rl's shape.
        lines: What prime-rl's launcher printed.
    """
    from medarc_plugin.job import failures

    form = form_of(shape)
    said = next(filter(None, (failures.read_line(line, form) for line in lines)), None)
    return None if said is None else failures.describe(run_dir, *said, form)


def who_waits(run_dir: Path, shape: str) -> str:
    """Say which component of a run waits for which, as far as the newest launch's logs tell."""
    from medarc_plugin.job import idle

    return idle.who_waits(run_dir, form_of(shape))


def job_command(plan: JobPlan) -> tuple[str, ...]:
    """The command that the script ends in."""
    return (str(plan.launch.python), str(plan.files.job), str(plan.files.plan))


def gpu_summary(resolved: Resolved) -> str:
    """Say in a few words which component gets which GPUs."""
    gpus = resolved.gpus
    if gpus.shared:
        return "1 GPU for trainer and inference together"
    parts = [
        f"{count} GPU{'s' if count > 1 else ''} for {who}"
        for count, who in ((gpus.infer, "inference"), (gpus.train, "the trainer"))
        if count
    ]
    return ", ".join(parts)


def _environment(options: SlurmOptions) -> Mapping[str, str]:
    return dict(text.split("=", 1) for text in options.env if "=" in text)


def _prime_rl_context(resolved: Resolved, options: SlurmOptions, files: RunFiles) -> dict[str, Any]:
    """The names that prime-rl gives its own single-node templates, so that one of those works here."""
    return {
        "job_name": job_name(resolved, options),
        "partition": options.partition,
        "nodelist": options.nodelist,
        "exclude": options.exclude,
        "account": options.account,
        "time": options.time,
        "pre_run_command": options.pre_run_command,
        "cleanup_grace_period": options.cleanup_grace_period,
        "shared_fs": options.shared_fs,
        "config_path": files.config,
        "output_dir": resolved.run_dir,
        "gpus_per_node": resolved.gpus_per_node,
    }


def _provenance(resolved: Resolved, request: Request) -> dict[str, Any]:
    host = resolved.host
    return {
        "command": list(request.command),
        "working_directory": str(Path.cwd()),
        "typed": list(request.typed or request.command),
        "typed_in": str(request.typed_in or Path.cwd()),
        "medarc_plugin": medarc_plugin.__version__,
        "python": sys.version.split()[0],
        "prime_rl": None
        if host is None
        else {
            "python": str(host.python),
            "directory": str(host.directory) if host.directory else None,
            "commit": host.commit,
            "local_changes": host.dirty,
        },
        "shape": resolved.shape,
        "checked": resolved.checked,
        "warnings": list(resolved.warnings),
    }


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
