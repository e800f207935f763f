"""`#SBATCH` lines, read back by an own implementation of sbatch's reading."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from medarc_plugin.errors import UsageError
from medarc_plugin.models import Directive
from medarc_plugin.slurm.directives import line, log_pattern, quote

VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\0"))
AWKWARD = [
    "'",
    '"',
    "\\",
    "$(x)",
    "`x`",
    " # a",
    "%j",
    "{{ x }}",
    "-x",
    "äöü",
    "a\tb",
    "",
    '\\"',
    "\\\\",
    "!h",
]


def read_by_sbatch(text: str) -> list[str]:
    """Split a directive's words as sbatch's `_get_next_opt`-style reader was seen to do.

    Outside quotes a space ends a word and `#` ends the line; within double quotes a backslash takes the
    next character as it is.
    """
    words: list[str] = []
    word: str | None = None
    quoted = escaped = False
    for character in text.removeprefix("#SBATCH").lstrip():
        if escaped:
            word, escaped = (word or "") + character, False
        elif quoted and character == "\\":
            escaped = True
        elif character == '"':
            quoted, word = not quoted, word or ""
        elif not quoted and character.isspace():
            words += [word] if word is not None else []
            word = None
        elif not quoted and character == "#":
            break
        else:
            word = (word or "") + character
    assert not quoted
    return [*words, word] if word is not None else words


@given(VALUES)
def test_sbatch_reads_back_what_was_meant(value: str) -> None:
    assert read_by_sbatch(line(Directive("comment", value))) == [f"--comment={value}"]


@pytest.mark.parametrize("value", AWKWARD)
def test_awkward_values_are_literal(value: str) -> None:
    assert read_by_sbatch(line(Directive("job-name", value))) == [f"--job-name={value}"]


@given(VALUES)
def test_a_quoted_value_stays_on_its_line_and_within_its_quotes(value: str) -> None:
    text = quote(value)

    assert "\n" not in text
    assert read_by_sbatch(text) == [value]


def test_plain_values_are_written_plainly() -> None:
    assert line(Directive("gres", "gpu:h100:2")) == "#SBATCH --gres=gpu:h100:2"
    assert line(Directive("mail-user", "a@b.org")) == "#SBATCH --mail-user=a@b.org"
    assert line(Directive("exclusive")) == "#SBATCH --exclusive"


def test_a_pattern_stands_as_it_is() -> None:
    assert line(Directive("output", pattern="/a b/job_%j.log")) == '#SBATCH --output="/a b/job_%j.log"'


@pytest.mark.parametrize(("text", "what"), [("a\nb", "line break"), ("a\rb", "line break"), ("a\0b", "NUL")])
def test_what_no_directive_can_hold_is_refused(text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        quote(text)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\0\\/"), min_size=1))
@example("100%")
@example("%%j")
def test_slurm_expands_nothing_of_the_folder(name: str) -> None:
    pattern = log_pattern(Path("/runs") / name, "job_%j.log")

    assert pattern.endswith("/job_%j.log")
    assert pattern.removesuffix("/job_%j.log").replace("%%", "\0").count("%") == 0
    assert pattern.replace("%%", "\0").replace("%j", "17").replace("\0", "%") == str(
        Path("/runs") / name / "job_17.log"
    )


def test_a_backslash_in_the_folder_turns_patterns_off_so_it_is_refused() -> None:
    with pytest.raises(UsageError, match="backslash") as caught:
        log_pattern(Path("/a\\b"), "job_%j.log")

    assert caught.value.hint
