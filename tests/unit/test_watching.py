"""Looking at runs again and again."""

import threading
from itertools import pairwise

import pytest
from standins import recorded

from medarc_plugin import standing, watching
from medarc_plugin.watching import Pace, Watcher


@pytest.fixture
def run(work):
    return recorded.make_run(work / "runs" / "a")


@pytest.fixture
def asked(monkeypatch):
    """Count the questions to SLURM; each is answered as `asked.answer` says."""

    class Asked:
        count = 0
        answer = standing.Slurm(None)

        def __call__(self, runs, _told):
            self.count += 1
            return [self.answer] * len(runs)

    asked = Asked()
    monkeypatch.setattr(standing, "ask", asked)
    return asked


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_the_pace_slows_down_and_begins_anew_with_a_change():
    pace = Pace(first=1.0, most=3.0)

    seen = [pace.after(state) for state in ("a", "a", "a", "a", "b", "b")]

    assert seen == [1.0, 1.5, 2.25, 3.0, 1.0, 1.5]


def answers_are_in():
    """Wait for the questions that are asked beside the looks."""
    for thread in threading.enumerate():
        if thread.name == watching.ASKING:
            thread.join(10)


def settled(watcher):
    """Look, and take the answer of a question that this brought about."""
    watcher.look()
    answers_are_in()
    return watcher.look()


def test_slurm_is_asked_the_less_often_the_less_changes(run, asked):
    clock = Clock()
    watcher = Watcher([run], clock)
    watcher.look()

    moments = []
    for second in range(200):
        clock.now = float(second)
        before = asked.count
        settled(watcher)
        if asked.count > before:
            moments.append(second)

    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert gaps[0] <= 3
    assert gaps == sorted(gaps)
    assert gaps[-1] == watching.MOST


def test_slurm_is_asked_at_once_when_an_attempt_begins_or_ends(run, asked):
    clock = Clock()
    watcher = Watcher([run], clock)
    watcher.look()
    assert asked.count == 1

    recorded.begin(run)
    settled(watcher)
    assert asked.count == 2

    recorded.end(run)
    (status,) = settled(watcher)
    assert asked.count == 3
    assert status.state == "COMPLETED"
    settled(watcher)
    assert asked.count == 3


def test_a_controller_that_hangs_keeps_nobody_waiting(run, monkeypatch):
    answered = threading.Event()
    first = threading.Event()

    def ask(runs, told):
        if first.is_set():
            answered.wait(30)
        first.set()
        return [standing.Slurm(None)]

    monkeypatch.setattr(standing, "ask", ask)
    clock = Clock()
    watcher = Watcher([run], clock)
    watcher.look()
    clock.now = 100.0

    recorded.begin(run)
    recorded.write_state(run, step=7)
    (status,) = watcher.look()

    assert status.step == 7
    answered.set()


def test_a_look_can_insist_on_an_answer(run, asked):
    watcher = Watcher([run], Clock())
    watcher.look()
    watcher.look(now=True)

    assert asked.count == 2
