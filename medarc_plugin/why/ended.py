"""Why a run ended: who failed first, what it said, what SLURM says, and the known failure behind it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from medarc_plugin import failures
from medarc_plugin.process import show
from medarc_plugin.slurm import jobs
from medarc_plugin.standing import (
    BY_ITSELF,
    FORGOTTEN,
    LOST,
    NEVER_SATISFIED,
    SLURM,
    UNKNOWN,
    accounted,
    backend_of,
    cluster_of,
)
from medarc_plugin.why import evidence
from medarc_plugin.why.answer import Answer, headline

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from medarc_plugin.failures import Found
    from medarc_plugin.records import AttemptRecord
    from medarc_plugin.standing import RunStatus
    from medarc_plugin.why.evidence import FirstFailure, Said

SURE_STATES = frozenset(
    {"OUT_OF_MEMORY", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "TIMEOUT", "PREEMPTED", "CANCELLED"}
)
"""States by which SLURM itself says why."""

SURE_REASONS = frozenset(
    {"time-limit", "preempted", "idle", "fenced", "superseded", "given-up", "cancelled", "asked"}
)
"""Words by which the job itself says why."""

CHECKS_FAILED = "checks-failed"

AROUND = 80
"""Lines before and behind an error that belong to it: chained tracebacks, a message of several lines."""

_FOLLOWS = re.compile(
    r"Connect(?:ion)?Error|Connection ?(?:[Rr]efused|[Rr]eset)|RemoteDisconnected|ServerDisconnected"
    r"|All connection attempts failed|EngineDeadError|Engine ?[Cc]ore|InternalServerError"
    r"|HTTPStatusError: Server error|500 Internal Server Error|ReadTimeout|ReadError|Broken pipe"
    r"|TCPStore|DistNetworkError|DistBackendError|NCCL communicator was aborted"
    r"|exited unexpectedly|stopped unexpectedly"
)
"""Errors of a component that come of another one's end."""

WORDS = {
    "OUT_OF_MEMORY": "the job used more memory than it had asked for",
    "TIMEOUT": "the time limit ended it",
    "DEADLINE": "its deadline came",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not boot",
    "PREEMPTED": "a job of higher priority took its place",
    "CANCELLED": "it was cancelled",
    "FAILED": "its script ended with an error",
    "COMPLETED": "its script ended well",
    "REVOKED": "another cluster of the federation runs it",
}
"""SLURM's states in plain words."""


@dataclass(frozen=True)
class View:
    """What SLURM says of the job's end."""

    state: str
    exit_code: str | None = None
    reason: str | None = None
    user: int | None = None
    dependency: str | None = None

    def __str__(self) -> str:
        if self.reason == NEVER_SATISFIED:
            return ", ".join(filter(None, (self.state, self.reason, self.dependency)))
        words = WORDS.get(self.state) if self.reason != BY_ITSELF else None
        by = f" by {_user(self.user)}" if self.user is not None else ""
        code, _, number = (self.exit_code or "").partition(":")
        parts = [self.state + (f", {words}{by}" if words else by)]
        if number not in {"", "0"}:
            parts.append(f"signal {number}")
        elif code not in {"", "0"}:
            parts.append(f"exit code {code}")
        return ", ".join(parts)

    def document(self) -> dict[str, Any]:
        """The facts for `--json`."""
        return {
            "state": self.state,
            "exit_code": self.exit_code,
            "reason": self.reason,
            "cancelled_by": None if self.user is None else _user(self.user),
        }


@dataclass(frozen=True)
class Verdict:
    """Why an attempt ended.

    Attributes:
        attempt: The attempt; `None` for a job that never came to one.
        first: The component that failed first.
        found: The known failure.
        where: The log that it shows in.
    """

    attempt: AttemptRecord | None
    first: FirstFailure | None
    found: Found | None
    where: Said | None = None

    @property
    def name(self) -> str | None:
        """The failure's name."""
        return self.found.failure.name if self.found else None


def explain(status: RunStatus) -> Answer:
    """Say why a run ended as it did."""
    view = _view(status)
    verdicts = _verdicts(status, view)
    last = verdicts[-1]
    lines = [*_story(status, last), *([f"SLURM: {view}"] if view else [])]
    if status.note:
        lines.append(status.note)
    lines += _cause(status, last)
    lines += _earlier(verdicts)
    hints = _hints(status, last)
    return Answer(
        status, headline(status, _what(status, last)), tuple(lines), hints, _facts(last, view, verdicts)
    )


def _view(status: RunStatus) -> View | None:
    """Ask SLURM how the job ended: its controller, and accounting, which knows who cancelled it."""
    if backend_of(status.run) != SLURM or not (status.job_id or "").isdigit() or status.unanswered:
        return None
    if status.sources.get("state") not in {"squeue", "sacct"}:
        return None
    job_id = status.job_id or ""
    cluster = cluster_of(status.run).with_job(status.cluster)
    known = jobs.detail(cluster, job_id) if status.sources.get("state") == "squeue" else None
    told = accounted(status) if known is None or known.state == "CANCELLED" else None
    return View(
        state=status.state,
        exit_code=known.exit_code if known else told.exit_code if told else None,
        reason=known.reason if known else status.reason if status.reason == BY_ITSELF else None,
        user=told.cancelled_by if told else None,
        dependency=known.dependency if known else None,
    )


def _user(number: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _verdicts(status: RunStatus, view: View | None) -> list[Verdict]:
    """Judge each attempt of this submission; the last one decides."""
    token = status.run.token
    own = [each for each in status.records.attempts if token is None or each.token == token]
    if not own:
        return [_judge(status, None, view, newest=True)]
    return [_judge(status, each, view if each is own[-1] else None, newest=each is own[-1]) for each in own]


def _judge(status: RunStatus, attempt: AttemptRecord | None, view: View | None, *, newest: bool) -> Verdict:
    first = evidence.first_of(status, attempt, newest) if attempt is not None else None
    state = view.state if view else status.state if newest else None
    if state == "CANCELLED" and status.reason == BY_ITSELF:
        state = None
    reason = attempt.reason if attempt is not None else None
    if attempt is None and status.reason == NEVER_SATISFIED:
        return Verdict(None, None, _unmet(view))
    sure = _surely(state, reason, failed=first is not None)
    if sure is not None:
        return Verdict(attempt, first, sure)
    said = evidence.all_said(status, attempt, first)
    found, where = _by_words(attempt, first, said)
    if found is None and attempt is not None and attempt.reason == CHECKS_FAILED:
        found = failures.by_end(None, attempt.reason)
    if found is None and first is not None and not first.error:
        found = failures.by_signal(first.signal)
    if found is None and first is None:
        found = failures.by_end(state, reason)
    if found is None and first is None:
        # Nobody says who failed: what somebody said may be the reason.
        found, where = _anybody(said, consequences=True)
        found = replace(found, likely=True) if found else None
    return Verdict(attempt, first, found, where)


def _unmet(view: View | None) -> Found | None:
    """Name the jobs that a job waited for in vain."""
    found = failures.by_end(None, NEVER_SATISFIED)
    jobs_ = re.findall(r"(\d+)(?:_\S+?)?(?:\+\d+)?\(failed\)", (view.dependency if view else None) or "")
    return replace(found, groups=(("job", jobs_[0]),)) if found is not None and jobs_ else found


def _surely(state: str | None, reason: str | None, *, failed: bool) -> Found | None:
    """What is not to be looked for in logs: SLURM or the job itself says it."""
    if state == "OUT_OF_MEMORY":
        return failures.by_end(state, None)
    if reason in SURE_REASONS and not failed:
        return failures.by_end(None, reason)
    if state in SURE_STATES and not failed and reason in {None, "killed"}:
        return failures.by_end(state, None)
    return None


def _by_words(
    attempt: AttemptRecord | None, first: FirstFailure | None, said: Sequence[Said]
) -> tuple[Found | None, Said | None]:
    """Look for a known failure in what was said, from the surest words to the others'."""
    checks = [
        (text, True) for text in (attempt.row.get("failed") or () if attempt else ()) if isinstance(text, str)
    ]
    if checks and (found := failures.recognise(checks, failures.JOB)):
        return found, None
    if first is None:
        return _anybody([each for each in said if each.whose == failures.JOB], consequences=True)
    nothing: tuple[Found | None, Said | None] = (None, None)
    return next((each for each in _searches(first, said) if each[0] is not None), nothing)


def _searches(first: FirstFailure, said: Sequence[Said]) -> Iterator[tuple[Found | None, Said | None]]:
    """Search what was said, the words of the component that failed first before the others'."""
    error = [(first.error, True)] if first.error else []
    log = next((each for each in said if each.path == first.log), None)
    yield failures.recognise(error, first.whose), log
    own = [each for each in said if each.path == first.log or each.whose == first.whose]
    consequence = failures.recognise(error, first.whose, consequences=True)
    if error and consequence is None and not _FOLLOWS.search(first.error):
        # It said why. The lines around that may say more; what was said long before, and by others, is
        # another matter.
        yield _anybody([_around(first.error, each) for each in own], consequences=False)
        return
    yield _anybody(own, consequences=False)
    yield _anybody([each for each in said if each not in own], consequences=False)
    yield consequence, log
    yield _anybody(said, consequences=True)


def _around(error: str, said: Said) -> Said:
    """What a log says around an error: the rest of its message, and the errors that it came of."""
    places = [place for place, (text, _) in enumerate(said.lines) if error.removesuffix("...") in text]
    lines = said.lines[max(0, places[-1] - AROUND) : places[-1] + AROUND] if places else ()
    return replace(said, lines=lines)


def _anybody(said: Sequence[Said], *, consequences: bool) -> tuple[Found | None, Said | None]:
    for each in said:
        found = failures.recognise(each.lines, each.whose, consequences=consequences)
        if found is not None:
            return found, each
    return None, None


# Words


def _what(status: RunStatus, last: Verdict) -> str:
    attempt = f" in attempt {last.attempt.number}" if last.attempt and last.attempt.number > 1 else ""
    where = f" on {status.node}" if status.node else ""
    if status.state == LOST:
        return "lost: SLURM accepted the job and forgot it, and no record tells of its end"
    if status.state in FORGOTTEN:
        return "unknown: SLURM does not know the job any more, and no record tells of its end"
    if status.state == UNKNOWN:
        return "nobody knows: SLURM does not answer, and no record tells of its end"
    if status.reason == NEVER_SATISFIED:
        return "was ended before it began"
    words = {"CANCELLED": "was cancelled", "TIMEOUT": "came to its time limit", "PREEMPTED": "was preempted"}
    return words.get(status.state, f"failed ({status.state})") + attempt + where


def _checks(last: Verdict) -> list[tuple[str, str]]:
    """The checks that refused the start, each with its way out; older jobs recorded none."""
    row = last.attempt.row if last.attempt is not None and last.attempt.reason == CHECKS_FAILED else {}
    failed = [each for each in row.get("failed") or () if isinstance(each, str)]
    recorded = row.get("hints")
    hints = [each if isinstance(each, str) else "" for each in recorded] if isinstance(recorded, list) else []
    return list(zip_longest(failed, hints[: len(failed)], fillvalue=""))


def _story(status: RunStatus, last: Verdict) -> list[str]:
    first = last.first
    checks = _checks(last)
    if checks:
        submission = status.run.submission
        log = [f"its log: {submission.log}"] if submission is not None else []
        return [*(f"failed check: {'; '.join(text.splitlines())}" for text, _ in checks), *log]
    if first is None and status.reason == NEVER_SATISFIED:
        whose = dict(last.found.groups).get("job") if last.found else None
        return [f"{f'job {whose}' if whose else 'a job'}, which it depended on, did not end well"]
    if first is None:
        reason = status.reason
        return [reason] if reason and reason != status.state else []
    lines = [f"first to end: {first.component}, which {first.how}"]
    if first.error:
        lines.append(f"its error: {first.error}")
    elif first.last:
        lines.append(f"its last line: {first.last}")
    else:
        lines.append("its log says nothing of an error")
    lines.append(f"its log: {first.log}" if first.log else "it has no log")
    return lines


def _cause(status: RunStatus, last: Verdict) -> list[str]:
    found = last.found
    if found is None:
        if status.state in {*FORGOTTEN, UNKNOWN}:
            return []
        return ["no known cause: none of the failures of docs/why.md fits"]
    word = "most likely cause" if found.likely else "known cause"
    if len(_checks(last)) > 1:
        return [f"{word}: {each.failure.title}. {each.cause}" for each in _causes(last)]
    lines = [f"{word}: {found.failure.title}. {found.cause}"]
    shown = last.first.error if last.first else None
    if last.where is not None and found.line not in (shown or ""):
        lines.append(f"it shows in {last.where.path}: {_short(found.line)}")
    return lines


def _causes(last: Verdict) -> list[Found]:
    """The known failures behind several checks, each once."""
    found = [failures.recognise([(text, True)], failures.JOB) for text, _ in _checks(last)]
    known = {each.failure.name: each for each in found if each is not None}
    return list(known.values()) or [each for each in (last.found,) if each is not None]


def _short(text: str, most: int = 300) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def _earlier(verdicts: Sequence[Verdict]) -> list[str]:
    """Tell of the attempts before: how many failed alike, and how the others ended."""
    *before, last = verdicts
    if not before:
        return []
    alike = [each for each in before if last.name is not None and each.name == last.name]
    numbers = [str(each.attempt.number) for each in alike if each.attempt]
    lines = [f"attempt{'s' if len(numbers) > 1 else ''} {_listed(numbers)} ended alike"] if numbers else []
    for each in before:
        if each.attempt is None or each in alike:
            continue
        title = each.found.failure.title if each.found else None
        how = title or each.attempt.failure or each.attempt.reason or "left no record of its end"
        lines.append(f"attempt {each.attempt.number}: {_short(how, 160)}")
    return lines


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _hints(status: RunStatus, last: Verdict) -> tuple[str, ...]:
    hints = list(dict.fromkeys(hint for _, hint in _checks(last) if hint))
    hints = hints or ([last.found.way] if last.found else [])
    if last.found is None or last.found.likely:
        run = str(status.run.run_dir)
        number = ["--attempt", str(last.attempt.number)] if last.attempt else []
        hints.append(f"{show(['medarc_slurm', 'logs', run, *number, '-n', '100'])} shows what was said last")
    if status.state in FORGOTTEN and last.found is None:
        hints.append(f"{show(['medarc_slurm', 'resume', str(status.run.run_dir)])} submits it again")
    return tuple(hints)


def _facts(last: Verdict, view: View | None, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    return {
        "failure": _failure(last),
        "slurm": view.document() if view else None,
        "attempts": [
            {
                "attempt": each.attempt.number,
                "reason": each.attempt.reason,
                "known_failure": each.name,
                "failure": each.attempt.failure,
            }
            for each in verdicts
            if each.attempt
        ],
    }


def _failure(last: Verdict) -> dict[str, Any]:
    empty = dict.fromkeys(("component", "exit_code", "signal", "error", "last_line", "log"))
    found = last.found
    return {
        **(last.first.document() if last.first else empty),
        "known": found.failure.name if found else None,
        "title": found.failure.title if found else None,
        "cause": found.cause if found else None,
        "way": found.way if found else None,
        "likely": found.likely if found else None,
        "shown_in": str(last.where.path) if last.where else None,
        "line": found.line if found else None,
        "checks": [{"text": text, "hint": hint or None} for text, hint in _checks(last)],
    }
