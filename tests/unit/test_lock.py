"""One launch at a time in a run directory."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace

import pytest

from medarc_plugin import lock
from medarc_plugin.errors import RunDirectoryError

HOLDER = """
import subprocess, sys
from pathlib import Path
from medarc_plugin import lock

folder, child, foreground = Path(sys.argv[1]), sys.argv[2] == "child", sys.argv[3] == "foreground"
with lock.held(folder, lambda _: None, foreground=foreground) as descriptor:
    if child:
        subprocess.Popen(["/bin/cat"], stdin=0, stdout=subprocess.DEVNULL, pass_fds=(descriptor,))
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(work):
    return work / "runs" / "a" / "configs" / "launch"


@pytest.fixture
def hold(folder):
    """Hold the folder in a process of its own, until its standard input ends."""
    started = []

    def start(child="", foreground=""):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, folder, child, foreground],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start

    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def no_flock(monkeypatch):
    """A file system without locks."""

    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)


def take(folder, seconds=0.2):
    said = []
    with lock.held(folder, said.append, seconds=seconds):
        pass
    return said


def test_a_free_folder_is_taken_and_given_back(folder):
    assert take(folder) == []
    assert take(folder) == []
    assert [path.name for path in folder.iterdir()] == ["lock"]


def test_another_launch_is_waited_for_and_that_is_said_once(folder, hold):
    process = hold()
    said = []

    def hear(text):
        said.append(text)
        process.communicate("")

    with lock.held(folder, hear):
        pass

    assert len(said) == 1
    assert f"another launch (process {process.pid} on " in said[0]
    assert f"is at work in {folder.parent.parent}: waiting for it, up to 120 s" in said[0]


def test_it_is_not_waited_for_for_ever(folder, hold):
    process = hold()

    with pytest.raises(RunDirectoryError, match=f"process {process.pid} .* is still at work in") as caught:
        take(folder)

    assert caught.value.hint == "wait until it is done"


def test_a_run_in_the_foreground_is_not_waited_for(folder, hold):
    hold(foreground="foreground")

    with pytest.raises(RunDirectoryError, match="a run in the foreground"):
        take(folder, seconds=600)


def test_a_launch_that_was_killed_holds_nothing(folder, hold):
    process = hold()
    process.send_signal(signal.SIGKILL)
    process.wait()

    assert (folder / "lock.owner").exists()
    assert take(folder) == []
    assert not (folder / "lock.owner").exists()


def test_an_sbatch_that_outlives_its_launch_holds_on(folder, hold):
    process = hold(child="child")
    process.send_signal(signal.SIGKILL)
    process.wait()

    with pytest.raises(RunDirectoryError, match="is still at work"):
        take(folder)

    process.communicate("")

    assert len(take(folder, seconds=20)) <= 1


def test_without_locks_the_file_that_names_the_holder_holds(folder, no_flock):
    with lock.held(folder, print) as descriptor:
        assert descriptor is None
        with pytest.raises(RunDirectoryError, match=f"process {os.getpid()} on .* is still at work"):
            take(folder)

    assert take(folder) == []


def test_without_locks_a_dead_holder_is_noticed(folder, hold, no_flock):
    process = hold()
    process.send_signal(signal.SIGKILL)
    process.wait()

    assert take(folder) == []


def test_without_hard_links_a_holder_holds_all_the_same(folder, monkeypatch, no_flock):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)

    with lock.held(folder, print), pytest.raises(RunDirectoryError, match="is still at work"):
        take(folder)
    assert take(folder) == []


def owned(folder, **changes):
    folder.mkdir(parents=True)
    owner = replace(lock.myself(), **changes)
    (folder / "lock.owner").write_text(json.dumps(asdict(owner)))


def test_a_holder_on_another_machine_is_waited_for_and_the_way_out_is_said(folder):
    owned(folder, host="login2")

    with pytest.raises(RunDirectoryError, match=r"on login2, since .* is still at work") as caught:
        take(folder)

    assert f"no such process on login2 any more, delete {folder / 'lock.owner'}" in caught.value.hint


@pytest.mark.parametrize(
    ("changes", "dead"),
    [
        ({}, False),
        ({"start": "1"}, True),
        ({"process": 2**22 + 1}, True),
        ({"boot": "another/pid:[1]"}, True),
        ({"boot": ""}, False),
        ({"host": "login2", "start": "1"}, False),
    ],
)
def test_a_holder_is_dead_where_that_can_be_seen(changes, dead):
    assert replace(lock.myself(), **changes).is_dead is dead


def test_a_holder_in_another_process_namespace_cannot_be_seen():
    me = lock.myself()
    boot = me.boot.partition("/")[0]

    assert not replace(me, boot=f"{boot}/pid:[1]", start="1").is_dead


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": 1}'])
def test_a_torn_name_is_no_reason_to_go_on(folder, text):
    folder.mkdir(parents=True)
    (folder / "lock.owner").write_text(text)

    with pytest.raises(RunDirectoryError, match="another launch is still at work") as caught:
        take(folder)

    assert f"delete {folder / 'lock.owner'}" in caught.value.hint


def test_on_a_full_disk_nobody_is_sent_elsewhere(folder, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(lock, "_sign", refuse)

    with pytest.raises(RunDirectoryError, match="cannot be written: No space left on device") as caught:
        take(folder)

    assert caught.value.hint == "free some space, then run the same command again"


def test_a_place_that_cannot_be_written_is_an_error(folder):
    folder.parent.parent.parent.mkdir()
    folder.parent.parent.touch()

    with pytest.raises(RunDirectoryError, match="cannot be written: Not a directory"):
        take(folder)
