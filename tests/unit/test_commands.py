"""docs/commands.md names every command, and says rightly which of them print JSON."""

import re
from pathlib import Path

from medarc_plugin.cli.completion_table import look_up

DOCUMENT = Path(__file__).parents[2] / "docs" / "commands.md"


def rows():
    """The table's rows by command: `{"sandbox up": ["...", "yes", "..."]}`."""
    table = re.search(r"<!-- table: commands -->\n(.*?)\n<!-- end -->", DOCUMENT.read_text(), re.DOTALL)
    found = {}
    for line in table[1].splitlines()[2:]:
        first, *others = [cell.strip() for cell in line.strip("|").split("|")]
        found |= dict.fromkeys(re.findall(r"`([^`]+)`", first), others)
    return found


def test_every_command_is_listed():
    commands = {words for words, command in look_up() if words and not command["commands"]}

    assert set(rows()) == commands


def test_the_table_says_which_of_them_print_json():
    printing = {
        words
        for words, command in look_up()
        if any("--json" in option["names"] for option in command["options"])
    }

    assert {words for words, (_, json, _) in rows().items() if json} == printing


def test_every_json_document_is_described():
    text = DOCUMENT.read_text()
    links = [re.search(r"\((?:(\S+\.md))?#(\S+)\)", json) for _, json, _ in rows().values() if json]

    for link in links:
        document = (DOCUMENT.parent / link[1]).read_text() if link[1] else text
        headings = re.findall(r"^#+ (.*)$", document, re.MULTILINE)
        assert link[2] in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
