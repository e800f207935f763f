"""What tells this process to end: the terminal's interrupt, and SIGTERM and SIGHUP beside it."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ENDINGS = (signal.SIGTERM, signal.SIGHUP)

POLL_SECONDS = 0.05
"""Between two looks at whether a signal has come."""


class Stopped(KeyboardInterrupt):
    """A signal ended the command, in order.

    Args:
        number: The signal.
        message: What it left, in a sentence.
        hint: What to do about that.
    """

    def __init__(self, number: int, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.number = number
        self.message = message
        self.hint = hint


class Hold:
    """The signals that have come since they are held back."""

    def __init__(self) -> None:
        self._numbers: list[int] = []

    @property
    def count(self) -> int:
        """How many have come."""
        return len(self._numbers)

    @property
    def first(self) -> int:
        """The first of them; SIGINT while there is none."""
        return self._numbers[0] if self._numbers else signal.SIGINT

    def note(self, number: int, frame: object = None) -> None:
        """Take note of a signal."""
        del frame
        self._numbers.append(number)

    def pause(self, seconds: float) -> None:
        """Wait, not beyond the next signal."""
        end, count = time.monotonic() + seconds, self.count
        while (left := end - time.monotonic()) > 0 and self.count == count:
            time.sleep(min(POLL_SECONDS, left))


@contextmanager
def held() -> Iterator[Hold]:
    """Hold back what tells this process to end; whoever does looks at `Hold.count` behind it."""
    hold = Hold()
    with handling(hold.note, (signal.SIGINT, *ENDINGS)):
        yield hold


@contextmanager
def deferred() -> Iterator[None]:
    """Hold back what tells this process to end until something is done whole."""
    arrived: list[int] = []
    try:
        with handling(lambda number, _: arrived.append(number), (signal.SIGINT, *ENDINGS)):
            yield
    finally:
        for number in arrived:
            os.kill(os.getpid(), number)


@contextmanager
def quiet() -> Iterator[None]:
    """Let Ctrl-C end this process without a traceback: for imports, when nothing has been done yet."""
    with handling(signal.SIG_DFL, (signal.SIGINT,)):
        yield


@contextmanager
def handling(
    handle: Callable[[int, object], None] | signal.Handlers, numbers: Sequence[signal.Signals] = ENDINGS
) -> Iterator[None]:
    """Handle signals meanwhile. One that is ignored, as for `nohup`, stays so.

    Args:
        handle: Called with the signal's number; or what the system does with it.
        numbers: Which ones.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in numbers}
    handlers = {number: one for number, one in handlers.items() if one not in (signal.SIG_IGN, None)}
    for number in handlers:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
