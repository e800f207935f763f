"""Whose a run directory is, and what may be deleted."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from standins import make_plan

from medarc_plugin import rundir
from medarc_plugin.errors import RunDirectoryError
from medarc_plugin.models import JobPlan, JobState, Submission, TextFile

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def plan(work: Path) -> JobPlan:
    return make_plan(work / "runs" / "a")


def check(plan: JobPlan, state: str = "GONE", *, clean: bool = False, resume: bool = False) -> None:
    rundir.check(plan, lambda _: JobState(state), clean=clean, resume=resume)


def fill(plan: JobPlan, *names: str) -> None:
    for name in names:
        path = plan.run_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def record(plan: JobPlan) -> None:
    plan.files.launch.mkdir(parents=True)
    script, log = plan.files.script, plan.files.log_of("17")
    rundir.record(
        plan.files, Submission("17", None, script, log, "2026-11-22T16:43:41+00:00", "token", "slurm")
    )


def test_a_directory_that_is_not_there_is_free(plan: JobPlan) -> None:
    check(plan)

    assert not plan.run_dir.parent.exists()


def test_what_a_launcher_writes_is_not_in_the_way(plan: JobPlan) -> None:
    fill(plan, "configs/rl.json", "configs/launch/launch.json", "rl.sbatch", "sft.sbatch", "job_17.log")

    check(plan)


def test_what_a_launch_was_killed_over_is_not_in_the_way(plan: JobPlan) -> None:
    fill(plan, ".rl.sbatch.k3_z9abc", "configs/rl.json", ".rl.sbatch.mine")
    rundir.sweep(plan.files)

    assert rundir.artifacts(plan.run_dir, "rl.sbatch") == [".rl.sbatch.mine"]
    assert {path.name for path in plan.run_dir.iterdir()} == {"configs", ".rl.sbatch.mine"}


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "checkpoints/step_1/x", "logs/x", "inference.sbatch", "job_1.txt", ".hidden"]
)
def test_a_run_that_is_there_is_refused_with_the_ways_out(plan: JobPlan, name: str) -> None:
    fill(plan, "configs/rl.json", name)

    with pytest.raises(RunDirectoryError, match="already holds a run: ") as caught:
        check(plan)

    assert caught.value.hint == (
        "--resume goes on with it, --clean deletes it first, another --output-dir keeps both"
    )


def test_a_folder_with_something_else_in_it_is_no_run(plan: JobPlan) -> None:
    fill(plan, "thesis.tex")

    with pytest.raises(RunDirectoryError, match=r"is not empty, and not a run: thesis\.tex"):
        check(plan)


def test_a_run_may_go_on(plan: JobPlan) -> None:
    fill(plan, "metrics.jsonl", "checkpoints/step_1/x")

    check(plan, resume=True)


@pytest.mark.parametrize(
    "state", ["PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "REQUEUED", "UNKNOWN"]
)
@pytest.mark.parametrize("how", ["", "clean", "resume"])
def test_a_directory_with_a_job_in_the_queue_is_always_refused(plan: JobPlan, state: str, how: str) -> None:
    record(plan)

    with pytest.raises(RunDirectoryError, match="belongs to job 17") as caught:
        check(plan, state, clean=how == "clean", resume=how == "resume")

    assert "scancel 17" in (caught.value.hint or "")


def test_the_command_that_ends_another_clusters_job_names_it(plan: JobPlan) -> None:
    submission = Submission("17", "east", plan.files.script, plan.files.log, "", plan.token, "slurm")

    assert submission.scancel() == "scancel -M east 17"
    assert submission.scancel("18", "west") == "scancel -M west 18"


def test_why_a_job_is_in_its_state_is_said(plan: JobPlan) -> None:
    record(plan)

    with pytest.raises(RunDirectoryError, match=r"belongs to job 17 \(PENDING: Resources\)"):
        rundir.check(plan, lambda _: JobState("PENDING", "Resources"), clean=False, resume=False)


def test_a_record_of_a_newer_version_is_read(plan: JobPlan) -> None:
    record(plan)
    document = json.loads(plan.files.submission.read_text())
    plan.files.submission.write_text(json.dumps({**document, "format": 9, "sendings": [1, 2]}))

    assert rundir.read_submission(plan.files) is not None


@pytest.mark.parametrize(
    "state", ["COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "GONE", "LOST"]
)
def test_a_job_that_is_over_holds_nothing(plan: JobPlan, state: str) -> None:
    record(plan)

    check(plan, state)


def test_a_record_is_read_as_it_was_written(plan: JobPlan) -> None:
    record(plan)

    found = rundir.read_submission(plan.files)

    assert found is not None
    assert (found.job_id, found.script, found.log) == ("17", plan.files.script, plan.run_dir / "job_17.log")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"script": 1, "log": 2}', "null", '"x"', "\xff\0"])
def test_a_torn_record_is_refused_and_not_taken_for_none(plan: JobPlan, text: str) -> None:
    record(plan)
    plan.files.submission.write_bytes(text.encode("latin-1"))

    with pytest.raises(RunDirectoryError, match="the record of a submission cannot be read") as caught:
        check(plan, clean=True)

    assert "squeue --me" in (caught.value.hint or "")


def test_a_name_too_long_for_the_file_system_is_refused(work: Path) -> None:
    with pytest.raises(RunDirectoryError, match="File name too long"):
        check(make_plan(work / ("x" * 300)))


def test_clean_takes_a_run_away_and_nothing_beside_it(plan: JobPlan) -> None:
    fill(
        plan,
        "configs/rl.json",
        "configs/launch/launch.json",
        "metrics.jsonl",
        "logs/a/b",
        "rl.sbatch",
        "job_1.log",
    )
    kept = plan.run_dir.parent / "kept"
    kept.touch()
    (plan.run_dir / "logs" / "link").symlink_to(kept)
    (plan.run_dir / "checkpoints").symlink_to(plan.run_dir.parent, target_is_directory=True)

    check(plan, clean=True)
    with rundir.locked(plan.files):
        rundir.clean(plan.files)
        left = sorted(plan.run_dir.rglob("*"))

    assert kept.exists()
    assert [path.relative_to(plan.run_dir).as_posix() for path in left] == [
        "configs",
        "configs/launch",
        "configs/launch/lock",
        "configs/launch/lock.owner",
    ]


def test_clean_keeps_away_from_a_folder_that_is_no_run(plan: JobPlan) -> None:
    fill(plan, "thesis.tex", "configs/mine.toml")

    with pytest.raises(RunDirectoryError, match=r"it holds thesis\.tex"):
        check(plan, clean=True)


@pytest.mark.parametrize("name", [".git", "pyproject.toml", ".venv"])
def test_clean_keeps_away_from_a_project_though_it_has_configs(plan: JobPlan, name: str) -> None:
    fill(plan, "configs/rl.toml", name)

    with pytest.raises(RunDirectoryError, match=f"it holds {name}"):
        check(plan, clean=True)


def test_clean_keeps_away_from_where_one_is(work: Path) -> None:
    plan = make_plan(work)
    fill(plan, "configs/rl.toml")

    with pytest.raises(RunDirectoryError, match="it is where you are"):
        check(plan, clean=True)


def test_clean_follows_no_link_out_of_the_run(plan: JobPlan, work: Path) -> None:
    elsewhere = work / "elsewhere"
    (elsewhere / "launch").mkdir(parents=True)
    (elsewhere / "rl.json").touch()
    plan.run_dir.mkdir(parents=True)
    (plan.run_dir / "metrics.jsonl").touch()
    (plan.run_dir / "configs").symlink_to(elsewhere, target_is_directory=True)

    with pytest.raises(RunDirectoryError, match="a link to somewhere else"):
        check(plan, clean=True)


def test_clean_spares_a_run_below_another(plan: JobPlan) -> None:
    fill(plan, "configs/rl.json", "metrics.jsonl", "child/configs/launch/launch.json")

    with pytest.raises(RunDirectoryError, match="it holds child"):
        check(plan, clean=True)


def test_clean_honours_never_clean(plan: JobPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEVER_CLEAN", "1")
    fill(plan, "configs/rl.json", "metrics.jsonl")

    with pytest.raises(RunDirectoryError, match="NEVER_CLEAN is set"):
        check(plan, clean=True)


def test_files_are_written_whole_and_with_their_modes(work: Path) -> None:
    path = work / "a" / "b.sh"
    umask = os.umask(0o022)
    try:
        rundir.write([TextFile(path, "old"), TextFile(path, "ä\n", 0o755)])
    finally:
        os.umask(umask)

    assert path.read_text(encoding="utf-8") == "ä\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert [entry.name for entry in path.parent.iterdir()] == ["b.sh"]


def test_the_users_umask_is_honoured(work: Path) -> None:
    umask = os.umask(0o077)
    try:
        rundir.write([TextFile(work / "f", "")])
    finally:
        os.umask(umask)

    assert stat.S_IMODE((work / "f").stat().st_mode) == 0o600


def test_a_file_that_cannot_be_written_is_an_error(work: Path) -> None:
    (work / "f").mkdir()
    (work / "f" / "x").touch()

    with pytest.raises(RunDirectoryError, match="f cannot be written"):
        rundir.write([TextFile(work / "f", "")])

    assert [entry.name for entry in work.iterdir()] == ["f"]


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """A disk on which no file gets larger than so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_becomes_full_leaves_nothing_of_a_launch(plan: JobPlan) -> None:
    files = [TextFile(plan.files.script, "#!", 0o755), TextFile(plan.files.job / "owner.py", "x" * 9000)]

    with (
        full_disk(5000),
        pytest.raises(RunDirectoryError, match=r"owner\.py cannot be written: File too large"),
        rundir.locked(plan.files),
    ):
        rundir.write(files)

    assert not plan.run_dir.parent.exists()


def test_a_disk_that_becomes_full_leaves_an_earlier_launch_as_it_was(plan: JobPlan, work: Path) -> None:
    def files(text: str) -> list[TextFile]:
        job = TextFile(plan.files.job / "owner.py", text)
        return [TextFile(plan.files.script, text[:9], 0o755), TextFile(plan.files.config, text[:9]), job]

    with rundir.locked(plan.files):
        rundir.write(files("first" * 9))
    before = {path: path.read_bytes() for path in work.rglob("*") if path.is_file()}
    with full_disk(5000), pytest.raises(RunDirectoryError), rundir.locked(plan.files):
        rundir.write(files("other" * 9000))

    assert {path: path.read_bytes() for path in work.rglob("*") if path.is_file()} == before


def test_what_can_be_started_gets_its_name_last(
    plan: JobPlan, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named: list[str] = []
    replace = Path.replace

    def note(path: Path, target: Path) -> Path:
        named.append(target.name)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", note)

    rundir.write([TextFile(plan.files.script, "", 0o755), TextFile(plan.files.config, "")])

    assert named == [plan.files.config.name, plan.files.script.name]


def test_a_launch_that_is_refused_takes_its_lock_away_but_none_that_is_held(plan: JobPlan) -> None:
    with pytest.raises(KeyboardInterrupt), rundir.locked(plan.files):
        raise KeyboardInterrupt
    gone = not plan.run_dir.parent.exists()
    with rundir.locked(plan.files):
        rundir.write([TextFile(plan.files.config, "")])
    with pytest.raises(KeyboardInterrupt), rundir.locked(plan.files):
        raise KeyboardInterrupt

    assert gone
    assert plan.files.config.exists()


def test_a_lock_that_went_while_it_was_waited_for_is_taken_anew(
    plan: JobPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medarc_plugin.lock.WAIT_SECONDS", 0.1)
    plan.files.launch.mkdir(parents=True)
    lock, flock = plan.files.launch / "lock", fcntl.flock

    def take_away(handle: object, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        lock.unlink()
        flock(handle, operation)  # type: ignore[arg-type]

    monkeypatch.setattr(fcntl, "flock", take_away)

    with rundir.locked(plan.files):
        assert lock.exists()
        with pytest.raises(RunDirectoryError, match="another launch"), rundir.locked(plan.files):
            pass


def test_a_record_is_plain_json(plan: JobPlan) -> None:
    record(plan)

    document = json.loads(plan.files.submission.read_text())

    assert document["job_id"] == "17"
    assert document["script"] == str(plan.files.script)
