from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from medarc_plugin.errors import SandboxError
from medarc_plugin.sandbox import Sandbox, folder
from medarc_plugin.sandbox.gpus import allot
from medarc_plugin.sandbox.spec import SandboxSpec


def record(short: Path) -> folder.Record:
    spec = SandboxSpec(gpus=2, extra_lines=("KillWait=30",))
    return folder.Record(
        spec=spec,
        short=short,
        ports=(20001, 20002),
        version=(22, 5),
        gpus=allot(spec, ()),
        loopback_only=True,
    )


def test_nothing_and_an_empty_folder_could_become_a_sandbox(tmp_path: Path) -> None:
    assert not folder.check(tmp_path / "missing")
    assert not folder.check(tmp_path)


def test_a_start_that_was_cut_short_can_be_taken_up(tmp_path: Path) -> None:
    for name in ("lock", ".gitignore", "sandbox.json.new"):
        (tmp_path / name).touch()

    assert folder.check(tmp_path)
    assert folder.load(tmp_path) is None


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SandboxError, match="is not a folder"):
        folder.check(tmp_path / "file")


def test_somebody_elses_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    with pytest.raises(SandboxError, match="and you are 4321"):
        folder.check(tmp_path)


def test_the_record_comes_back_as_it_was(tmp_path: Path) -> None:
    folder.save(tmp_path, record(tmp_path / "short"))

    assert folder.load(tmp_path) == record(tmp_path / "short")
    assert [entry.name for entry in tmp_path.iterdir()] == ["sandbox.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1}', '{"format": "x"}', "null"])
def test_a_damaged_record_says_how_to_get_rid_of_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "sandbox.json").write_text(text)
    with pytest.raises(folder.DamagedRecordError, match="is damaged") as caught:
        folder.load(tmp_path)

    assert "sandbox down --dir" in (caught.value.hint or "")


def test_a_record_of_a_newer_format(tmp_path: Path) -> None:
    (tmp_path / "sandbox.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(SandboxError, match="has format 99"):
        folder.load(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with (
        pytest.raises(SandboxError, match="cannot be written: Read-only file system") as caught,
        folder.locked(tmp_path / "new", create=True),
    ):
        pass

    assert "--dir" in (caught.value.hint or "")


def test_a_second_holder_waits_for_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "_LOCK_SECONDS", 0.05)
    with (
        folder.locked(tmp_path / "s", create=True) as first,
        pytest.raises(SandboxError, match="another command has been starting or stopping"),
        folder.locked(tmp_path / "s", create=True),
    ):
        pass

    assert first
    with folder.locked(tmp_path / "s", create=True) as again:
        assert again


def test_without_a_folder_nothing_is_locked_or_made(tmp_path: Path) -> None:
    with folder.locked(tmp_path / "missing", create=False) as exists:
        assert not exists

    assert list(tmp_path.iterdir()) == []


def test_the_short_path_leads_to_the_folder(tmp_path: Path) -> None:
    directory = tmp_path / "a long name"
    directory.mkdir()
    short = folder.new_short()
    try:
        assert folder.point(short, directory)
        assert (short / "d").samefile(directory)
        assert folder.shorts_of(directory) == [short]
        assert short.stat().st_mode & 0o777 == 0o755
        assert len(str(short)) < 40
    finally:
        folder.remove_short(short)

    assert not short.exists()


def test_the_short_path_follows_a_moved_folder_but_not_a_copy(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    short = tmp_path / "short"
    folder.save(first, record(short))

    assert folder.point(short, first)
    assert not folder.point(short, second)
    assert not folder.leads_to(short, second)

    first.rename(tmp_path / "moved")

    assert folder.leads_to(short, tmp_path / "moved")
    assert folder.point(short, tmp_path / "moved")
    assert (short / "d").samefile(tmp_path / "moved")


def test_a_short_path_is_found_by_its_text_once_the_folder_is_gone(tmp_path: Path) -> None:
    directory = tmp_path / "s"
    directory.mkdir()
    short = folder.new_short()
    try:
        folder.point(short, directory)
        directory.rmdir()

        assert folder.shorts_of(directory) == [short]
        assert folder.shorts_of(tmp_path / "other") == []
    finally:
        folder.remove_short(short)


def test_somebody_elses_short_path_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = folder.new_short()
    try:
        folder.point(short, tmp_path)
        monkeypatch.setattr(os, "geteuid", lambda: 4321)

        assert folder.shorts_of(tmp_path) == []
    finally:
        monkeypatch.undo()
        folder.remove_short(short)


def test_the_environment_is_a_sandboxs_or_that_of_one_to_come(tmp_path: Path) -> None:
    for name in ("missing", "empty", "down"):
        directory = tmp_path / name
        if name != "missing":
            directory.mkdir()
        if name == "down":
            folder.save(directory, record(tmp_path / "short"))

        assert Sandbox(directory).environment() == {"SLURM_CONF": f"{directory}/slurm.conf"}


def test_the_environment_of_what_is_no_sandbox_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for directory in (tmp_path, tmp_path / "file", tmp_path / "file" / "below", Path("/")):
        with pytest.raises(SandboxError):
            Sandbox(directory).environment()


def test_only_short_paths_of_ours_are_removed(tmp_path: Path) -> None:
    folder.remove_short(tmp_path)

    assert tmp_path.exists()


def test_remove_leaves_what_is_not_ours(tmp_path: Path) -> None:
    directory = tmp_path / "s"
    directory.mkdir()
    folder.save(directory, record(tmp_path / "short"))
    folder.make(directory)
    (directory / "mine").touch()
    with pytest.raises(SandboxError, match="still holds mine"):
        folder.remove(directory)

    assert [entry.name for entry in directory.iterdir()] == ["mine"]

    (directory / "mine").unlink()
    folder.remove(directory)

    assert not directory.exists()


def test_a_path_too_long_for_a_socket_is_tried_all_the_same(tmp_path: Path) -> None:
    directory = tmp_path / ("x" * 150)
    directory.mkdir()
    folder.make(directory)

    assert list((directory / "run").iterdir()) == []
