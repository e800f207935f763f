"""Taking up the recorded command of a run: `resume` and `rerun`."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from standins.recorded import end, write_checkpoint, write_state

from medarc_plugin import index
from medarc_plugin.cli import again, arguments
from medarc_plugin.runs import open_run

CONFIG = 'max_steps = {}\n\n[model]\nname = "m"\n\n[data]\ntype = "fake"\n'


@pytest.fixture(autouse=True)
def project(work, checkout, monkeypatch, slurm):
    """A prime-rl, a cluster, and a project with a config, which is the current folder."""
    monkeypatch.setenv("PRIME_RL_DIR", str(checkout))
    folder = work / "project"
    folder.mkdir()
    for name, steps in (("a", 5), ("b", 7)):
        (folder / f"{name}.toml").write_text(CONFIG.format(steps))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def launched(here, project):
    """Launch, and let the job be over: `launched("sft", ...)` gives the run directory."""

    def launch(*argv):
        done = here("medarc_slurm", *argv)
        assert done.code == 0, done.err
        run = Path(done.out.splitlines()[0].split()[1])
        folders = [Path(line.split(maxsplit=2)[-1]) for line in done.out.splitlines()]
        return run if run.is_dir() else next(path for path in folders if path.is_dir())

    return launch


def config(run_dir):
    return json.loads((run_dir / "configs" / "sft.json").read_text())


def provenance(run_dir):
    return json.loads((run_dir / "configs/launch/provenance.json").read_text())


def script(run_dir):
    return (run_dir / "sft.sbatch").read_text()


def test_a_run_is_begun_again_elsewhere_with_its_own_command(here, launched, work, monkeypatch):
    first = launched(
        "sft", "a.toml", "--output-dir", "runs/a", "--gpus", "2", "--time", "30", "--optim.lr", "0.5"
    )
    (work / "elsewhere").mkdir()
    monkeypatch.chdir(work / "elsewhere")

    done = here(
        "medarc_slurm", "rerun", str(first), "--output-dir", "again", "--time", "60", "--max-steps", "9"
    )

    second = work / "elsewhere" / "again"
    assert done.code == 0, done.err
    assert second.is_dir()
    assert config(second)["max_steps"] == 9
    assert config(second)["optim"]["lr"] == 0.5
    assert "--gres=gpu:2" in script(second)
    assert "--time=60" in script(second)
    assert provenance(second)["working_directory"] == str(work / "project")
    assert index.entries()[-1].project == str(work / "project")


def test_what_is_recorded_of_a_rerun_is_a_command_that_means_it(here, launched, work):
    first = launched("sft", "a.toml", "--output-dir", "runs/a", "--gpus", "1", "--env", "A=1", "--no-requeue")
    here("medarc_slurm", "rerun", str(first), "--output-dir", "runs/b", "--env", "B=2")
    here("medarc_slurm", "rerun", str(work / "project/runs/b"), "--output-dir", "runs/c")

    words = provenance(work / "project/runs/c")["command"]
    (request,) = arguments.requests_from("sft", words[1:], default_backend="x", config_first=False)

    assert words[0] == "sft"
    assert request.options == {"env": ("A=1", "B=2"), "requeue": False}
    assert (request.backend, request.gpus.gpus, request.run_dir.name) == ("slurm", 1, "c")
    assert request.arguments == ("@", "a.toml")
    assert config(work / "project/runs/c") | {"output_dir": 0, "run": 0} == config(first) | {
        "output_dir": 0,
        "run": 0,
    }


def test_a_dry_run_writes_and_submits_nothing(here, launched, slurm, work):
    first = launched("sft", "a.toml", "--output-dir", "runs/a", "--gpus", "1")

    done = here("medarc_slurm", "rerun", str(first), "--output-dir", "runs/b", "--dry-run")

    assert done.code == 0
    assert done.out.strip().endswith("sbatch --parsable " + str(work / "project/runs/b/sft.sbatch"))
    assert len(slurm.calls("sbatch")) == 1


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_dry_run_leaves_the_record_of_what_ran(here, launched, by_hand):
    run = launched("sft", "a.toml", "--output-dir", "runs/a", "--gpus", "1")
    (run / "job_17.log").touch()
    (run / "checkpoints").mkdir()
    if by_hand:
        (run / "configs/launch/submission.json").unlink()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    done = here("medarc_slurm", "resume", "runs/a", "--max-steps", "99", "--time", "5:00", "--dry-run")

    assert (done.code, done.out) == (0, ""), done.err
    assert "time limit  5:00" in done.err
    assert "max_steps was 5, and is 99 now" in done.err
    assert f"{run} keeps the record of job 17, so nothing is written" in done.err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_rehearsal_has_no_record_to_keep(here, launched):
    run = launched("sft", "a.toml", "--output-dir", "runs/a", "--gpus", "1", "--rehearse")

    done = here("medarc_slurm", "sft", "a.toml", "--output-dir", "runs/a", "--gpus", "1", "--dry-run")

    assert done.out.strip().endswith(f"sbatch --parsable {run}/sft.sbatch"), done.err


def test_several_dry_runs_leave_what_ran_too(here, launched):
    run = launched("sft", "a.toml", "--output-dir", "runs/a", "--gpus", "1")

    done = here(
        *("medarc_slurm", "sft", "a.toml", "b.toml", "--output-dir", "runs/{stem}", "--gpus", "1"),
        *("--max-steps", "9", "--dry-run"),
    )

    assert done.out.strip().endswith("runs/b/sft.sbatch"), done.err
    assert f"not written: {run} keeps the record of job 17" in done.err
    assert config(run)["max_steps"] == 5


def test_what_was_typed_is_kept_beside_the_command_that_it_means(here, launched, work, monkeypatch):
    run = launched("sft", "a.toml", "--output-dir", "runs/a", "--gpus", "1")
    monkeypatch.chdir(work)

    here("medarc_slurm", "resume", str(run), "--max-steps", "6")

    made = provenance(run)
    assert made["typed"] == ["medarc_slurm", "resume", str(run), "--max-steps", "6"]
    assert (made["typed_in"], made["working_directory"]) == (str(work), str(work / "project"))
    assert made["command"][:3] == ["sft", "--backend", "slurm"]
    here("medarc_slurm", "report", str(run), "-o", str(work / "page.html"))
    page = (work / "page.html").read_text()
    assert f"<code>medarc_slurm resume {run} --max-steps 6</code>" in page
    assert "<code>sft --backend slurm" in page


def test_a_rerun_belongs_to_the_project_of_its_command(here, launched, work, monkeypatch):
    run = launched("sft", "a.toml", "--output-dir", "runs/a", "--gpus", "1")
    (work / "other").mkdir()
    (work / "other" / "medarc.toml").touch()
    (work / "project" / "medarc.toml").touch()
    monkeypatch.chdir(work / "other")

    done = here("medarc_slurm", "rerun", str(run), "--output-dir", "again")

    assert f"project     {work}/project, the one of {run}" in done.err
    assert index.entries()[-1].project == str(work / "project")


def test_of_several_configs_in_one_command_the_runs_own_is_meant(here, launched, work):
    here("medarc_slurm", "sft", "a.toml", "b.toml", "--output-dir", "runs/{stem}", "--gpus", "1")

    done = here("medarc_slurm", "rerun", "runs/b", "--output-dir", "runs/c")

    assert done.code == 0, done.err
    assert config(work / "project/runs/c")["max_steps"] == 7


def test_a_run_goes_on_in_its_directory(here, launched, work, monkeypatch):
    run = launched("sft", "a.toml", "--output-dir", "runs/a", "--gpus", "1", "--clean")
    write_checkpoint(run, 4)
    monkeypatch.chdir(work)

    done = here("medarc_slurm", "resume", str(run), "--max-steps", "6")

    assert done.code == 0, done.err
    assert config(run)["resume"] is not None
    assert "max_steps was 5, and is 6 now" in done.err
    again_ = here("medarc_slurm", "resume", str(run), "--resume.step", "4")
    assert again_.code == 0, again_.err
    assert config(run)["resume"]["step"] == 4
    assert provenance(run)["command"].count("--resume.step") == 1
    assert "--clean" not in provenance(run)["command"]
    assert config(run)["max_steps"] == 6


def test_a_run_that_has_made_all_its_steps_has_nothing_to_go_on_with(here, launched, slurm):
    run = open_run(launched("sft", "a.toml", "--output-dir", "runs/a", "--gpus", "1"))
    end(run, token=run.token)
    write_state(run, step=5, max_steps=5)
    record = provenance(run.run_dir)

    refused = here("medarc_slurm", "resume", "runs/a")

    assert refused.code == 2
    assert "has made 5 of 5 steps" in refused.err
    assert "--max-steps N, more than 5" in refused.err
    assert provenance(run.run_dir) == record
    assert here("medarc_slurm", "resume", "runs/a", "--max-steps", "6").code == 0
    write_checkpoint(run.run_dir, 2)
    assert here("medarc_slurm", "resume", "runs/a", "--resume.step", "2").code == 0
    nothing = here("medarc_slurm", "resume", "runs/a", "--resume.step", "3")
    assert (nothing.code, "no whole checkpoint of step 3" in nothing.err) == (2, True)
    # A run that failed behind its last step has its last checkpoint to make.
    end(run, 2, token=open_run(run.run_dir).token, reason="failed", exit_code=1)
    assert here("medarc_slurm", "resume", "runs/a").code == 0


def test_a_run_that_lives_is_not_resumed(here, launched, slurm):
    run = launched("sft", "a.toml", "--output-dir", "runs/a", "--gpus", "1")
    token = json.loads((run / "configs/launch/submission.json").read_text())["token"]
    slurm.set(jobs={"17": {"state": "PENDING", "comment": f"[medarc:{token}]"}})
    before = script(run)

    done = here("medarc_slurm", "resume", str(run))

    assert (done.code, script(run)) == (2, before)
    assert "belongs to job 17 (PENDING)" in done.err
    assert "medarc_slurm cancel 17" in done.err


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["rerun", "runs/a"], "wants a directory of its own"),
        (["rerun", "runs/a", "--output-dir", "runs/a"], "the directory of the run itself"),
        (["rerun", "runs/a", "--output-dir", "runs/b", "c.toml"], "neither an option nor an override"),
        (["rerun", "runs/a", "--output-dir"], "--output-dir needs a value"),
        (["resume", "runs/a", "--output-dir", "runs/b"], "takes no --output-dir"),
        (["resume", "runs/a", "--clean"], "contradict each other"),
    ],
)
def test_what_cannot_be_meant_is_refused(here, launched, slurm, argv, says):
    launched("sft", "a.toml", "--output-dir", "runs/a", "--gpus", "1")

    done = here("medarc_slurm", *argv)

    assert (done.code, len(slurm.calls("sbatch"))) == (2, 1)
    assert says in done.err


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (None, "is not recorded"),
        ("{", "cannot be read"),
        ('{"command": "rl"}', "is not recorded"),
        ('{"command": ["rl", "x"], "working_directory": "/gone"}', "/gone, which is not there any more"),
        ('{"command": ["python", "x"], "working_directory": "/"}', "is no launch: python x"),
    ],
)
def test_a_record_that_is_of_no_use_is_said_to_be(here, launched, slurm, record, says):
    run = launched("sft", "a.toml", "--output-dir", "runs/a", "--gpus", "1")
    path = run / "configs/launch/provenance.json"
    path.unlink() if record is None else path.write_text(record)

    done = here("medarc_slurm", "resume", "runs/a")

    assert done.code == 2
    assert says in done.err
    assert f"sbatch {run}/sft.sbatch" in done.err


def request(*words):
    (found,) = arguments.requests_from("rl", words, default_backend="slurm", config_first=False)
    return found


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["@", "a", "--resume"], ["@", "a"]),
        (["--resume", "true", "--x", "1"], ["--x", "1"]),
        (["--resume.step", "4", "--x", "--resume.dir=/c", "y"], ["--x", "y"]),
        (["@", "--resume", "--no-resume"], ["@", "--resume"]),
        (["--resume-me", "--resume=false"], ["--resume-me"]),
    ],
)
def test_what_a_command_said_of_resuming_is_left_out(words, left):
    assert list(again._without_resume(words)) == left  # noqa: SLF001


def test_a_checkpoint_of_another_run_is_part_of_a_run(here, launched, work):
    run = launched("sft", "a.toml", "--output-dir", "runs/a", "--gpus", "1", "--resume.dir", "/ckpt/step_3")

    here("medarc_slurm", "rerun", str(run), "--output-dir", "runs/b")

    assert config(work / "project/runs/b")["resume"]["dir"] == "/ckpt/step_3"


def test_a_recorded_variable_that_is_not_set_has_a_way_out(here, launched, monkeypatch):
    monkeypatch.setenv("MY_NAME", "x")
    launched("sft", "a.toml", "--output-dir", "runs/a", "--gpus", "1", "--env", "MY_NAME", "--env", "A=1")
    monkeypatch.delenv("MY_NAME")

    refused = here("medarc_slurm", "resume", "runs/a")
    typed = here("medarc_slurm", "resume", "runs/a", "--env", "OTHER")
    given = here("medarc_slurm", "resume", "runs/a", "--env", "MY_NAME=y")

    assert (refused.code, typed.code, given.code) == (2, 2, 0)
    assert "export MY_NAME, which the recorded command or a profile names; or give it a value:" in refused.err
    assert "export OTHER, or leave the option out" in typed.err


def test_when_a_job_was_to_start_says_nothing_of_the_next(tmp_path):
    old = request("@", "a.toml", "--dependency", "afterok:44", "--begin", "now+2hours", "--time", "30")

    assert again.again(old, request(), tmp_path).options == {"time": "30"}
    assert again.again(old, request("-d", "afterok:45"), tmp_path).options["dependency"] == "afterok:45"


def test_paths_that_are_typed_now_are_meant_from_here(tmp_path):
    old = request("@", "a.toml", "--project-dir", "old")
    extra = replace(request("@", "b.toml", "--project-dir", "new", "--x", "c"), sandbox=Path("box"))

    found = again.again(old, extra, tmp_path)

    assert found.arguments == ("@", "a.toml", "@", str(tmp_path / "b.toml"), "--x", "c")
    assert found.options["project_dir"] == str(tmp_path / "new")
    assert found.sandbox == tmp_path / "box"


def test_every_request_can_be_written_as_a_command():
    typed = request(
        *("@", "a b.toml", "--backend", "local", "--output-dir", "/r", "--train-gpus", "2", "--env", "A=1"),
        *("--env", "B", "--no-requeue", "--exclusive", "--job-name", "-x", "--rehearse", "--no-check"),
        *("--no-cache", "--profile", "p", "--follow", "--sandbox=/s", "--", "--time", "5", "--dry-run"),
    )

    words = again.command_of(typed)

    # To follow a run is nothing of the run's.
    assert request(*words[1:]) == replace(typed, follow=False)


def test_follow_is_for_one_run(here, slurm):
    done = here(
        "medarc_slurm", "sft", "a.toml", "b.toml", "--output-dir", "runs/{stem}", "--gpus", "1", "--follow"
    )

    assert (done.code, slurm.calls("sbatch")) == (2, [])
    assert "--follow shows the logs of one run" in done.err
