"""Which component of prime-rl failed, and what it said last: read from the ends of its logs."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import formats, log
from .formats import LAUNCHER, MAIN, TRAINER, Format
from .tail import last_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

SIGNALLED = 128
"""A shell and SLURM add it to a signal's number."""

LONGEST = 400
"""Characters of an error's line that are shown."""

_HINTS = {
    "SIGKILL": "the memory of the node or of the job may have run out: see --mem",
    "SIGBUS": "the shared memory or a file system may be full: see df -h /dev/shm",
    "SIGTERM": "something asked it to end",
}

_UNASKED = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")
"""Signals from outside: what a log says of errors before them is another matter."""


@dataclass(frozen=True)
class Failure:
    """How a component failed.

    Attributes:
        component: Its name, `trainer` or `train env server reverse-text`.
        code: Its exit code; `None` when a signal ended it.
        signal: The signal's name; `None` when it ended by itself.
        error: Its last error line; empty when its log has none.
        log: The log that the line is from; `None` when there is none.
    """

    component: str
    code: int | None
    signal: str | None
    error: str
    log: Path | None

    def __str__(self) -> str:
        how = f"ended with exit code {self.code}"
        if self.signal is not None:
            hint = _HINTS.get(self.signal)
            how = f"was killed by {self.signal}" + (f" ({hint})" if hint else "")
        said = (
            f": {self.error.rstrip('.')}" if self.error else ", and its log says nothing" if self.log else ""
        )
        where = f"; its log: {self.log}" if self.log else "; it has no log"
        return f"{self.component} {how}{said}{where}"


def read_line(line: str, form: Format = MAIN) -> tuple[str, int] | None:
    """Read the launcher's own word that a component failed.

    Args:
        line: A line of what the launcher prints.
        form: How this prime-rl words things.

    Returns:
        The component and its exit code, negative for a signal; `None` for any other line.
    """
    said = formats.read_line(line)
    found = form.failed.fullmatch(said.message.strip())
    # Anybody may print such words; the launcher logs them as an error.
    if found is None or said.level != "ERROR":
        return None
    return _component(found["component"], form), int(found["code"])


def _component(name: str, form: Format) -> str:
    """Name a component one way, however the launcher does."""
    name = name[0].lower() + name[1:]
    found = form.env_server.fullmatch(name)
    if found is None:
        return name.lower()
    split, own = found["split"] or found["s"], found["name"] or found["n"]
    return formats.ENV_SERVER.format(split=split, name=own)


def describe(
    run_dir: Path,
    component: str,
    code: int,
    form: Format = MAIN,
    logs_elsewhere: Mapping[str, Path] | None = None,
    redact: Callable[[str], str] = str,
) -> Failure:
    """Find what a component said last.

    Args:
        run_dir: The run directory.
        component: As `read_line` returned it, or `formats.LAUNCHER`.
        code: Its exit code, negative for a signal, or 128 more than the signal's number.
        form: How this prime-rl words things.
        logs_elsewhere: Logs of components that do not lie among prime-rl's.
        redact: Blanks secrets out; called before anything is shortened.
    """
    # The link moves on with the next attempt.
    logs = (run_dir / form.logs).resolve()
    path = (logs_elsewhere or {}).get(component)
    if path is None or not path.is_file():
        path = _job_log(run_dir) if component == LAUNCHER else _log(logs, component, form)
    lines = _own_lines(path, component)
    name = _signal(code)
    if component == TRAINER:
        root = _root_cause(lines)
        if root is not None:
            code, rank = root
            name = _signal(code)
            path, lines = _rank_lines(logs, form.ranks.format(rank=rank), path, lines)
    return Failure(
        component=component,
        code=None if name else code,
        signal=name,
        error=_last_error([redact(line) for line in lines], from_outside=name in _UNASKED),
        log=path,
    )


def _signal(code: int) -> str | None:
    """The signal that an exit code stands for."""
    number = -code if code < 0 else code - SIGNALLED
    try:
        return signal.Signals(number).name
    except ValueError:
        return None


# Where a component's words are


def _log(logs: Path, component: str, form: Format) -> Path | None:
    name = form.log.get(component)
    if name is not None:
        path = logs / name
        return path if path.is_file() else None
    found = form.env_server.fullmatch(component)
    if found is None:
        return None
    split, own = found["split"] or found["s"], found["name"] or found["n"]
    path = logs / form.env_log.format(split=split, name=own)
    if path.is_file():
        return path
    # The launcher writes names in lower case.
    wanted = path.name.lower()
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    return next((other for other in sorted(beside) if other.name.lower() == wanted), None)


def _job_log(run_dir: Path) -> Path | None:
    """The newest job's log, which the launcher prints into."""
    dated = [(path.stat().st_mtime, path) for path in run_dir.glob("job_*.log") if path.is_file()]
    return max(dated)[1] if dated else None


def _own_lines(path: Path | None, component: str) -> list[str]:
    """The end of a log; of the job's, what was printed since prime-rl was started the last time."""
    lines = [] if path is None else last_lines(path)
    if component != LAUNCHER:
        return lines
    starts = [index for index, line in enumerate(lines) if line.startswith(f"{log.PREFIX}starting ")]
    lines = lines[starts[-1] + 1 :] if starts else lines
    return [line for line in lines if not line.startswith(log.PREFIX)]


# torchrun names the process of the trainer that failed first, and ends the others
# (torch/distributed/elastic/multiprocessing/errors/__init__.py).
_ROOT = "Root Cause (first observed failure):"
_RANK = re.compile(r" +rank +: \d+ \(local_rank: (\d+)\)")
_EXIT = re.compile(r" +exitcode +: (-?\d+)")
_TORCHRUN = re.compile(r"torch/distributed/elastic/.*(?:closing signal|failed \(exitcode)")


def _root_cause(lines: Sequence[str]) -> tuple[int, int] | None:
    """Exit code and local rank of the process that failed first, by torchrun's summary."""
    texts = [formats.read_line(line).message for line in lines]
    starts = [index for index, text in enumerate(texts) if text.strip() == _ROOT]
    if not starts:
        return None
    below = texts[starts[-1] : starts[-1] + 10]
    rank = next(filter(None, map(_RANK.match, below)), None)
    code = next(filter(None, map(_EXIT.match, below)), None)
    return (int(code[1]), int(rank[1])) if code and rank else None


def _rank_lines(
    logs: Path, pattern: str, path: Path | None, lines: list[str]
) -> tuple[Path | None, list[str]]:
    """What a process of the trainer printed itself: the trainer's log may hold the first one's alone."""
    own = []
    for name in ("stderr.log", "stdout.log"):
        newest = max(logs.glob(f"{pattern}/{name}"), default=None)
        if newest is not None:
            own.append((newest, last_lines(newest)))
    telling = [(its, said) for its, said in own if any(_errors(said))]
    filled = [(its, said) for its, said in own if any(map(str.strip, said))]
    for its, said in (*telling, *reversed(filled)):
        return its, said
    summary = next((index for index, line in enumerate(lines) if _TORCHRUN.search(line)), None)
    return path, lines[:summary]


# What an error looks like

_TRACEBACK = "Traceback (most recent call last):"
_EXCEPTION = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:: .*|:? *)")
_GROUP = re.compile(r"^\s*(?:\| ?)+|^\s*\+-+.*$")

# Errors that tell of another one, and what torchrun, vLLM and a shutdown say on top of it.
_ECHO = re.compile(
    r"ChildFailedError|SignalException|Engine core initialization failed|EngineDeadError|EngineCore .*died"
    r"|^(?:asyncio\.exceptions\.)?CancelledError|^KeyboardInterrupt|^SystemExit|RuntimeError: cancelled"
    r"|WorkerProc initialization failed|remote process exited"
)

# What ends a process without a traceback: kernel, driver, C++ libraries, the interpreter, a shell.
_PLAIN = re.compile(
    r"out of memory|OutOfMemoryError|oom[-_ ]kill|^Killed$|Address already in use|EADDRINUSE"
    r"|No space left on device|Disk quota exceeded|Fatal Python error|Segmentation fault|Bus error"
    r"|terminate called after|what\(\):|Aborted \(core dumped\)|NCCL (?:error|WARN)|ncclUnhandled|ncclSystem"
    r"|watchdog .*(?:timeout|timed out|stuck)|CUDA error|Xid|command not found|No module named"
    r"|cannot open shared object file|^\S*[Ee]rror: |assertion .*failed",
    re.IGNORECASE,
)
_BAD_LEVELS = ("ERROR", "CRITICAL", "FATAL")


def _last_error(lines: Sequence[str], *, from_outside: bool) -> str:
    """The line that says best why a process ended.

    Args:
        lines: The end of its log.
        from_outside: Whether it was ended, so that it cannot say why.
    """
    if not from_outside:
        found = list(_errors(lines))
        for rank in sorted({rank for rank, _ in found}):
            return _short([text for its, text in found if its == rank][-1])
    texts = [formats.read_line(line).message.strip() for line in lines]
    if from_outside:
        memory = [text for text in texts if re.search(r"oom[-_ ]kill|^Killed$", text, re.IGNORECASE)]
        texts = memory or texts
    last = next((text for text in reversed(texts) if _says_something(text)), "")
    return f"last line: {_short(last)}" if last else ""


def _errors(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Every error in a log, each with how good a cause it is: 0 is best."""
    inside = False
    for line in _unfolded(lines):
        text = _GROUP.sub("", line.message)
        if text.strip().endswith(_TRACEBACK):
            inside = True
            continue
        if inside:
            # Frames are indented; loguru marks one with > and leaves lines blank between them.
            if not text.strip() or text[0] in " >│└├":
                continue
            inside = False
            if _EXCEPTION.fullmatch(text):
                yield (2 if _ECHO.search(text) else 0), text
                continue
        grade = _grade(line.level, text)
        if grade is not None:
            yield grade, text


def _grade(level: str, text: str) -> int | None:
    """How good a cause a line is that no traceback ends in; `None` for one that is no error."""
    bad = level in _BAD_LEVELS
    if _ECHO.search(text):
        return 3 if bad else None
    if _PLAIN.search(text) and (bad or not level):
        return 0
    return 1 if bad else None


def _unfolded(lines: Iterable[str]) -> Iterator[formats.Line]:
    """The lines, with the tracebacks that JSON lines carry put behind them."""
    for text in lines:
        line = formats.read_line(text)
        yield line
        for below in line.trace.splitlines():
            yield formats.Line("", below)


def _says_something(text: str) -> bool:
    return sum(character.isalpha() for character in text) > 2  # noqa: PLR2004 - not a frame of ===


def _short(text: str) -> str:
    text = "".join(character if character.isprintable() else " " for character in text).strip()
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
