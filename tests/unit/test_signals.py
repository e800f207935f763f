"""Signals that tell this process to end."""

from __future__ import annotations

import os
import signal

import pytest

from medarc_plugin.signals import deferred, handling


def raise_it(number: int, _: object) -> None:
    raise InterruptedError(number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_is_deferred_comes_when_all_is_done(number: int) -> None:
    done = []

    def interrupted() -> None:
        with deferred():
            os.kill(os.getpid(), number)
            done.append(number)

    with handling(raise_it, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)), pytest.raises(InterruptedError):
        interrupted()

    assert done == [number]


def test_what_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with handling(raise_it), deferred():
            os.kill(os.getpid(), signal.SIGHUP)
            ignored = signal.getsignal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)

    assert ignored is signal.SIG_IGN
