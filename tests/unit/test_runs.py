"""Finding runs, and the user's list of submissions that they are found by."""

import json
import threading
from dataclasses import asdict, replace

import pytest

from medarc_plugin import index, project, runs
from medarc_plugin.errors import RunDirectoryError, UsageError
from medarc_plugin.index import Entry
from medarc_plugin.models import Submission
from medarc_plugin.rundir import record


@pytest.fixture(autouse=True)
def _alone(clean_environment):
    """An empty home, so that the list is empty too."""


@pytest.fixture
def entry(work):
    """An entry of the list, for a run of this project."""
    return Entry(
        run_dir=str(work / "runs" / "a"),
        entrypoint="rl",
        name="a",
        backend="slurm",
        job_id="7",
        cluster=None,
        slurm_conf=None,
        token="abc",
        submitted_at="2026-01-01T00:00:00+00:00",
        project=str(work),
        gpus=2,
    )


@pytest.fixture
def make_run(work):
    """Write what a launch leaves of a run: `make_run("a")`."""

    def make(name, job_id="7", entrypoint="rl"):
        launch = work / "runs" / name / "configs" / "launch"
        launch.mkdir(parents=True)
        (launch / "launch.json").write_text(
            json.dumps({"name": name, "entrypoint": entrypoint, "token": "abc"})
        )
        run = runs.open_run(work / "runs" / name)
        record(run.files, Submission(job_id, None, run.files.script, run.files.log, "2026", "abc", "slurm"))
        return runs.open_run(run.run_dir)

    return make


def test_the_list_gives_back_what_was_added(entry):
    index.add(entry)
    index.add(replace(entry, job_id="8"))

    assert [found.job_id for found in index.entries()] == ["7", "8"]
    assert index.entries()[0] == entry
    assert index.path().stat().st_mode & 0o077 == 0


def test_a_rehearsal_is_meant_only_where_there_is_no_run(entry, make_run, work):
    rehearsed = make_run("b", "8")
    index.add(replace(entry, run_dir=str(rehearsed.run_dir), job_id="8", rehearsal=True))
    assert runs.find().run_dir == rehearsed.run_dir

    run = make_run("a", "7")
    index.add(entry)
    index.add(replace(entry, run_dir=str(rehearsed.run_dir), job_id="9", rehearsal=True))
    assert runs.find().run_dir == run.run_dir
    assert [each.rehearsal for each in runs.of_project()] == [True, False]


def test_a_run_is_found_by_its_name_where_it_is_one_runs(entry, make_run, work):
    for name, job_id, project_ in (("a", "7", work), ("b", "8", "/elsewhere"), ("a2", "9", work)):
        run_dir = str(make_run(name, job_id).run_dir)
        index.add(replace(entry, run_dir=run_dir, name=name[0], job_id=job_id, project=str(project_)))

    assert runs.find("b").run_dir == work / "runs" / "b"
    assert runs.find("a2").run_dir == work / "runs" / "a2"
    with pytest.raises(UsageError, match="a is the name of 2 runs: "):
        runs.find("a")
    with pytest.raises(UsageError, match="there is no run c: "):
        runs.find("c")


def test_a_list_of_an_older_version_is_read(entry):
    document = asdict(entry)
    del document["rehearsal"]
    index.add(entry)
    index.path().write_text(json.dumps(document) + "\n")

    assert index.entries() == [entry]


def test_the_list_has_a_place_of_its_own_for_each_user(monkeypatch, tmp_path):
    monkeypatch.setenv("MEDARC_STATE_DIR", str(tmp_path / "shared"))

    assert index.path().parent == tmp_path / "shared"
    assert index.path().name.startswith("runs-")


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b"{}", b'{"run_dir": 3}', b"\xff\xfe", b'"' + b"x" * 70_000 + b'"', b"null"]
)
def test_a_torn_or_foreign_line_costs_no_other(entry, line):
    index.add(entry)
    with index.path().open("ab") as handle:
        handle.write(line)
    index.add(replace(entry, job_id="8"))

    assert [found.job_id for found in index.entries()] == ["7", "8"]


def test_what_a_newer_version_wrote_beside_is_no_matter(entry):
    index.path().parent.mkdir(parents=True)
    index.path().write_text(json.dumps(asdict(entry) | {"colour": "red"}) + "\n")

    assert index.entries() == [entry]


def test_the_list_forgets_its_oldest_lines(entry, monkeypatch):
    monkeypatch.setattr(index, "MOST", 20)
    for number in range(50):
        index.add(replace(entry, job_id=str(number)))

    kept = [int(found.job_id) for found in index.entries()]
    assert kept == list(range(kept[0], 50))
    assert 20 <= len(kept) <= 22


def test_many_at_once_lose_nothing(entry):
    def add(number):
        index.add(replace(entry, job_id=str(number)))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(int(found.job_id) for found in index.entries()) == list(range(40))


def test_a_project_begins_where_its_profile_is_else_where_git_is(tmp_path):
    inner = tmp_path / "repository" / "project" / "deep"
    inner.mkdir(parents=True)

    assert project.root(inner) == inner
    (tmp_path / "repository" / ".git").mkdir()
    assert project.root(inner) == tmp_path / "repository"
    (tmp_path / "repository" / "project" / "medarc.toml").touch()
    assert project.root(inner) == tmp_path / "repository" / "project"


def test_a_run_is_found_by_its_directory(make_run, work, monkeypatch):
    made = make_run("a", entrypoint="sft")
    monkeypatch.chdir(work / "runs")

    found = runs.find("a")

    assert found == made
    assert (found.entrypoint, found.name, found.token) == ("sft", "a", "abc")


def test_a_run_is_found_by_its_job(make_run, entry):
    made = make_run("a")
    index.add(entry)

    assert runs.find("7") == made


def test_the_newest_run_of_the_project_is_meant_when_none_is_named(make_run, entry, work):
    for name in ("a", "b"):
        made = make_run(name)
        index.add(replace(entry, run_dir=str(made.run_dir)))
    index.add(replace(entry, run_dir="/elsewhere", project="/elsewhere"))
    index.add(replace(entry, run_dir=str(work / "runs" / "deleted")))

    assert runs.find().name == "b"
    assert [found.run_dir for found in runs.of_user()][1] == "/elsewhere"
    assert "/elsewhere" not in [found.run_dir for found in runs.of_project()]


def test_a_run_that_was_submitted_again_is_listed_once(entry):
    index.add(entry)
    index.add(replace(entry, run_dir="/other"))
    index.add(replace(entry, job_id="9"))

    assert [found.job_id for found in runs.of_project()] == ["9", "7"]


def test_runs_named_twice_are_one(make_run, entry):
    made = make_run("a")
    index.add(entry)

    assert runs.find_all(["7", str(made.run_dir)]) == [made]


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ("nowhere", "there is no run nowhere"),
        ("99", "there is no run of job 99"),
        (None, "no run was submitted from"),
        ("", "there is no run "),
        ("x" * 5000, "there is no run x"),
        ("a\0b", "there is no run a"),
    ],
)
def test_an_unknown_run_is_said_to_be(named, says):
    with pytest.raises(UsageError, match=says) as raised:
        runs.find(named)
    assert "medarc_slurm list" in raised.value.hint


def test_a_folder_that_is_no_run_is_refused(work):
    (work / "runs").mkdir()

    with pytest.raises(RunDirectoryError, match="is no run"):
        runs.find("runs")


def test_a_run_that_was_deleted_is_said_to_be(entry):
    index.add(entry)

    with pytest.raises(RunDirectoryError, match=r"not at .*runs/a any more: it was moved or deleted"):
        runs.find("7")
    with pytest.raises(UsageError, match="are gone"):
        runs.find()


@pytest.mark.parametrize("text", ["{", "[]", "\x00", ""])
def test_torn_records_are_no_end(make_run, text):
    made = make_run("a")
    (made.files.config).write_text("{}")
    made.files.plan.write_text(text)
    made.files.submission.write_text(text)

    found = runs.find(str(made.run_dir))

    assert found.submission is None
    assert found.name == "a"
    assert len(found.trouble) == 2


def test_a_job_of_which_slurm_does_not_speak_is_not_called_unknown_to_it(slurm):
    slurm.set(up=False)

    with pytest.raises(
        UsageError, match="job 4242 in your list of runs, and SLURM does not say what it is: "
    ):
        runs.find("4242")


def test_a_folder_that_is_called_as_a_job_is_does_not_hide_the_job(make_run, entry, work):
    run = make_run("a")
    index.add(entry)
    (work / "7").mkdir()

    assert runs.find("7").run_dir == run.run_dir


def test_no_name_is_no_run():
    with pytest.raises(UsageError, match="there is no run '': "):
        runs.find("")
