"""Commands as argument lists, run once, in one place.

The only module on the submit side that imports `subprocess`. A command is a list from birth to exec;
it becomes a string only to be shown, and then through `show`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from medarc_plugin.signals import deferred, handling

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
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
        started: Whether there was a program to run at all.
    """

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    started: bool = True

    @property
    def ok(self) -> bool:
        """Whether the command ended with exit code 0."""
        return self.returncode == 0

    def describe(self) -> str:
        """Say what was run, how it ended and what it wrote, for an error message."""
        words = (self.stderr.strip() or self.stdout.strip()) or "(it printed nothing)"
        if len(words) > MOST_SHOWN:
            words = "..." + words[-MOST_SHOWN:]
        return f"`{show(self.argv)}` {ending_of(self.returncode)}:\n{words}"


MOST_SHOWN = 4000
"""Characters of a command's output that an error message shows, from its end."""

NOT_FOUND = 127
TIMED_OUT = 124
SIGNALLED = 128
"""A shell adds it to a signal's number."""


def killed_by(code: int) -> str | None:
    """Name the signal that an exit code stands for, also where a shell in between says so.

    Args:
        code: The exit code, negative for a signal.
    """
    try:
        return signal.Signals(-code if code < 0 else code - SIGNALLED).name
    except ValueError:
        return None


def ending_of(code: int) -> str:
    """Say how a command ended, in words that go on behind its name.

    Args:
        code: The exit code, negative for a signal.
    """
    name = killed_by(code)
    if name is None:
        return f"ended with exit code {code}" if code >= 0 else f"was killed by signal {-code}"
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


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
        return Completed(argv, NOT_FOUND, "", f"{argv[0]}: {error.strerror or error}", started=False)
    return Completed(argv, done.returncode, _text(done.stdout), _text(done.stderr))


def run_apart(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    news: Callable[[], object] | None = None,
    stop: Callable[[], bool] | None = None,
    keep: Sequence[int] = (),
) -> Completed:
    """Run a command in a session of its own, which ends whole with it; never raises for its failure.

    Whatever it starts and leaves behind is killed when it ends, when it takes too long, when a signal ends
    the wait, and when this process dies. Signals of the terminal do not reach it.

    Args:
        argv: Program and arguments.
        env: The whole environment; `None` passes on this process's own.
        timeout: Seconds without news until it is killed.
        news: Asked often meanwhile; what it returns is news when it is another than before.
        stop: Asked often meanwhile whether it is to be killed now.
        keep: Descriptors that it inherits.

    Returns:
        As `run`; of each stream the last 64 MiB. One that was stopped gives 124 too.
    """
    argv = tuple(argv)
    # Files, since the end of a pipe comes only when all who hold it have ended.
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        try:
            session = _Session(argv, env, output, errors, keep)
        except OSError as error:
            return Completed(argv, NOT_FOUND, "", f"{argv[0]}: {error.strerror or error}", started=False)
        try:
            why = session.wait(timeout, news, stop)
        finally:
            code = session.end()
        printed, complained = _end_of(output), _end_of(errors)
    if not why:
        return Completed(argv, code, printed, complained)
    return Completed(argv, TIMED_OUT, printed, f"{why}\n{complained}".strip())


class _Session:
    """A command as the leader of a session, tied to this process.

    Args:
        argv: The command.
        env: Its environment; `None` for this process's own.
        output: Where it prints.
        errors: Where it complains.
        keep: Descriptors that it inherits.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str] | None,
        output: IO[bytes],
        errors: IO[bytes],
        keep: Sequence[int] = (),
    ) -> None:
        reader, self._writer = os.pipe()
        try:
            # One that has started and is not tied yet would be left behind.
            with deferred():
                self._leader = subprocess.Popen(
                    argv,
                    env=None if env is None else dict(env),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors,
                    start_new_session=True,
                    pass_fds=(reader, *keep),
                )
                self._tie(reader)
        except BaseException:
            os.close(self._writer)
            raise
        finally:
            os.close(reader)

    def _tie(self, reader: int) -> None:
        """Have the kernel kill the session when the pipe's other end is closed: when this process dies.

        That is fcntl(2)'s signal-driven I/O: of the reader, which the command inherits, the session is the
        owner, and what it is sent when something happens there is SIGKILL.
        """
        fcntl.fcntl(reader, fcntl.F_SETOWN, -self._leader.pid)
        fcntl.fcntl(reader, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(reader, fcntl.F_SETFL, fcntl.fcntl(reader, fcntl.F_GETFL) | os.O_ASYNC)

    def wait(
        self,
        timeout: float | None,
        news: Callable[[], object] | None,
        stop: Callable[[], bool] | None = None,
    ) -> str:
        """Wait until the command ends, and say nothing; or why it was not waited for to its end."""
        last, heard = None, time.monotonic()
        while not self._has_ended():
            if stop is not None and stop():
                return "it was stopped"
            said = news() if news is not None else None
            if said != last:
                last, heard = said, time.monotonic()
            elif timeout is not None and time.monotonic() - heard > timeout:
                return f"no answer within {timeout:g} s"
            time.sleep(_POLL_SECONDS)
        return ""

    def _has_ended(self) -> bool:
        """Look without taking note: until then nobody else can have the session's number."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        try:
            return os.waitid(os.P_PID, self._leader.pid, flags) is not None
        except ChildProcessError:
            return True

    def end(self) -> int:
        """Kill what is left of it, and return the command's exit code."""
        with contextlib.suppress(OSError):
            os.killpg(self._leader.pid, signal.SIGKILL)
        # One that waits for a file system in vain cannot be killed.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._leader.wait(_KILL_SECONDS)
        os.close(self._writer)
        return -signal.SIGKILL if self._leader.returncode is None else self._leader.returncode


_POLL_SECONDS = 0.02
_KILL_SECONDS = 5.0
_MOST_READ = 2**26
"""Bytes of a stream: squeue may have a line for each of a hundred thousand jobs."""


def _end_of(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _MOST_READ))
    return _text(file.read())


def run_attached(
    argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> int:
    """Run a command on this process's own terminal and return its exit code.

    SIGTERM and SIGHUP are passed on to it, and it decides how to end. The terminal's own interrupt reaches it
    without that.

    Returns:
        The exit code as a shell reports it: 128 plus the signal for a command that a signal ended.
    """
    children: list[subprocess.Popen[bytes]] = []
    early: list[int] = []

    def pass_on(number: int, _: object) -> None:
        if not children:
            early.append(number)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, number)

    with (
        handling(pass_on),
        subprocess.Popen(argv, env=None if env is None else dict(env), cwd=cwd) as child,
    ):
        children.append(child)
        for number in early:
            child.send_signal(number)
        while True:
            try:
                code = child.wait()
            except KeyboardInterrupt:
                continue
            return code if code >= 0 else SIGNALLED - code


def _text(data: bytes | str | None) -> str:
    if data is None:
        return ""
    return data if isinstance(data, str) else data.decode("utf-8", errors="replace")
