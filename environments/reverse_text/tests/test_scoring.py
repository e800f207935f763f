import difflib
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reverse_text import scoring

# Fragments make tags, whitespace and near misses likely in generated replies.
FRAGMENTS = st.sampled_from(
    ["<reversed_text>", "</reversed_text>", "<reversed_text", " ", "\n", "\x1c", "\u00a0", "abc"]
)
REPLIES = st.lists(FRAGMENTS | st.text(max_size=8), max_size=12).map("".join)
TEXTS = st.text() | st.text(alphabet="ab ", min_size=190, max_size=260)


def taskset_answer(reply: str) -> str:
    """Upstream's v1 taskset."""
    match = re.search(r"<reversed_text>(.*?)</reversed_text>", reply.strip(), re.DOTALL)
    return match.group(1).strip() if match else ""


def xml_parser_answer(reply: str) -> str:
    """Upstream's classic environment, through its XML parser."""
    match = re.search(r"<reversed_text>\s*(.*?)\s*</reversed_text>", reply, re.DOTALL)
    return match.group(1).strip() if match else ""


@given(REPLIES)
def test_answer_is_what_both_upstream_parsers_extract(reply: str) -> None:
    answer = scoring.extract_answer(reply)

    assert taskset_answer(reply) == answer
    assert xml_parser_answer(reply) == answer


@given(TEXTS, TEXTS)
def test_similarity_is_difflib_to_the_digit(response: str, answer: str) -> None:
    expected = difflib.SequenceMatcher(None, response, answer).ratio()

    assert expected == scoring.similarity(response, answer)


@given(REPLIES, TEXTS)
def test_reward_is_upstream_to_the_digit(reply: str, prompt: str) -> None:
    answer = prompt[::-1]
    expected = difflib.SequenceMatcher(None, taskset_answer(reply), answer).ratio()

    assert expected == scoring.reward(reply, answer)


@given(st.text(min_size=1))
def test_a_right_answer_earns_everything_unless_its_edges_are_whitespace(prompt: str) -> None:
    answer = scoring.reverse(prompt)
    reward = scoring.reward(f"<reversed_text>{answer}</reversed_text>", answer)

    if "</reversed_text>" not in answer:
        assert (reward == 1.0) == (answer == answer.strip())


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("", ""),
        ("olleh", ""),
        ("<reversed_text>olleh", ""),
        ("<REVERSED_TEXT>olleh</REVERSED_TEXT>", ""),
        ("<reversed_text></reversed_text>", ""),
        ("<reversed_text>\n olleh\t</reversed_text>", "olleh"),
        ("<reversed_text>a\nb</reversed_text>", "a\nb"),
        ("<reversed_text>one</reversed_text><reversed_text>two</reversed_text>", "one"),
        ("<reversed_text><reversed_text>x</reversed_text>", "<reversed_text>x"),
    ],
)
def test_extract_answer(reply: str, answer: str) -> None:
    assert answer == scoring.extract_answer(reply)


def test_a_reply_without_a_tag_earns_nothing() -> None:
    assert scoring.reward("olleh", "olleh") == 0.0


def test_nothing_for_an_empty_prompt_earns_everything_as_it_does_upstream() -> None:
    assert scoring.reward("", "") == 1.0


def test_the_order_of_the_texts_is_upstreams() -> None:
    response, answer = "tide", "diet"

    assert scoring.similarity(response, answer) == 0.25
    assert scoring.similarity(answer, response) == 0.5


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = (
        "import sys, reverse_text\n"
        "dir(reverse_text)\n"
        "print([name for name in ('verifiers', 'datasets') if name in sys.modules])"
    )
    found = subprocess.check_output([sys.executable, "-c", program], text=True)

    assert found == "[]\n"


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    import reverse_text

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = reverse_text.nothing
