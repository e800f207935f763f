"""The use case: from a request to a submitted run, top to bottom.

A dry run is the first half of a real one, the same object, so the two cannot drift.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from medarc_plugin import plugins, profile_files, profiles, render, rundir
from medarc_plugin.backends import planning
from medarc_plugin.errors import MedarcError, PreflightError, RunDirectoryError, UsageError
from medarc_plugin.host import locate, merge
from medarc_plugin.host.resolve import Question, resolve_all

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from medarc_plugin.models import (
        Backend,
        Host,
        JobPlan,
        Problem,
        Request,
        Resolved,
        Submission,
        TextFile,
    )
    from medarc_plugin.profiles import Settled

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Prepared:
    """A run with everything decided and rendered, and nothing written.

    Attributes:
        request: What was typed.
        settled: The options and where they came from.
        plan: The plan.
        problems: What the checks found; none of them fatal.
        files: The files of the run.
        backend: The backend that takes it.
        plugins: All plugins.
    """

    request: Request
    settled: Settled
    plan: JobPlan
    problems: tuple[Problem, ...]
    files: tuple[TextFile, ...]
    backend: Backend
    plugins: plugins.Plugins


@dataclass(frozen=True)
class Begun:
    """A run whose config prime-rl is still to resolve.

    Attributes:
        backend: The backend that will take it.
        settled: The options and where they came from.
        host: prime-rl.
        read: Digests of the config files, by name.
    """

    backend: Backend
    settled: Settled
    host: Host | None
    read: Mapping[str, str | None]


def prepare(request: Request) -> Prepared:
    """Decide and render a run.

    Raises:
        MedarcError: Whatever stands in the way; nothing has been written then.
    """
    (outcome,) = prepare_all([request])
    if isinstance(outcome, MedarcError):
        raise outcome
    return outcome


def prepare_all(
    requests: Sequence[Request], progress: Callable[[int], None] | None = None
) -> list[Prepared | MedarcError]:
    """Decide and render several runs; prime-rl is asked for all of them at once.

    Args:
        requests: The runs.
        progress: Told how many configs are resolved, now and then.

    Returns:
        What `prepare` returns or raises, for each request.

    Raises:
        PluginError: The plugins cannot be loaded.
    """
    loaded = plugins.load()
    begun = [_attempted(_settled, request, loaded) for request in requests]
    going = {index: found for index, found in enumerate(begun) if not isinstance(found, MedarcError)}
    questions = [
        Question(requests[index], found.settled.options, found.host) for index, found in going.items()
    ]
    answers = dict(zip(going, resolve_all(questions, progress), strict=True))
    outcomes: list[Prepared | MedarcError] = []
    for index, (request, found) in enumerate(zip(requests, begun, strict=True)):
        resolved = answers.get(index)
        if isinstance(found, MedarcError):
            outcomes.append(found)
        elif isinstance(resolved, MedarcError):
            outcomes.append(resolved)
        elif resolved is not None:
            outcomes.append(_attempted(_planned, request, found, resolved, loaded))
    return outcomes


def _attempted(step: Callable[P, T], *args: P.args, **options: P.kwargs) -> T | MedarcError:
    """Take a step for one of several runs; what stands in its way is its own affair."""
    try:
        return step(*args, **options)
    except MedarcError as error:
        return error


def _settled(request: Request, loaded: plugins.Plugins) -> Begun:
    backend = loaded.backend(request.backend)
    read = merge.fingerprints(request.arguments)
    settled = settle_values(
        request.arguments, request.options, profile=request.profile, rehearse=request.rehearse
    )
    return Begun(backend, settled, find_host(request, settled), read)


def _planned(request: Request, begun: Begun, resolved: Resolved, loaded: plugins.Plugins) -> Prepared:
    backend, settled = begun.backend, begun.settled
    _refuse_changed(begun.read, request)
    _refuse_to_delete_what_goes_on(request, resolved)
    plan = backend.plan(resolved, settled.options, request)
    plan = _with_environment(plan, loaded)
    problems = _refuse_fatal(loaded.problems(plan))
    files = backend.render(plan, _template_dirs(plan, loaded))
    _refuse_secrets(files)
    return Prepared(request, settled, plan, problems, files, backend, loaded)


def write(prepared: Prepared) -> None:
    """Write the files of a run without submitting it: the whole of a dry run.

    Raises:
        RunDirectoryError: The run directory cannot take the run.
    """
    _check_run_directory(prepared)
    _refuse_to_clean_for(prepared, "dry run", "--dry-run")
    with rundir.locked(prepared.plan.files):
        # Again, now that nobody else can be at it.
        _check_run_directory(prepared)
        rundir.write(prepared.files)
        planning.leave_mark(prepared.plan)


def submit(prepared: Prepared, warn: Callable[[str], None], secrets: Mapping[str, str]) -> Submission:
    """Write the files, hand the run over and record that.

    Args:
        prepared: The run.
        warn: Told what went wrong without undoing the submission.
        secrets: Variables for the submission's environment.

    Raises:
        RunDirectoryError: The run directory cannot take the run; nothing was written.
        SubmissionError: The run was refused; its files are left in place.
    """
    _check_run_directory(prepared)
    if prepared.request.rehearse:
        _refuse_to_clean_for(prepared, "rehearsal", "--rehearse")
    with rundir.locked(prepared.plan.files):
        # Again, now that nobody else can be at it.
        _check_run_directory(prepared)
        if _wants_clean(prepared) and not prepared.request.rehearse:
            rundir.clean(prepared.plan.files)
        rundir.write(prepared.files)
        planning.leave_mark(prepared.plan)
        prepared.plan.files.submission.unlink(missing_ok=True)
        submission = prepared.backend.submit(prepared.plan, secrets)
        try:
            rundir.record(prepared.plan.files, submission)
        except OSError as error:
            warn(f"job {submission.job_id} is submitted, but could not be recorded: {error}")
    for failure in prepared.plugins.submitted(submission, prepared.plan):
        warn(f"job {submission.job_id} is submitted, but {failure}")
    return submission


REHEARSAL: Mapping[str, Any] = {"time": "5", "signal_time": 0}
"""What a rehearsal asks for, whatever the run's own files say: a short allocation is given sooner, and the
warning for a run's end would come at its start."""


def settle_values(
    arguments: tuple[str, ...],
    options: Mapping[str, Any],
    *,
    profile: str | None = None,
    rehearse: bool = False,
) -> Settled:
    """Find out which option values hold: command line, then `[slurm]`, then profiles, then `SBATCH_*`.

    Args:
        arguments: What is prime-rl's on the command line; its `@ FILE`s may have a `[slurm]` table.
        options: Values from the command line by field name.
        profile: The profiles' section that `--profile` names.
        rehearse: The job launches nothing.

    Raises:
        UsageError: A file cannot be read, or a value cannot be used.
    """
    document = merge.read_files(arguments)
    return profiles.settle(
        [
            profiles.Layer(profiles.COMMAND_LINE, options),
            profiles.Layer("--rehearse", REHEARSAL if rehearse else {}),
            profiles.table_layer(document.get("slurm")),
            *profile_files.layers(profile),
            profiles.environment_layer(os.environ),
        ]
    )


def find_host(request: Request, settled: Settled) -> Host | None:
    """Find prime-rl; a real submission may not do without.

    Raises:
        HostNotFoundError: There is none, and the run is to be submitted for real.
    """
    named, source = settled.options.prime_rl_dir, settled.sources["prime_rl_dir"]
    if profile_files.is_source(source) and os.environ.get("PRIME_RL_DIR"):
        named = None  # said for this shell, which is nearer than a file
    host = locate.locate(named, source=source)
    may_do_without = request.dry_run or request.rehearse or not request.check
    return host if may_do_without else locate.require(host)


def gather_secrets(plan: JobPlan) -> dict[str, str]:
    """Collect the values that `--env NAME` and `--auto-auth` pass on.

    HF_TOKEN is also looked up where `hf auth login` keeps it:
    https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables#hftokenpath
    """
    found = {name: os.environ[name] for name in plan.launch.passed if os.environ.get(name)}
    if "HF_TOKEN" in plan.launch.passed and "HF_TOKEN" not in found and (token := _stored_token()):
        found["HF_TOKEN"] = token
    return found


def _stored_token() -> str | None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = Path(os.environ.get("HF_HOME") or cache / "huggingface")
    path = Path(os.environ.get("HF_TOKEN_PATH") or home / "token")
    try:
        token = path.expanduser().read_text(encoding="ascii").strip()
    except (OSError, RuntimeError, UnicodeDecodeError):
        return None
    # No header and no environment could carry it.
    return token if token.isprintable() else None


def _refuse_changed(read: Mapping[str, str | None], request: Request) -> None:
    """Files are read here and by prime-rl: half of a run may not come from another version of one."""
    now = merge.fingerprints(request.arguments)
    changed = [name for name in read if read[name] != now[name]]
    if changed:
        raise UsageError(
            f"{', '.join(changed)} changed while it was read",
            hint="run the command again when nobody is writing to it",
        )


def _refuse_to_delete_what_goes_on(request: Request, resolved: Resolved) -> None:
    if (request.clean or resolved.clean) and (request.resume or resolved.resume):
        raise UsageError(
            "clean and resume contradict each other: one deletes what the other goes on with",
            hint="the config may hold one of them: --no-clean or --no-resume overrules it",
        )


def _with_environment(plan: JobPlan, loaded: plugins.Plugins) -> JobPlan:
    environment = loaded.job_environment(plan)
    return replace(plan, launch=replace(plan.launch, environment=environment))


def _refuse_fatal(problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
    fatal = [problem for problem in problems if problem.fatal]
    if fatal:
        lines = [f"{problem.check}: {problem.message}" for problem in fatal]
        hints = dict.fromkeys(problem.hint for problem in fatal if problem.hint)
        raise PreflightError("\n".join(lines), hint="; ".join(hints) or None)
    return problems


def _refuse_secrets(files: tuple[TextFile, ...]) -> None:
    """Look for the values of secrets in what is about to be written, however they came there."""
    secrets = {
        name: value
        for name, value in os.environ.items()
        if _SECRET.search(name) and len(value) >= _SHORTEST_SECRET and "/" not in value
    }
    if token := _stored_token():
        secrets.setdefault("HF_TOKEN", token)
    for file in files:
        try:
            file.text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise UsageError(f"{file.path} would hold what is no text: {error.reason}") from None
        for name, value in secrets.items():
            if value in file.text:
                raise UsageError(
                    f"the value of {name} would be written into {file.path}",
                    hint=f"a file is no place for it: pass it by name, with --env {name} or --auto-auth",
                )


_SECRET = re.compile(r"TOKEN(?!IZER)|SECRET|PASSWORD|CREDENTIAL|API_?KEY", re.IGNORECASE)
_SHORTEST_SECRET = 8


def _template_dirs(plan: JobPlan, loaded: plugins.Plugins) -> tuple[Path, ...]:
    own = (plan.template_path.parent,) if plan.template_path else ()
    return (*own, *loaded.template_dirs(), render.TEMPLATES)


def _wants_clean(prepared: Prepared) -> bool:
    return prepared.request.clean or prepared.plan.resolved.clean


def _refuse_to_clean_for(prepared: Prepared, what: str, flag: str) -> None:
    """Delete no run for what trains nothing in its place."""
    plan = prepared.plan
    if _wants_clean(prepared) and rundir.artifacts(plan.run_dir, plan.files.script.name):
        raise RunDirectoryError(
            f"{plan.run_dir} holds a run, which --clean would delete and a {what} must not",
            hint=f"use another --output-dir for it, or leave {flag} out",
        )


def _check_run_directory(prepared: Prepared) -> None:
    rundir.check(
        prepared.plan,
        prepared.plugins.query,
        clean=_wants_clean(prepared),
        resume=prepared.request.resume or prepared.plan.resolved.resume,
    )
