"""What is printed: facts on standard output, narration on standard error."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from medarc_plugin import json_text
from medarc_plugin.errors import EndedError, MedarcError, PreflightError
from medarc_plugin.signals import Stopped, handling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from medarc_plugin.launch import Prepared
    from medarc_plugin.models import JobPlan, Problem, Resolved, Submission
    from medarc_plugin.profiles import Settled

INTERRUPTED = 130
SIGNALLED = 128
"""And the signal's number, as a shell reports a command that a signal ended."""


LOST = 1
"""Exit code of a command that did its work and could not say so on standard output."""

_lost: list[OSError] = []
"""Why facts were lost; the first counts."""


_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_BUT_COLOURS = re.compile("(?P<colour>\x1b\\[[0-9;]*m)|" + _CONTROLS.pattern)


def shown(text: str, *, coloured: bool = False) -> str:
    """Write out what a terminal would obey: names, reasons and logs are others' words.

    Args:
        text: The text; its lines and tabs stay.
        coloured: Leave its colours.
    """
    controls = _BUT_COLOURS if coloured else _CONTROLS
    return controls.sub(lambda found: _written_out(found[0]), text)


def _written_out(found: str) -> str:
    return found if len(found) > 1 else f"\\x{ord(found):02x}"


def say(text: str = "", *, coloured: bool = False) -> None:
    """Print narration; where that cannot be, nobody reads it."""
    try:
        sys.stderr.write(f"{shown(text, coloured=coloured)}\n")
        sys.stderr.flush()
    except OSError:
        _silence(sys.stderr)


def fact(text: str, *, coloured: bool = False) -> None:
    """Print what a script may read. Where standard output takes it no more, it goes to the error stream.

    A reader that went away (`| head -1`) has read what it wanted.
    """
    if _lost or not _takes(f"{shown(text, coloured=coloured)}\n"):
        say(text, coloured=coloured)


def document(value: Mapping[str, Any], indent: int | None = 2) -> None:
    """Print a JSON document, which is one whatever it holds and whatever the stream's encoding is."""
    encoding = (sys.stdout.encoding or "ascii").lower().replace("_", "-")
    fact(json_text.write(value, indent=indent, ascii_only=encoding not in {"utf-8", "utf8"}))


def _silence(stream: TextIO) -> None:
    """Leave nothing to be flushed at exit, where it would raise again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextlib.contextmanager
def unbroken() -> Iterator[None]:
    """Let others print to standard output, under the same rule."""
    try:
        yield
        sys.stdout.flush()
    except OSError:
        _silence(sys.stdout)


def warn(text: str) -> None:
    """Print something that does not stop the command."""
    say(f"{_painted('warning:', '33')} {shown(text)}", coloured=True)


def error(text: str, hint: str | None = None) -> None:
    """Print what stopped something, and the way out."""
    say(f"{_painted('error:', '31')} {shown(text)}", coloured=True)
    _say_hint(hint)


def _say_hint(hint: str | None) -> None:
    if hint:
        say(f"{_painted('hint:', '36')} {shown(hint)}", coloured=True)


def guarded(command: Callable[[], int]) -> int:
    """Run a command and print what it raises on purpose, once.

    Returns:
        The exit code.
    """
    _lost.clear()
    _prepare_streams()
    if not _is_open(sys.stdout):
        error("standard output is closed, where a job's id would go", "`> /dev/null` does without it")
        return MedarcError.exit_code
    try:
        os.getcwd()  # noqa: PTH109 - asks the kernel, and nothing else
    except OSError:
        error("the current directory does not exist any more")
        return MedarcError.exit_code
    try:
        with handling(_raise_ended):
            code = command()
    except MedarcError as raised:
        _show_error(raised)
        code = raised.exit_code
    except Stopped as stopped:
        how = "interrupted" if stopped.number == signal.SIGINT else f"ended by {_name_of(stopped.number)}"
        say(f"{how}: {stopped.message}")
        _say_hint(stopped.hint)
        code = SIGNALLED + stopped.number
    except KeyboardInterrupt:
        say("interrupted")
        code = INTERRUPTED
    except EndedError as ended:
        say(f"ended by {ended}")
        code = SIGNALLED + ended.number
    except OSError as raised:
        # A library that prints for us raises what printing does.
        if raised.filename is not None or _takes("\n"):
            raise
        code = 0
    return code or _say_what_was_lost()


def _name_of(number: int) -> str:
    return signal.Signals(number).name


def _show_error(raised: MedarcError) -> None:
    """Print an error; what checks found is shown one by one."""
    if not isinstance(raised, PreflightError):
        error(raised.message, raised.hint)
        return
    for problem in raised.problems:
        if problem.fatal:
            error(f"{problem.check}: {problem.message}", problem.hint)
        else:
            warn(problem_words(problem))


def _takes(text: str) -> bool:
    """Print to standard output, and say whether that, and all before it, was taken."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _silence(sys.stdout)
    except OSError as lost:
        _lost.append(lost)
        _silence(sys.stdout)
    return not _lost


def stream(text: str) -> bool:
    """Print part of something that is read as it comes, as a log is.

    Returns:
        Whether anybody reads it still.

    Raises:
        OutputLostError: Standard output takes it no more.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _silence(sys.stdout)
        return False
    except OSError as lost:
        _silence(sys.stdout)
        raise OutputLostError(f"standard output cannot be written: {lost.strerror}") from None
    return True


class OutputLostError(MedarcError):
    """Standard output takes no more of what a command is there to show."""

    exit_code = LOST


def _say_what_was_lost() -> int:
    if _takes(""):
        return 0
    error(
        f"standard output cannot be written: {_lost[0].strerror}",
        "the command did its work; the lines that it could not print there stand above",
    )
    return LOST


def _raise_ended(number: int, _: object) -> NoReturn:
    """End in order: without this, what was started and temporary files would stay."""
    raise EndedError(number)


def _prepare_streams() -> None:
    """See that there are three, and that they print every name: as an escape where a terminal cannot."""
    # Where one is closed, the next file that is opened would take its place.
    handle = os.open(os.devnull, os.O_RDWR)
    while handle <= _LAST_STREAM:
        handle = os.open(os.devnull, os.O_RDWR)
    os.close(handle)
    if not _is_open(sys.stderr):
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - for good
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _is_open(stream: TextIO | None) -> bool:
    """Whether Python found a stream open at its start."""
    return stream is not None


_LAST_STREAM = 2


def show_plan(prepared: Prepared) -> None:
    """Describe what would be, or is about to be, submitted."""
    plan, resolved, allocation = prepared.plan, prepared.plan.resolved, prepared.plan.allocation
    sources = prepared.settled.sources
    what = f"rehearsal of {resolved.entrypoint}" if plan.launch.rehearse else resolved.entrypoint
    rows = [("run", f"{what} with backend {plan.backend}, job name {plan.name!r}")]
    rows += _gpu_rows(plan)
    if plan.backend != "local":
        from medarc_plugin.preflight.cluster import defaults_of

        gets = defaults_of(plan)
        rows += [
            ("CPUs", f"{allocation.cpus} ({prepared.settled.options.cpus_per_gpu} for each GPU)"),
            ("memory", _memory_words(plan) or _default("the cluster's", gets.get("memory"), "--mem-per-gpu")),
            ("time limit", _limit_words(plan) or _default("the partition's", gets.get("time"), "--time")),
        ]
        if plan.launch.rehearse:
            rows.append(
                ("launches", "nothing: the job makes all checks, and says whether the run would start")
            )
        elif resolved.entrypoint != "inference":
            rows.append(("survives", _survival_words(prepared)))
        for name in ("partition", "account", "qos"):
            value = getattr(allocation, name)
            words = f"{value} ({sources[name]})" if value else _default("the cluster's", gets.get(name))
            rows.append((name, words))
        rows += _cluster_rows(prepared)
    rows += _replaced_rows(prepared.settled)
    rows.append(("config", _config_words(prepared)))
    if plan.launch.passed:
        rows.append(("passed on", _passed_words(plan)))
    rows.append(("run dir", str(plan.run_dir)))
    listed = [file.path for file in prepared.files if plan.files.job not in file.path.parents]
    rows += [
        ("files" if index == 0 else "", str(path.relative_to(plan.run_dir)))
        for index, path in enumerate([*listed, plan.files.job])
    ]
    for name, value in rows:
        say(f"{_painted(name.ljust(11), '1')} {shown(value)}", coloured=True)
    for problem in prepared.problems:
        warn(problem_words(problem))
    for text in resolved.warnings:
        warn(f"prime-rl: {text}")


def _default(whose: str, value: str | None, option: str = "") -> str:
    """Say that nothing was asked for, what the job gets where that is known, and which option asks."""
    sets = f"{option} sets it" if option else ""
    if value is None:
        return f"{whose} default" + (f" ({sets})" if sets else "")
    return f"{value} ({whose} default{'; ' if sets else ''}{sets})"


def problem_words(problem: Problem) -> str:
    """Say what a check found, with the way out behind it; a fatal one goes without in a dry run alone."""
    refuses = "a submission would be refused: " if problem.fatal else ""
    return f"{refuses}{problem.check}: {problem.message}" + (f"; {problem.hint}" if problem.hint else "")


def _cluster_rows(prepared: Prepared) -> list[tuple[str, str]]:
    """Say who was asked about the job, what could not be asked, and when it would start."""
    from medarc_plugin.preflight.cluster import free_now, unanswered

    facts, trial = prepared.plan.cluster, prepared.trial
    if facts is None:
        return []
    name = facts.settings.name if facts.settings else None
    asked = [] if facts.silent else [f"cluster {name!r} was asked" if name else "the cluster was asked"]
    skipped = unanswered(prepared.plan)
    rows = [("preflight", "; ".join([*asked, *([f"not looked at: {skipped}"] if skipped else [])]))]
    if trial is not None and trial.start is not None:
        start = start_words(trial.start)
        # Behind a job that may not start yet SLURM puts this one too, and starts it at once all the same.
        options = prepared.plan.options
        waits = options.begin or options.dependency
        free = None if start == NOW or waits else free_now(prepared.plan)
        rows.append(
            ("starts", f"{start} on {trial.node}, as SLURM estimates" + (f"; {free}" if free else ""))
        )
    elif trial is not None and trial.silence is not None:
        rows.append(("starts", f"unknown: sbatch --test-only: {trial.silence}"))
    return rows


def _replaced_rows(settled: Settled) -> list[tuple[str, str]]:
    """Say which lists of profiles and tables do not hold, since another one does."""
    from medarc_plugin.options import flag
    from medarc_plugin.profiles import COMMAND_LINE

    words = [
        # What stands behind a variable's name may be a secret.
        f"{flag(one.name)} of {'the ' if settled.sources[one.name] == COMMAND_LINE else ''}"
        f"{settled.sources[one.name]}, in place of "
        + ", ".join(item.partition("=")[0] if one.name == "env" else item.strip() for item in one.values)
        + f" ({one.source})"
        for one in settled.replaced
    ]
    return [("replaces" if index == 0 else "", text.replace("\n", "; ")) for index, text in enumerate(words)]


NOW, NOW_SECONDS = "now", 60


def start_words(start: str, now: datetime | None = None) -> str:
    """Write when a job would start: `now`, or the time of day with how long that is.

    Args:
        start: In the cluster's local time, `2026-11-27T11:48:27`.
        now: This moment; for tests.
    """
    try:
        at = datetime.fromisoformat(start)
    except ValueError:
        return start
    seconds = (at - (now or datetime.now())).total_seconds()  # noqa: DTZ005 - so is SLURM's, local
    if seconds < NOW_SECONDS:
        return NOW
    days, hours, minutes = int(seconds // 86400), int(seconds // 3600), round(seconds / 60)
    wait = f"{days} days" if days > 1 else f"{hours} h" if hours > 1 else f"{minutes} min"
    return f"{at:%Y-%m-%d %H:%M} (in {wait})"


def show_submission(plan: JobPlan, submission: Submission) -> None:
    """Print the job's id and the paths, a labelled line each."""
    cluster = f" on {submission.cluster}" if submission.cluster else ""
    rehearsal = "the rehearsal of " if plan.launch.rehearse else ""
    say(f"submitted {rehearsal}{plan.name!r}{cluster}")
    for name, value in (
        ("job", submission.job_id),
        ("run", plan.run_dir),
        ("script", submission.script),
        ("log", submission.log),
    ):
        fact(f"{name:<7} {value}")


def _gpu_rows(plan: JobPlan) -> list[tuple[str, str]]:
    gpus, allocation = plan.resolved.gpus, plan.allocation
    kind = f" of type {allocation.gpu_type}" if allocation.gpu_type else ""
    rows = [("GPUs", f"{gpus.allocated}{kind}, on one node")]
    if gpus.shared:
        rows.append(("", "inference and trainer: the same GPU"))
        return rows + _memory_rows(plan)
    first = 0
    # prime-rl's launcher takes the visible GPUs in this order.
    for who, count in (("inference", gpus.infer), ("trainer", gpus.train)):
        if count:
            last = first + count - 1
            which = f"GPU {first}" if first == last else f"GPUs {first}-{last}"
            rows.append(("", f"{who}: {which} of the allocation"))
            first += count
    return rows


def _memory_rows(plan: JobPlan) -> list[tuple[str, str]]:
    """Say how the memory of a shared GPU is divided, and why."""
    needs, share = plan.resolved.memory, plan.resolved.memory_share
    if needs is None or needs.trainer is None or needs.inference is None:
        return [("GPU memory", f"vLLM's share is {float(share or 0):g} of it")]
    if needs.gpu_mib is None:
        words = "the job works vLLM's share out for the GPU that it gets (--gpu-memory shows it here)"
        if needs.fixed:
            words = f"vLLM's share is {share:g}, as the config says; the job checks it for its GPU"
    else:
        size, source = needs.gpu_mib / 1024, needs.gpu_source + (", config" if needs.fixed else "")
        words = f"{size:.1f} GiB: vLLM's share is {share:g}, {size * float(share or 0):.1f} GiB ({source})"
    trainer, inference = dict(needs.trainer), dict(needs.inference)
    if needs.offloaded:
        trainer["optimizer (kept in CPU memory)"] = trainer.pop("optimizer")
    return [
        ("GPU memory", words),
        ("", f"trainer about {_gib(needs.trainer_bytes)} GiB at its peak: {_listed(trainer)}"),
        ("", f"vLLM at least {_gib(needs.inference_bytes)} GiB: {_listed(inference)}"),
        ("", f"beside both {_gib(needs.reserve_bytes)} GiB, for CUDA and for what cannot be foreseen"),
    ]


def _listed(parts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {_gib(size)}" for name, size in parts.items())


def _gib(size: int | None) -> str:
    return f"{(size or 0) / 2**30:.1f}"


def _passed_words(plan: JobPlan) -> str:
    """Say which variables are passed on, and which are not since they are not here."""
    from medarc_plugin import launch

    here = launch.gather_secrets(plan)
    found = [name for name in plan.launch.passed if name in here]
    missing = [name for name in plan.launch.passed if name not in here]
    words = f"{', '.join(found)} (values stay out of all files)" if found else "nothing"
    return words + (f"; not found here: {', '.join(missing)}" if missing else "")


def allocation_words(plan: JobPlan) -> str:
    """Say in a few words what is asked of SLURM."""
    gpus = plan.allocation.gpus
    words = f"{gpus} GPU{'' if gpus == 1 else 's'}"
    if plan.backend == "local":
        return words
    limit = _limit_words(plan)
    return f"{words}, time limit {limit}" if limit else f"{words}, the partition's time limit"


def _limit_words(plan: JobPlan) -> str | None:
    """Write the time limit that is asked for; a bare number is minutes."""
    limit = plan.allocation.time
    return f"{limit} min" if limit and limit.isdigit() else limit


def _memory_words(plan: JobPlan) -> str | None:
    """Write the memory that is asked for, as everywhere."""
    from medarc_plugin.options import megabytes
    from medarc_plugin.preflight.findings import memory_words

    asked = plan.allocation.memory
    if not asked:
        return None
    return memory_words(megabytes(asked)) if megabytes(asked) else "all of the node's"


def _survival_words(prepared: Prepared) -> str:
    """Say what an end that is not the run's own comes to."""
    from medarc_plugin.options import warning_seconds

    options, resolved = prepared.settled.options, prepared.plan.resolved
    if not resolved.saves:
        saved = "no checkpoints"
    elif resolved.checkpoint_interval is None:
        saved = "a checkpoint at the end"
    else:
        saved = f"a checkpoint every {resolved.checkpoint_interval} steps"
    if not options.requeue:
        return f"not requeued; {saved}"
    seconds = warning_seconds(options)
    warned = (
        f"warned {seconds} s ahead of its time limit" if seconds else "no warning ahead of its time limit"
    )
    return f"requeued up to {options.max_requeues} times, {warned}; {saved}"


def _config_words(prepared: Prepared) -> str:
    resolved = prepared.plan.resolved
    return checked_words(resolved) + (", from the cache" if resolved.cached else "")


def checked_words(resolved: Resolved) -> str:
    """Say who checked a config."""
    if resolved.host is None:
        return "unchecked (no prime-rl here)"
    where = resolved.host.directory or resolved.host.python
    commit = f", commit {resolved.host.commit[:9]}" if resolved.host.commit else ""
    dirty = " with local changes" if resolved.host.dirty else ""
    state = "checked by prime-rl" if resolved.checked else "unchecked, for prime-rl"
    return f"{state} at {where}{commit}{dirty} ({resolved.host.source})"


def _painted(text: str, code: str) -> str:
    return painted(text, code, sys.stderr)


def painted(text: str, code: str, stream: TextIO) -> str:
    """Colour a text, where its reader sees colours and wants them (https://no-color.org).

    Args:
        text: The text.
        code: The number of an SGR sequence, `31`.
        stream: Where it is printed.
    """
    if os.environ.get("NO_COLOR") or not stream.isatty() or os.environ.get("TERM") == "dumb":
        return text
    return f"\033[{code}m{text}\033[0m"
