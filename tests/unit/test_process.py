"""A command in a session of its own: nothing of it outlives the answer."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

import pytest

from medarc_plugin.process import NOT_FOUND, TIMED_OUT, run_apart

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def lives(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A named pipe for processes to hold, and the end at which their ends are seen."""
    path = tmp_path / "lives"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    yield path, reader
    os.close(reader)


def are_all_gone(reader: int) -> bool:
    """Whether nobody holds the pipe any more, now or in a moment."""
    while select.select([reader], [], [], 20)[0]:
        if not os.read(reader, 1000):
            return True
    return False


def test_what_was_printed_and_how_it_ended() -> None:
    done = run_apart(["/bin/sh", "-c", "echo out; echo err >&2; exit 3"])

    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_a_program_that_is_not_there() -> None:
    done = run_apart(["/nowhere/python"])

    assert (done.returncode, done.stderr) == (NOT_FOUND, "/nowhere/python: No such file or directory")


def test_a_command_that_takes_too_long_ends_with_all_that_it_started(lives: tuple[Path, int]) -> None:
    path, reader = lives
    script = f"exec 3>{path}; echo begun; /bin/sleep 1000 & /bin/sh -c '/bin/sleep 1000; true'; true"

    done = run_apart(["/bin/sh", "-c", script], timeout=0.5)

    assert (done.returncode, done.stdout) == (TIMED_OUT, "begun\n")
    assert done.stderr == "no answer within 0.5 s"
    assert are_all_gone(reader)


def test_what_a_command_leaves_behind_ends_with_it_and_is_not_waited_for(lives: tuple[Path, int]) -> None:
    path, reader = lives

    done = run_apart(["/bin/sh", "-c", f"exec 3>{path}; /bin/sleep 1000 & echo done"])

    assert (done.returncode, done.stdout) == (0, "done\n")
    assert are_all_gone(reader)


def test_an_exception_ends_it_too(lives: tuple[Path, int]) -> None:
    path, reader = lives

    def interrupt() -> None:
        if select.select([reader], [], [], 0)[0] and os.read(reader, 10) == b"begun\n":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_apart(["/bin/sh", "-c", f"exec 3>{path}; echo begun >&3; /bin/sleep 1000; true"], news=interrupt)

    assert are_all_gone(reader)


def test_it_may_take_long_while_there_is_news() -> None:
    counts = iter(range(12))

    done = run_apart(["/bin/sleep", "1000"], timeout=0.2, news=lambda: next(counts, None))

    assert done.returncode == TIMED_OUT
    assert next(counts, None) is None


def test_one_that_is_to_stop_is_killed_with_all_that_it_started(lives: tuple[Path, int]) -> None:
    path, reader = lives

    def has_begun() -> bool:
        return bool(select.select([reader], [], [], 0)[0]) and os.read(reader, 10) == b"begun\n"

    script = f"exec 3>{path}; echo said; echo begun >&3; /bin/sleep 1000 & /bin/sleep 1000; true"
    done = run_apart(["/bin/sh", "-c", script], timeout=200, stop=has_begun)

    assert (done.returncode, done.stdout, done.stderr) == (TIMED_OUT, "said\n", "it was stopped")
    assert are_all_gone(reader)


def test_it_inherits_what_is_kept_for_it() -> None:
    reader, writer = os.pipe()
    run_apart(["/bin/bash", "-c", f"echo said >&{writer}"], keep=(writer,))
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert pipe.read() == "said\n"
