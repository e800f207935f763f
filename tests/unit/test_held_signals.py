"""Signals that are held back."""

import os
import signal
import threading

import pytest

from medarc_plugin import signals


@pytest.mark.parametrize("number", [signal.SIGINT, *signals.ENDINGS])
def test_a_signal_is_noted_and_ends_nothing(number):
    before = signal.getsignal(number)
    with signals.held() as hold:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGINT)

        assert (hold.count, hold.first) == (2, number)

    assert signal.getsignal(number) == before


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.held() as hold:
            os.kill(os.getpid(), signal.SIGHUP)

            assert hold.count == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_pause_ends_with_the_next_signal():
    with signals.held() as hold:
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        hold.pause(200)

        assert hold.count == 1
        timer.join()

    hold.pause(0.01)


def test_in_another_thread_nothing_is_held():
    counts = []

    def work():
        with signals.held() as hold:
            counts.append(hold.count)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert counts == [0]
