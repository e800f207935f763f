"""The file that keeps what completion offers: used while it holds, and never in the way."""

import json
import os

import pytest

from medarc_plugin.cli import completion_table


@pytest.fixture
def looked_up(monkeypatch, tmp_path):
    """A table that is looked up quickly, and counts it."""
    monkeypatch.setenv("MEDARC_CACHE_DIR", str(tmp_path / "cache"))
    times = []

    def look_up():
        times.append(1)
        yield "", {"commands": {"x": "y"}}

    monkeypatch.setattr(completion_table, "look_up", look_up)
    return times


@pytest.fixture
def file(tmp_path):
    """The file, once it is there."""

    def find():
        (path,) = (tmp_path / "cache").glob("completion-*/*.json")
        return path

    return find


TABLE = {"": {"commands": {"x": "y"}}}


def test_it_is_looked_up_once(looked_up, file):
    assert completion_table.table() == completion_table.table() == TABLE
    assert len(looked_up) == 1
    assert file().stat().st_mode & 0o077 == 0


def test_a_changed_command_is_looked_up_anew(looked_up, monkeypatch):
    completion_table.table()
    monkeypatch.setattr(completion_table, "_state", lambda _: (1, 2))

    completion_table.table()

    assert len(looked_up) == 2


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_text("{"),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text(json.dumps({"key": "another", "commands": {}})),
        lambda path: path.write_bytes(b"\xff\xfe"),
        lambda path: path.chmod(0o666),
        lambda path: path.unlink(),
    ],
)
def test_what_cannot_be_trusted_is_looked_up_anew(looked_up, file, spoil):
    completion_table.table()
    spoil(file())

    assert completion_table.table() == TABLE
    assert len(looked_up) == 2


def test_a_folder_that_cannot_be_made_is_no_matter(looked_up, tmp_path):
    (tmp_path / "cache").write_text("a file")

    assert completion_table.table() == TABLE


def test_it_lies_with_the_users_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert completion_table.path().is_relative_to(tmp_path / "medarc")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert completion_table.path().is_relative_to(os.environ["HOME"])
