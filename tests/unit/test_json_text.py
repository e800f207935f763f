"""JSON that others wrote."""

import json

import pytest

from medarc_plugin import json_text
from medarc_plugin.job import formats
from medarc_plugin.json_text import DEEPEST, parse


def nested(levels):
    return '{"a":' * levels + "1" + "}" * levels


def test_a_document_is_read():
    document = {"a": [1, {"b": None}], "c": "x"}

    assert parse(json.dumps(document)) == document
    assert parse(b"[]") == []
    assert parse("3") == 3
    assert parse(nested(DEEPEST))["a"]


@pytest.mark.parametrize("text", ["", "{", '{"a": ', nested(DEEPEST + 1), nested(900), "[" * 100_000])
def test_what_is_torn_or_nested_without_end_is_no_document(text):
    with pytest.raises(ValueError, match=r"line 1 column|levels deep"):
        json_text.parse(text)


def test_a_line_of_a_log_may_be_nested_without_end():
    line = '{"a":' * 100_000

    assert formats.read_line(line).message == line
