"""What tells this process to end: the terminal's interrupt, and SIGTERM and SIGHUP beside it."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ENDINGS = (signal.SIGTERM, signal.SIGHUP)


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
def handling(
    handle: Callable[[int, object], None], numbers: Sequence[signal.Signals] = ENDINGS
) -> Iterator[None]:
    """Handle signals meanwhile. One that is ignored, as for `nohup`, stays so.

    Args:
        handle: Called with the signal's number.
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
