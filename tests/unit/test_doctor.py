"""The examination: its checks run at the same time, and none of them keeps or fells the others."""

import threading

import pytest

from medarc_plugin import doctor
from medarc_plugin.doctor import Check, Finding, Subject, examine
from medarc_plugin.doctor.findings import Once, ToldElsewhereError, ok
from medarc_plugin.errors import UsageError


def test_a_check_that_hangs_is_named_and_keeps_no_other():
    never = threading.Event()

    def hangs(subject):
        yield ok("so far")
        never.wait()

    checks = (Check("a", "hangs", hangs, seconds=0.01), Check("a", "good", lambda _: iter([ok("good")])))
    first, second = examine(Subject(), checks)
    never.set()

    assert [finding.text for finding in first.findings] == ["so far", "no answer within 0.01 s"]
    assert first.findings[1].status == doctor.FAILED
    assert second.findings == [Finding("ok", "good")]


def test_all_run_at_the_same_time():
    meeting = threading.Barrier(3)

    def meets(subject):
        meeting.wait(timeout=30)
        yield ok("met")

    done = list(examine(Subject(), tuple(Check("a", str(number), meets) for number in range(3))))

    assert [one.findings for one in done] == [[ok("met")]] * 3


@pytest.mark.parametrize(
    ("error", "status", "text", "hint"),
    [
        (UsageError("it is wrong", hint="mend it"), "failed", "it is wrong", "mend it"),
        (ValueError("odd"), "failed", "ValueError: odd", ""),
        (ToldElsewhereError("profiles"), "skipped", "not looked at: see 'profiles'", ""),
    ],
)
def test_what_a_check_raises_is_a_finding(error, status, text, hint):
    def raises(subject):
        raise error
        yield

    (done,) = examine(Subject(), (Check("a", "raises", raises),))

    assert done.findings == [Finding(status, text, hint)]


def test_an_error_is_told_by_one_check_alone():
    calls = []

    def look():
        calls.append(1)
        raise UsageError("broken")

    once = Once(look, "here")

    with pytest.raises(UsageError):
        once.or_say_why()
    with pytest.raises(ToldElsewhereError):
        once()
    assert calls == [1]


def test_every_check_has_a_name_of_its_own_and_a_reason():
    names = [(check.group, check.name) for check in doctor.CHECKS]

    assert len(set(names)) == len(names)
    assert all(check.look.__doc__ for check in doctor.CHECKS)
