"""Commands as argument lists, run once, in one place.

The only module on the submit side that imports `subprocess`. A command is a list from birth to exec;
it becomes a string only to be shown, and then through `show`.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Completed:
    """What a finished command left behind.

    Attributes:
        argv: The command, as a list.
        returncode: Its exit code; 127 when the program was not found, 124 when it timed out, negative when a
            signal ended it.
        stdout: What it printed, decoded as UTF-8 with replacement.
        stderr: The same for its error stream.
    """

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        """Whether the command ended with exit code 0."""
        return self.returncode == 0

    @property
    def killed_by(self) -> str | None:
        """The signal that ended it, also where a shell in between says so."""
        number = -self.returncode if self.returncode < 0 else self.returncode - SIGNALLED
        try:
            return signal.Signals(number).name
        except ValueError:
            return None

    @property
    def ending(self) -> str:
        """How it ended, in words that go on behind its name."""
        name = self.killed_by
        if name is None:
            return f"ended with exit code {self.returncode}"
        return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")

    def describe(self) -> str:
        """Say what was run, how it ended and what it wrote, for an error message."""
        words = (self.stderr.strip() or self.stdout.strip()) or "(it printed nothing)"
        if len(words) > MOST_SHOWN:
            words = "..." + words[-MOST_SHOWN:]
        return f"`{show(self.argv)}` {self.ending}:\n{words}"


MOST_SHOWN = 4000
"""Characters of a command's output that an error message shows, from its end."""

NOT_FOUND = 127
TIMED_OUT = 124
SIGNALLED = 128
"""A shell adds it to a signal's number."""


def show(argv: Sequence[str]) -> str:
    """Quote a command for display, so that it can be pasted into a shell."""
    return shlex.join(argv)


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    timeout: float | None = None,
) -> Completed:
    """Run a command to its end and return what it left behind; never raises for its failure.

    Args:
        argv: Program and arguments.
        env: The whole environment; `None` passes on this process's own.
        cwd: Directory to run in.
        stdin: Text for its standard input; `None` gives it an empty one.
        timeout: Seconds until it is killed.

    Returns:
        The exit code and both streams. A missing or unrunnable program gives 127, a time-out 124, each
        with the reason in `stderr`.
    """
    argv = tuple(argv)
    try:
        done = subprocess.run(
            argv,
            check=False,
            env=None if env is None else dict(env),
            cwd=cwd,
            input=None if stdin is None else stdin.encode(),
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as error:
        return Completed(
            argv,
            TIMED_OUT,
            _text(error.stdout),
            f"no answer within {timeout:g} s\n{_text(error.stderr)}".strip(),
        )
    except OSError as error:
        return Completed(argv, NOT_FOUND, "", f"{argv[0]}: {error.strerror or error}")
    return Completed(argv, done.returncode, _text(done.stdout), _text(done.stderr))


def run_attached(
    argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> int:
    """Run a command on this process's own terminal and return its exit code.

    Returns:
        The exit code as a shell reports it: 128 plus the signal for a command that a signal ended.
    """
    with subprocess.Popen(argv, env=None if env is None else dict(env), cwd=cwd) as child:
        while True:
            try:
                code = child.wait()
            except KeyboardInterrupt:
                # The terminal sent the interrupt to the child too; it decides how to end.
                continue
            return code if code >= 0 else SIGNALLED - code


def _text(data: bytes | str | None) -> str:
    if data is None:
        return ""
    return data if isinstance(data, str) else data.decode("utf-8", errors="replace")
