"""Several runs in one call: a line for each, and at the end what stood in the way of some."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from medarc_plugin import launch
from medarc_plugin.cli import entrypoints, output
from medarc_plugin.errors import (
    ConfigRejectedError,
    MedarcError,
    PreflightError,
    SubmissionError,
    UsageError,
)
from medarc_plugin.slurm import gateway

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from medarc_plugin.launch import Prepared
    from medarc_plugin.models import Request

NOT_TRIED = "not submitted, and no files are written: SLURM does not answer"
WHEN_IT_ANSWERS = "`scontrol ping` says when it does; then run the command again for these"

MOST_NAMED = 3
"""Configs that a sentence names."""


def carry_out_all(requests: Sequence[Request]) -> int:
    """Prepare all runs, then write or submit those that nothing stands in the way of.

    Args:
        requests: The runs, from one command line.

    Returns:
        0, or the exit code of the first error.
    """
    first = requests[0]
    if first.backend == "local" and not first.dry_run:
        raise UsageError(
            "--backend local runs in the foreground, and so one config at a time",
            hint="add --dry-run to write all of them, or give one config",
        )
    if first.follow:
        raise UsageError(
            "--follow shows the logs of one run, and these are several",
            hint="leave it out, and `medarc_slurm status --watch RUN...` afterwards",
        )
    added = entrypoints.point_at_sandbox(first.sandbox) if first.sandbox is not None else {}
    entrypoints.warn_of_ignored_variables()
    messages = Messages([_name(request) for request in requests])
    starts = None if first.sandbox is None else partial(entrypoints.start_sandbox, first.sandbox)
    with _bar("resolving", len(requests)) as progress:
        outcomes = launch.prepare_all(requests, progress, ready=starts)
    _say_what_checked(outcomes)
    if any(isinstance(outcome, ConfigRejectedError) for outcome in outcomes):
        entrypoints.warn_of_near_misses(first.arguments)
    silent = False
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, MedarcError):
            messages.failed(index, outcome)
            continue
        if silent:
            messages.failed(index, SubmissionError(NOT_TRIED, hint=WHEN_IT_ANSWERS))
            continue
        messages.heed(index, outcome)
        try:
            if outcome.dry_run:
                _write(outcome, added)
                continue
            _submit(index, outcome, messages)
        except MedarcError as error:
            messages.failed(index, error)
            # It was waited for, for the one; each of the others would wait as long.
            silent = isinstance(error, SubmissionError) and error.silent
    return messages.show(
        "rehearsals" if first.rehearse else "runs",
        "written, nothing is started" if first.dry_run else "submitted",
    )


class Messages:
    """What is to be said of several runs; what is the same for many of them is said once.

    Args:
        names: The configs.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._warnings: dict[str, list[int]] = {}
        self._errors: dict[tuple[str, str | None], list[int]] = {}
        self._bad: set[int] = set()
        self._code = 0

    def warn(self, index: int, text: str) -> None:
        """Note something that stopped nothing."""
        self._warnings.setdefault(text, []).append(index)

    def failed(self, index: int, error: MedarcError) -> None:
        """Note why a run is not written or submitted."""
        self._code = self._code or error.exit_code
        self._bad.add(index)
        if not isinstance(error, PreflightError):
            self._errors.setdefault((error.message, error.hint), []).append(index)
            return
        for problem in error.problems:
            if problem.fatal:
                words = (f"{problem.check}: {problem.message}", problem.hint)
                self._errors.setdefault(words, []).append(index)
            else:
                self.warn(index, output.problem_words(problem))

    def heed(self, index: int, prepared: Prepared) -> None:
        """Note what checks and prime-rl warn of."""
        for problem in prepared.problems:
            self.warn(index, output.problem_words(problem))
        for text in prepared.plan.resolved.warnings:
            self.warn(index, f"prime-rl: {text}")

    def show(self, what: str, done: str) -> int:
        """Print all of it.

        Args:
            what: What they are.
            done: What became of the good ones.

        Returns:
            The exit code.
        """
        for text, indices in self._warnings.items():
            output.warn(f"{self._whose(indices)}: {text}")
        for (message, hint), indices in self._errors.items():
            output.error(f"{self._whose(indices)}: {message}", hint)
        bad = len(self._bad)
        total = len(self._names)
        output.say(f"{total - bad} of {total} {what} {done}" + (f"; {bad} could not be" if bad else ""))
        return self._code

    def _whose(self, indices: Sequence[int]) -> str:
        if len(indices) == len(self._names):
            return f"all {len(indices)} configs"
        named = ", ".join(self._names[index] for index in indices[:MOST_NAMED])
        more = len(indices) - MOST_NAMED
        return f"{named} and {more} more" if more > 0 else named


def _name(request: Request) -> str:
    return request.arguments[1]


def _write(prepared: Prepared, added: Mapping[str, str]) -> None:
    kept = launch.write(prepared, output.say)
    if kept is not None:
        output.say(f"not written: {kept}")
        return
    output.say(f"written {prepared.plan.run_dir}: {output.allocation_words(prepared.plan)}")
    output.fact(gateway.shown_command(prepared.backend.command(prepared.plan), added=added))


def _submit(index: int, prepared: Prepared, messages: Messages) -> None:
    secrets = launch.gather_secrets(prepared.plan)
    for name in prepared.plan.launch.passed:
        if name not in secrets:
            messages.warn(index, f"{name} was not found here, so the job will not have it")
    submission = launch.submit(prepared, lambda text: messages.warn(index, text), secrets, output.say)
    output.fact(f"job     {submission.job_id} {prepared.plan.run_dir}")


def _say_what_checked(outcomes: Sequence[Prepared | MedarcError]) -> None:
    """Say once for each prime-rl who checked the configs, and how many of them earlier."""
    words: dict[str, list[bool]] = {}
    for outcome in outcomes:
        if not isinstance(outcome, MedarcError):
            resolved = outcome.plan.resolved
            words.setdefault(output.checked_words(resolved), []).append(resolved.cached)
    for text, cached in words.items():
        some = f", {sum(cached)} of them from the cache" if any(cached) else ""
        output.say(f"{len(cached)} configs {text}{some}")


@contextmanager
def _bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how far it is, in a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)
