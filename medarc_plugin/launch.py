"""The use case: from a request to a submitted run, top to bottom.

A dry run is the first half of a real one, the same object, so the two cannot drift.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from medarc_plugin import flight, plugins, profile_files, profiles, redaction, render, rundir, signals
from medarc_plugin.backends import planning
from medarc_plugin.errors import MedarcError, PreflightError, RunDirectoryError, SubmissionError, UsageError
from medarc_plugin.host import locate, merge
from medarc_plugin.host.resolve import Question, resolve_all
from medarc_plugin.index import add_found

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from medarc_plugin.models import (
        Backend,
        CarefulBackend,
        ClusterBackend,
        Host,
        JobPlan,
        JobState,
        Problem,
        Request,
        Resolved,
        Submission,
        TextFile,
        Trial,
    )
    from medarc_plugin.profiles import Settled
    from medarc_plugin.slurm.facts import ClusterFacts

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Prepared:
    """A run with everything decided and rendered, and nothing written.

    Attributes:
        request: What was typed.
        settled: The options and where they came from.
        plan: The plan.
        problems: What the checks found; in a dry run, with what a submission would be refused for.
        files: The files of the run.
        backend: The backend that takes it.
        plugins: All plugins.
        trial: What the scheduler says of it, where it was shown.
    """

    request: Request
    settled: Settled
    plan: JobPlan
    problems: tuple[Problem, ...]
    files: tuple[TextFile, ...]
    backend: Backend
    plugins: plugins.Plugins
    trial: Trial | None = None

    @property
    def dry_run(self) -> bool:
        """Whether the command line or the config asks that nothing is started."""
        return self.request.dry_run or self.plan.resolved.dry_run


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


@dataclass(frozen=True)
class Decided:
    """A run that is planned, and that nobody has looked at yet.

    Attributes:
        request: What was typed.
        begun: Its backend and options.
        plan: The plan.
    """

    request: Request
    begun: Begun
    plan: JobPlan

    @property
    def dry_run(self) -> bool:
        """Whether nothing is started."""
        return self.request.dry_run or self.plan.resolved.dry_run


def prepare(request: Request, ready: Callable[[], None] | None = None) -> Prepared:
    """Decide, check and render a run.

    Args:
        request: The run.
        ready: Called when the run is planned and before its cluster is asked.

    Raises:
        MedarcError: Whatever stands in the way; nothing has been written then.
    """
    (outcome,) = prepare_all([request], ready=ready)
    if isinstance(outcome, MedarcError):
        raise outcome
    return outcome


def prepare_all(
    requests: Sequence[Request],
    progress: Callable[[int], None] | None = None,
    ready: Callable[[], None] | None = None,
) -> list[Prepared | MedarcError]:
    """Decide, check and render several runs; prime-rl and the cluster are asked for all of them at once.

    Args:
        requests: The runs.
        progress: Told how many configs are resolved, now and then.
        ready: Called when a run that is to be submitted is planned, before its cluster is asked.

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
    decided: list[Decided | MedarcError] = []
    for index, (request, found) in enumerate(zip(requests, begun, strict=True)):
        resolved = answers.get(index)
        if isinstance(found, MedarcError):
            decided.append(found)
        elif isinstance(resolved, MedarcError):
            decided.append(resolved)
        elif resolved is not None:
            decided.append(_attempted(_planned, request, found, resolved, loaded))
    if ready is not None and any(isinstance(one, Decided) and not one.dry_run for one in decided):
        ready()
    clusters = Clusters()
    return [
        one if isinstance(one, MedarcError) else _attempted(_looked_at, one, clusters, loaded)
        for one in decided
    ]


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


def _planned(request: Request, begun: Begun, resolved: Resolved, loaded: plugins.Plugins) -> Decided:
    _refuse_changed(begun.read, request)
    _refuse_to_delete_what_goes_on(request, resolved)
    plan = begun.backend.plan(resolved, begun.settled.options, request)
    return Decided(request, begun, _with_environment(plan, loaded))


def _looked_at(decided: Decided, clusters: Clusters, loaded: plugins.Plugins) -> Prepared:
    backend, settled = decided.begun.backend, decided.begun.settled
    plan = replace(decided.plan, cluster=clusters.survey(decided))
    found = loaded.problems(plan)
    problems = _refuse_fatal(found, decided.dry_run)
    files = backend.render(plan, _template_dirs(plan, loaded))
    _refuse_secrets(files)
    # Of a job that is refused already, or that no node can take now, SLURM has nothing new to say.
    known = any(problem.fatal or problem.check in WAITS for problem in found)
    trial = None if known else clusters.try_out(decided, plan, files)
    if trial is not None and trial.problem is not None:
        problems = _refuse_fatal((*problems, trial.problem), decided.dry_run)
    return Prepared(decided.request, settled, plan, problems, files, backend, loaded, trial)


WAITS = frozenset({"nodes", "reservation"})
"""Names of the checks that find all nodes of a job out of service, and that its reservation begins later."""

SURVEY_SECONDS, PREVIEW_SECONDS = 5.0, 2.0
"""How long a cluster may take to answer: before a submission, and for a dry run, which does without."""


def _of_a_cluster(backend: Backend) -> ClusterBackend | None:
    """A backend as one that can ask its cluster, if it can; a plugin's is behind a wrapper."""
    can = all(hasattr(backend, name) for name in ("survey", "try_out"))
    return cast("ClusterBackend", backend) if can else None


class Clusters:
    """What the clusters of some runs say, each asked once."""

    def __init__(self) -> None:
        self._facts: dict[tuple[str, tuple[str, ...]], ClusterFacts | None] = {}
        self._trials: dict[tuple[object, ...], Trial] = {}

    def survey(self, decided: Decided) -> ClusterFacts | None:
        """Ask a run's cluster; `None` where it has none, or nobody wants to know."""
        backend, plan = _of_a_cluster(decided.begun.backend), decided.plan
        if backend is None or not plan.preflight:
            return None
        key = (plan.backend, plan.options.sbatch_arg)
        if key not in self._facts:
            found = backend.survey(plan, PREVIEW_SECONDS if decided.dry_run else SURVEY_SECONDS)
            # A preview is for machines without a cluster too, and says nothing of what it lacks.
            self._facts[key] = None if found is not None and found.silent and decided.dry_run else found
        return self._facts[key]

    def try_out(self, decided: Decided, plan: JobPlan, files: tuple[TextFile, ...]) -> Trial | None:
        """Show the cluster a run; those that ask for the same, once."""
        backend = _of_a_cluster(decided.begun.backend)
        if backend is None or plan.cluster is None or plan.cluster.silent:
            return None
        script = next((file.text for file in files if file.path == plan.files.script), None)
        if script is None:
            return None
        own = {"job-name", "comment", "output"}
        key = (
            plan.backend,
            plan.template_path,
            *(one for one in plan.allocation.directives if one.name not in own),
        )
        if key not in self._trials:
            seconds = PREVIEW_SECONDS if decided.dry_run else SURVEY_SECONDS
            self._trials[key] = backend.try_out(plan, script, seconds)
        return self._trials[key]


def write(prepared: Prepared, say: Callable[[str], None] = lambda _: None) -> str | None:
    """Write the files of a run without submitting it: the whole of a dry run.

    What a directory tells of a run that was submitted is not written over.

    Args:
        prepared: The run.
        say: Told what is waited for.

    Returns:
        Why nothing is written; `None` when the files are.

    Raises:
        RunDirectoryError: The run directory cannot take the run.
    """
    files = prepared.plan.files
    if not flight.is_open(files):
        _check_run_directory(prepared)
    _refuse_to_clean_for(prepared, "dry run", "--dry-run")
    with rundir.locked(files, say):
        _settle(prepared, say)
        # Again, now that nobody else can be at it.
        _check_run_directory(prepared)
        job_id = rundir.job_of(files)
        if job_id is not None:
            return f"{prepared.plan.run_dir} keeps the record of job {job_id}"
        rundir.sweep(files)
        rundir.write(prepared.files)
        planning.leave_mark(prepared.plan)
    return None


def submit(
    prepared: Prepared,
    warn: Callable[[str], None],
    secrets: Mapping[str, str],
    say: Callable[[str], None] = lambda _: None,
) -> Submission:
    """Write the files, hand the run over and record that.

    Args:
        prepared: The run.
        warn: Told what went wrong without undoing the submission.
        secrets: Variables for the submission's environment.
        say: Told what goes on beside the ordinary.

    Raises:
        RunDirectoryError: The run directory cannot take the run; nothing was written.
        SubmissionError: The run was refused; its files are left in place.
        Stopped: A signal came; whether there is a job is said.
    """
    plan, files = prepared.plan, prepared.plan.files
    # While a launch is under way, or was cut off, nothing here says anything for certain.
    if not flight.is_open(files):
        _check_run_directory(prepared)
    if prepared.request.rehearse:
        _refuse_to_clean_for(prepared, "rehearsal", "--rehearse")
    foreground = getattr(prepared.backend, "foreground", False)
    with rundir.locked(files, say, foreground=foreground) as lock:
        _settle(prepared, say)
        # Again, now that nobody else can be at it.
        earlier = _check_run_directory(prepared)
        if earlier is not None and earlier.state == "LOST":
            say(f"SLURM has lost job {earlier.job_id}: {earlier.reason}")
        if _wants_clean(prepared) and not prepared.request.rehearse:
            rundir.clean(files)
        rundir.sweep(files)
        rundir.write(prepared.files)
        planning.leave_mark(plan)
        with signals.held() if _is_careful(prepared) else nullcontext(signals.Hold()) as hold:
            under_way = flight.Flight(
                plan, hold=hold, say=say, earlier=earlier.job_id if earlier else None, lock=lock
            )
            submission = _hand_over(prepared, secrets, under_way, warn)
    with _saying_what_is_submitted(submission, plan, hold):
        for failure in prepared.plugins.submitted(submission, plan):
            warn(f"job {submission.job_id} is submitted, but {failure}")
    return submission


def _settle(prepared: Prepared, say: Callable[[str], None]) -> None:
    """Find out what came of an earlier launch that was cut off, and put its run into the user's list."""
    files = prepared.plan.files
    try:
        found = flight.settle(files, prepared.plugins.query, say)
        if found is not None:
            add_found(files, found)
    except OSError as error:
        raise RunDirectoryError(
            f"what came of an earlier launch cannot be recorded: {error}",
            hint="free some space, then run the same command again",
        ) from None


def _is_careful(prepared: Prepared) -> bool:
    """Whether the backend can say what came of a submission that was cut off."""
    return getattr(prepared.backend, "submit_once", None) is not None


def _hand_over(
    prepared: Prepared, secrets: Mapping[str, str], under_way: flight.Flight, warn: Callable[[str], None]
) -> Submission:
    """Hand a run over and record it; whatever ends this in between, the next launch finds out.

    Raises:
        SubmissionError: There is no job, or nobody can say.
        Stopped: The same, after a signal.
    """
    plan, backend = prepared.plan, prepared.backend
    plan.files.submission.unlink(missing_ok=True)
    try:
        if _is_careful(prepared):
            submission = cast("CarefulBackend", backend).submit_once(plan, secrets, under_way)
        else:
            submission = backend.submit(plan, secrets)
    except SubmissionError as error:
        if under_way.hold.count:
            raise signals.Stopped(under_way.hold.first, error.message, error.hint) from None
        raise
    try:
        rundir.record(plan.files, submission)
    except OSError as error:
        warn(f"job {submission.job_id} is submitted, but could not be recorded: {error}")
        return submission
    if _is_careful(prepared):
        settings = plan.cluster.settings if plan.cluster is not None else None
        under_way.settle(submission.job_id, settings.name if settings is not None else None)
    return submission


@contextmanager
def _saying_what_is_submitted(submission: Submission, plan: JobPlan, hold: signals.Hold) -> Iterator[None]:
    """Let no signal end a launch without a word about its job."""
    try:
        yield
    except KeyboardInterrupt:
        hold.note(signal.SIGINT)
    if hold.count:
        raise signals.Stopped(
            hold.first,
            f"job {submission.job_id} is submitted, and recorded in {plan.run_dir}",
            hint=f"`{submission.scancel()}` ends it" if submission.job_id.isdigit() else None,
        )


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


def with_host(settled: Settled) -> Settled:
    """Name among the options the prime-rl that a launch takes, where another place than they does.

    Args:
        settled: The options and where they came from.
    """
    named, source = settled.options.prime_rl_dir, settled.sources["prime_rl_dir"]
    said = os.environ.get("PRIME_RL_DIR")
    if said and (named is None or profile_files.is_source(source)):
        named, source = Path(said), "PRIME_RL_DIR"
    elif named is None and locate.is_checkout(locate.BESIDE):
        named, source = locate.BESIDE.absolute(), f"./{locate.BESIDE}"
    options = settled.options.model_copy(update={"prime_rl_dir": named})
    return replace(settled, options=options, sources={**settled.sources, "prime_rl_dir": source})


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

    HF_TOKEN is also looked up where `hf auth login` keeps it.
    """
    found = {name: os.environ[name] for name in plan.launch.passed if os.environ.get(name)}
    if "HF_TOKEN" in plan.launch.passed and "HF_TOKEN" not in found and (token := redaction.stored_token()):
        found["HF_TOKEN"] = token
    return found


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


def _refuse_fatal(problems: tuple[Problem, ...], dry_run: bool) -> tuple[Problem, ...]:
    """Refuse the run for what is fatal, a dry run not for what is in the way of a submission alone."""
    if any(problem.fatal and not (dry_run and problem.submission) for problem in problems):
        raise PreflightError(problems)
    return problems


def _refuse_secrets(files: tuple[TextFile, ...]) -> None:
    """Look for the values of secrets in what is about to be written, however they came there."""
    secrets = redaction.known_secrets()
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


def _check_run_directory(prepared: Prepared) -> JobState | None:
    return rundir.check(
        prepared.plan,
        prepared.plugins.query,
        clean=_wants_clean(prepared),
        resume=prepared.request.resume or prepared.plan.resolved.resume,
    )
