"""What tells this process to end, beside the terminal's interrupt, which is Python's own affair."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ENDINGS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def handling(handle: Callable[[int, object], None]) -> Iterator[None]:
    """Handle SIGTERM and SIGHUP meanwhile. One that is ignored, as for `nohup`, stays so.

    Args:
        handle: Called with the signal's number.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in ENDINGS}
    handlers = {number: one for number, one in handlers.items() if one not in (signal.SIG_IGN, None)}
    for number in handlers:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
