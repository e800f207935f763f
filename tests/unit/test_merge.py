"""Configs without prime-rl: merged by its library, checked by nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from medarc_plugin.errors import UsageError
from medarc_plugin.host.merge import merge, read_files

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def files(work: Path) -> Path:
    (work / "a.toml").write_text('max_steps = 1\n[slurm]\npartition = "a"\n[trainer.optim]\nlr = 1.0\n')
    (work / "b.toml").write_text('[slurm]\npartition = "b"\naccount = "lab"\n')
    (work / "cluster.toml").write_text('partition = "c"\n')
    return work


@pytest.mark.usefixtures("files")
def test_later_files_win_table_by_table() -> None:
    found = read_files(["@", "a.toml", "--max-steps", "5", "@", "b.toml"])

    assert found["slurm"] == {"partition": "b", "account": "lab"}
    assert found["max_steps"] == 1


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("argv", [["--slurm", "@", "cluster.toml"], ["--slurm", "@cluster.toml"]])
def test_a_file_for_the_slurm_table_is_read(argv: list[str]) -> None:
    assert read_files(["@", "a.toml", *argv])["slurm"]["partition"] == "c"


@pytest.mark.usefixtures("files")
def test_a_file_for_another_table_is_none_of_ours() -> None:
    assert read_files(["@", "a.toml", "--trainer", "@", "b.toml"])["slurm"] == {"partition": "a"}


@pytest.mark.usefixtures("files")
def test_overrides_win_over_files() -> None:
    found = merge(["@", "a.toml", "--trainer.optim.lr", "1e-6", "--flag", "--no-such=x"])

    assert found["trainer"]["optim"]["lr"] == "1e-6"
    assert found["flag"] is True


def test_an_override_may_have_several_values() -> None:
    assert merge(["--betas", "0.9", "-0.5", "--x", "1"]) == {"betas": ["0.9", "-0.5"], "x": "1"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.toml", None, "not found: no.toml"),
        ("x.toml", b"a = ", "Invalid TOML in x.toml"),
        ("x.json", b"{", "Invalid JSON in x.json"),
        ("x.txt", b"", "Unsupported file type: x.txt"),
        ("x.toml", b"a = '\xff'", "not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(
    work: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (work / name).write_bytes(content)

    for read in (read_files, merge):
        with pytest.raises(UsageError, match=message):
            read(["@", name])


def test_a_folder_is_no_file(work: Path) -> None:
    (work / "d.toml").mkdir()

    with pytest.raises(UsageError, match=r"d\.toml is a folder, not a regular file"):
        read_files(["@", "d.toml"])


@pytest.mark.parametrize("content", ["[1]", "5", '"x"', "null"])
def test_a_json_file_that_is_no_table_is_refused(work: Path, content: str) -> None:
    (work / "x.json").write_text(content)

    with pytest.raises(UsageError, match=r"x\.json"):
        read_files(["@", "x.json"])


def test_an_at_without_a_file_is_refused() -> None:
    with pytest.raises(UsageError, match="@ must be followed by"):
        read_files(["@"])


def test_a_word_that_is_no_override_is_refused() -> None:
    with pytest.raises(UsageError, match="Unrecognized arguments: word"):
        merge(["word"])
