"""The documents keep their promises: tables agree with the options, commands parse, links lead somewhere.

Run as a program, this file writes the tables anew: `uv run python tests/unit/test_documents.py`.
"""

import itertools
import re
import shlex
from pathlib import Path

import pytest
import tomli

from medarc_plugin import failures, hookspecs
from medarc_plugin.cli import arguments
from medarc_plugin.options import GROUPS, OWNED_SBATCH_OPTIONS, SlurmOptions, choices, flag, knobs

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [
        *(ROOT / "docs").glob("*.md"),
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "examples" / "reverse_text").rglob("README.md"),
    ]
)
LAUNCHES = ("rl", "sft", "inference")


def help_of(name):
    """Give an option's help with its default, fit for a table's cell."""
    info = SlurmOptions.model_fields[name]
    text = " ".join(info.description.split())
    if info.default not in (None, (), False):
        text += f" Default: {str(info.default).lower() if info.default is True else info.default}."
    return text.replace("|", "\\|")


def spelling(name):
    knob = knobs()[name]
    return ", ".join(f"`{item}`" for item in (*knob.flags, flag(name)))


def short_table():
    """Name every option with the first sentence of its help."""
    lines = ["| option | what it does |", "|---|---|"]
    for group in GROUPS:
        lines.append(f"| **{group}** | |")
        for name, knob in knobs().items():
            if knob.group == group:
                sentence = re.split(r"(?<=[.:]) (?=[A-Z])", help_of(name))[0].rstrip(".:")
                lines.append(f"| {spelling(name)} | {sentence} |")
    return "\n".join(lines)


def long_table(group):
    """Give every option of a group with its key, value, variable, directive and help."""
    lines = ["| option | value | `[slurm]` key | variable | help |", "|---|---|---|---|---|"]
    for name, knob in knobs().items():
        if knob.group != group:
            continue
        value = "switch" if knob.metavar is None else f"`{' '.join(choices(name)) or knob.metavar}`"
        value += ", repeatable" if knob.repeatable else ""
        variable = f"`{knob.variable}`" if knob.variable else ""
        lines.append(f"| {spelling(name)} | {value} | `{name}` | {variable} | {help_of(name)} |")
    return "\n".join(lines)


def refused_table():
    lines = ["| `--sbatch-arg` | instead |", "|---|---|"]
    lines += [f"| `{name}` | {way} |" for name, way in OWNED_SBATCH_OPTIONS.items()]
    return "\n".join(lines)


def failures_table():
    """Give every known failure with whose words it is found in, its cause and the way out."""
    lines = ["| name | what happened | cause | way out |", "|---|---|---|---|"]
    for failure in failures.KNOWN:
        found = failures.Found(failure)
        cells = (f"`{failure.name}`", failure.title, found.cause, found.way)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def tables():
    yield ROOT / "docs" / "why.md", "known failures", failures_table()
    yield ROOT / "README.md", "options", short_table()
    for group in GROUPS:
        yield ROOT / "docs" / "options.md", group, long_table(group)
    yield ROOT / "docs" / "options.md", "refused", refused_table()


def with_table(text, name, table):
    """Put a table between its marks."""
    pattern = re.compile(rf"(<!-- table: {re.escape(name)} -->\n).*?(\n<!-- end -->)", re.DOTALL)
    assert len(pattern.findall(text)) == 1, f"no marks for the table {name}"
    return pattern.sub(lambda match: match[1] + table + match[2], text)


def commands(path):
    """Yield what is typed in a document's `console` blocks, continued lines joined."""
    text = path.read_text(encoding="utf-8")
    for block in re.findall(r"^ *```console\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            if line.lstrip().startswith("$ "):
                yield shlex.split(line.lstrip()[2:], comments=True)


def launches():
    for path in DOCUMENTS:
        for tokens in commands(path):
            words = tokens[2:] if tokens[:2] == ["uv", "run"] else tokens
            if words[:1] == ["medarc_slurm"] and words[1:2] and words[1] in LAUNCHES:
                yield pytest.param(words[1], words[2:], True, id=f"{path.name}: {shlex.join(words)}")
            elif words[:1] and words[0] in LAUNCHES and "--backend" in words:
                yield pytest.param(words[0], words[1:], False, id=f"{path.name}: {shlex.join(words)}")


@pytest.mark.parametrize(("path", "name", "table"), [pytest.param(*row, id=row[1]) for row in tables()])
def test_a_table_agrees_with_the_options(path, name, table):
    text = path.read_text(encoding="utf-8")

    assert with_table(text, name, table) == text, "uv run python tests/unit/test_documents.py renews it"


@pytest.mark.parametrize(("entrypoint", "argv", "config_first"), list(launches()))
def test_a_documented_launch_parses_and_its_config_is_there(entrypoint, argv, config_first):
    if "--help" in argv:
        return
    requests = arguments.requests_from(entrypoint, argv, default_backend="slurm", config_first=config_first)

    pairs = itertools.chain.from_iterable(itertools.pairwise(request.arguments) for request in requests)
    for file in [after for before, after in pairs if before == "@"]:
        assert not file.startswith("examples/") or (ROOT / file).is_file()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_the_script_that_is_shown_is_the_one_that_is_written():
    golden = (ROOT / "tests" / "golden" / "rl-two-gpus.sbatch").read_text()

    assert f"```bash\n{golden}```" in (ROOT / "docs" / "job-anatomy.md").read_text()


def test_every_hook_is_documented():
    text = (ROOT / "docs" / "hooks.md").read_text(encoding="utf-8")

    assert [hook.__name__ for hook in hookspecs.HOOKS if f"`{hook.__name__}" not in text] == []


@pytest.mark.parametrize("folder", ["reverse_text", "reverse_text/tiny"])
@pytest.mark.parametrize("name", ["rl", "sft"])
def test_an_example_parses(folder, name):
    document = tomli.loads((ROOT / "examples" / folder / f"{name}.toml").read_text(encoding="utf-8"))

    assert "ckpt" in document
    assert "slurm" not in document
    assert ("inference" in document) == (name == "rl")


if __name__ == "__main__":
    for document, title, content in tables():
        document.write_text(
            with_table(document.read_text(encoding="utf-8"), title, content), encoding="utf-8"
        )
