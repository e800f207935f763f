"""Templates: what they may use, and what a script must not be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medarc_plugin.errors import RenderError
from medarc_plugin.render import MAX_SCRIPT_BYTES, check_script, render

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def template(tmp_path: Path):
    def write(text: str, **values: object) -> str:
        (tmp_path / "t.j2").write_text(text, newline="")
        return render("t.j2", values, [tmp_path])

    return write


def test_a_value_goes_through_the_shells_quotes(template) -> None:
    assert template("cd {{ path | quote }}\n", path="/a b/$(x)") == "cd '/a b/$(x)'\n"


def test_a_value_is_no_template(template) -> None:
    assert template("{{ name }}", name="{{ 7 * 7 }}") == "{{ 7 * 7 }}"


def test_an_undefined_variable_is_an_error_that_lists_the_known_ones(template) -> None:
    with pytest.raises(RenderError, match="'partitoin' is undefined") as caught:
        template("{{ partitoin }}", partition="gpu", account="lab")

    assert caught.value.hint == "a template may use: account, partition"


def test_a_syntax_error_names_file_and_line(template) -> None:
    with pytest.raises(RenderError, match=r"template t\.j2, line 2: "):
        template("#!/bin/bash\n{% if %}\n")


@pytest.mark.parametrize("text", ["{{ 1 / 0 }}", "{{ x.y.z }}", "{{ 'a' + 1 }}", "{{ x() }}"])
def test_whatever_goes_wrong_in_a_template_is_its_own_fault(template, text: str) -> None:
    with pytest.raises(RenderError, match=r"template t\.j2"):
        template(text, x={})


def test_a_template_that_is_nowhere_is_looked_for_in_vain(tmp_path: Path) -> None:
    with pytest.raises(RenderError, match=f"'no.j2' is in none of {tmp_path}"):
        render("no.j2", {}, [tmp_path])


def test_a_template_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "t.j2").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(RenderError, match="cannot be read"):
        render("t.j2", {}, [tmp_path])


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("", "starts with #!"),
        ("echo hello\n", "starts with #!"),
        ("\n#!/bin/bash\n", "starts with #!"),
        ("#!/bin/bash\r\n#SBATCH --mem=1\r\n", "DOS line ends"),
        ("#!/bin/bash\nset -e\n#SBATCH --mem=1\n", "line 3 of the script: '#SBATCH --mem=1' stands after"),
        ("#!/bin/bash\n  #SBATCH --mem=1\n", "line 2 of the script: an indented #SBATCH"),
        ("#!/bin/bash\n" + "#" * MAX_SCRIPT_BYTES, "over SLURM's 4 MiB"),
    ],
)
def test_a_script_that_slurm_would_misread_is_refused(script: str, message: str) -> None:
    with pytest.raises(RenderError, match=message):
        check_script("t.j2", script)


def test_comments_and_blank_lines_may_stand_between_directives() -> None:
    check_script("t.j2", "#!/bin/bash\n\n# why\n#SBATCH --mem=1\n   \n#SBATCH --time=1\nset -e\n# the end\n")


@given(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"))
def test_no_character_of_a_value_is_taken_for_a_new_line(character: str) -> None:
    check_script("t.j2", f'#!/bin/bash\n#SBATCH --comment="a{character}b"\n#SBATCH --mem=1\n')
