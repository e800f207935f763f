"""Reading logs that others write."""

import os

import pytest

from medarc_plugin import tails
from medarc_plugin.tails import Growth, last_lines, text_of


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def log(work):
    return work / "x.log"


@pytest.fixture
def clock():
    return Clock()


def append(path, data):
    with path.open("ab") as file:
        file.write(data)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"plain", "plain"),
        (b"caf\xc3\xa9 \xff", "café �"),
        (b" 10%|#   | 1/10\r 20%|##  | 2/10\r", " 20%|##  | 2/10"),
        (b"windows\r", "windows"),
        (b"bar\r      \r", "bar"),
        (b"\x1b[32mgreen\x1b[0m \x1b[2K\x1b[1Gx", "green x"),
        (b"\x1b]0;title\x07a\x1b]8;;http://x\x1b\\b\x1b(Bc", "abc"),
        (b"bell\x07 \x00nul \xc2\x9b31m tab\there", "bell nul 31m tab\there"),
        (b"", ""),
    ],
)
def test_a_line_is_shown_as_it_ended_and_obeyed_in_nothing(line, shown):
    assert text_of(line) == shown


def test_colours_are_kept_where_they_are_wanted_and_end_with_their_line():
    assert text_of(b"\x1b[1;31mred\x1b[K", colours=True) == "\x1b[1;31mred\x1b[0m"
    assert text_of(b"plain", colours=True) == "plain"


def test_a_line_that_is_very_long_is_cut():
    text = text_of(b"x" * 100_000)

    assert len(text) < 17_000
    assert text.endswith(f"... ({100_000 - tails.LONGEST_LINE} more characters)")


@pytest.mark.parametrize(
    ("data", "count", "lines"),
    [
        (b"a\nb\nc\n", 2, [b"b", b"c"]),
        (b"a\nb\nc", 2, [b"b", b"c"]),
        (b"a\n", 5, [b"a"]),
        (b"a\n\n\n", 2, [b"", b""]),
        (b"", 3, []),
        (b"a\nb\n", 0, []),
    ],
)
def test_the_last_lines_of_a_file(log, data, count, lines):
    log.write_bytes(data)

    assert last_lines(log, count) == (lines, len(data))


@pytest.mark.parametrize("count", [1, 3, 700, 5000])
def test_the_last_lines_are_found_across_blocks(log, monkeypatch, count):
    monkeypatch.setattr(tails, "BLOCK", 1000)
    lines = [f"line {number} {'x' * (number % 300)}".encode() for number in range(2000)]
    log.write_bytes(b"\n".join(lines) + b"\n")

    assert last_lines(log, count)[0] == lines[-count:]


def test_a_huge_file_is_read_from_its_end(log):
    with log.open("wb") as file:
        file.truncate(10 * 2**30)
        file.seek(0, os.SEEK_END)
        file.write(b"\nlast but one\nlast\n")

    assert last_lines(log, 2)[0] == [b"last but one", b"last"]


def test_a_huge_file_without_a_line_is_not_read_whole(log):
    with log.open("wb") as file:
        file.truncate(10 * 2**30)

    (line,) = last_lines(log, 2)[0]
    assert len(line) <= tails.BACKLOG + tails.BLOCK


def test_a_part_of_a_file_has_last_lines_too(log):
    log.write_bytes(b"a\nb\nc\nd\n")

    assert last_lines(log, 9, start=2, end=6)[0] == [b"b", b"c"]


def test_a_missing_file_has_no_lines(log):
    assert last_lines(log, 3) == ([], 0)
    assert Growth(log).look() == []


def test_what_a_file_gains(log, clock):
    log.write_bytes(b"old\n")
    growth = Growth(log, 4, clock)
    assert growth.look() == []

    append(log, b"a\nb\nhal")
    assert growth.look() == [b"a", b"b"]

    append(log, b"f\n")
    assert growth.look() == [b"half"]
    assert growth.look() == []


def test_a_file_that_comes_later_is_read_from_its_beginning(log, clock):
    growth = Growth(log, 0, clock)
    growth.look()
    log.write_bytes(b"first\n")

    assert growth.look() == [b"first"]


def test_a_file_that_was_cut_short_is_read_anew(log, clock):
    log.write_bytes(b"one\ntwo\n")
    growth = Growth(log, 0, clock)
    growth.look()
    log.write_bytes(b"new\n")

    assert growth.look() == [b"new"]


def test_a_file_that_was_replaced_is_read_anew(log, clock):
    log.write_bytes(b"one\n")
    growth = Growth(log, 0, clock)
    growth.look()
    draft = log.with_name("draft")
    draft.write_bytes(b"another, longer one\n")
    draft.replace(log)

    assert growth.look() == [b"another, longer one"]


def test_a_line_without_an_end_is_shown_when_nothing_comes_after_it(log, clock):
    growth = Growth(log, 0, clock)
    append(log, b"Password:")
    assert growth.look() == []

    clock.now += tails.IDLE_SECONDS
    assert growth.look() == [b"Password:"]
    assert growth.look() == []

    append(log, b"\nnext\n")
    assert growth.look() == [b"next"]


def test_a_line_that_was_shown_and_grew_is_shown_whole(log, clock):
    growth = Growth(log, 0, clock)
    append(log, b"Loading")
    growth.look()
    clock.now += tails.IDLE_SECONDS
    growth.look()

    append(log, b"... done\n")
    assert growth.look() == [b"Loading... done"]


def test_a_progress_bar_is_shown_now_and_then(log, clock):
    growth = Growth(log, 0, clock)
    seen = []
    for second in range(30):
        clock.now = float(second)
        append(log, f"\r{second} %".encode())
        seen += [text_of(line) for line in growth.look()]
    append(log, b"\r100 %\n")
    seen += [text_of(line) for line in growth.look()]

    assert seen == ["10 %", "20 %", "100 %"]


def test_of_a_line_without_end_the_beginning_is_kept(log, clock):
    growth = Growth(log, 0, clock)
    for _ in range(20):
        append(log, b"x" * 100_000)
        growth.look()

    append(log, b"\nnext\n")
    line, last = growth.look()
    assert len(line) <= tails.REST
    assert last == b"next"


def test_a_reader_that_is_far_behind_passes_over(log, clock):
    growth = Growth(log, 0, clock)
    with log.open("wb") as file:
        file.truncate(tails.BACKLOG * 2)
        file.seek(0, os.SEEK_END)
        file.write(b"\nlast\n")

    lines = growth.look()

    assert lines[0] == b"... (31 MiB are passed over)"
    assert lines[-1] == b"last"


def test_what_is_left_at_the_end_is_shown(log, clock):
    growth = Growth(log, 0, clock)
    append(log, b"a\nno end")

    assert growth.end() == [b"a", b"no end"]


@pytest.mark.parametrize("count", [3, 1000])
def test_an_endless_line_before_the_last_ones_is_not_read_whole(log, count):
    with log.open("wb") as file:
        file.truncate(10 * 2**30)
        file.seek(0, os.SEEK_END)
        file.write(b"\nlast but one\nlast\n")

    cut, *lines = last_lines(log, count)[0]

    assert lines == [b"last but one", b"last"]
    assert len(cut) <= tails.BACKLOG + tails.BLOCK


def test_of_an_endless_line_as_much_is_looked_at_as_is_shown():
    assert text_of(b"x" * 2**24) == f"{'x' * tails.LONGEST_LINE} ... ({2**24} bytes)"
    assert text_of(b"\x1b[2Ja\x1b[2J\x1b[K" * 2**18).startswith("aaaa")
    assert text_of(b"y" * 2**20 + b"\rlast") == "last"
