"""Launches that are cut off, misled or misread: nothing is half done, and nothing fails in silence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from medarc_plugin import index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from standins import Slurm

    Run = Callable[..., Any]

EXAMPLES = Path(__file__).parents[2] / "examples" / "reverse_text"
SFT = ("--backend", "slurm", "@", str(EXAMPLES / "sft.toml"), "--output-dir", "runs/a", "--gpus", "1")
SECRET = "hf_qWertzuiop"


@pytest.fixture(autouse=True)
def _host(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIME_RL_DIR", str(checkout))


def test_a_submission_that_was_cut_off_is_found_by_its_token(here: Run, work: Path, slurm: Slurm) -> None:
    here("sft", *SFT, "--dry-run")
    token = json.loads((work / "runs/a/configs/launch/launch.json").read_text())["token"]
    slurm.set(jobs={"23": {"state": "PENDING", "comment": f"mine [medarc:{token}]"}})

    again = here("sft", *SFT)

    assert again.code == 2
    assert "belongs to job 23 (PENDING)" in again.err
    assert slurm.calls("sbatch") == []


@pytest.mark.parametrize("code", [-9, 137])
def test_an_sbatch_that_was_killed_is_no_refusal(here: Run, work: Path, slurm: Slurm, code: int) -> None:
    slurm.act({"job": "23", **({"dies": True} if code < 0 else {"code": code})})

    result = here("sft", *SFT)

    assert result.code == 0
    assert "sbatch was killed; SLURM has the job all the same: 23 (PENDING)" in result.err
    assert result.out.startswith("job     23\n")
    assert recorded(work)["job_id"] == "23"


def recorded(work: Path) -> Any:
    return json.loads((work / "runs/a/configs/launch/submission.json").read_text())


@pytest.fixture
def typed(work: Path) -> Iterator[Callable[[], Any]]:
    """Type the command in a terminal of its own, and leave it to itself."""
    started = []

    def start() -> subprocess.Popen[str]:
        script = Path(sys.executable).with_name("sft")
        process = subprocess.Popen(
            [script, *SFT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        started.append(process)
        return process

    yield start

    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def is_sending(slurm: Slurm) -> None:
    """Wait until sbatch has written down its job, and hangs."""
    end = time.monotonic() + 60
    while not (slurm.folder / "waiting").exists():
        assert time.monotonic() < end, "sbatch was not started"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_while_sbatch_is_at_work_leaves_a_recorded_job(
    typed: Run, work: Path, slurm: Slurm, number: int, code: int
) -> None:
    slurm.act({"job": "23", "says": "23\n", "waits": True})
    process = typed()
    is_sending(slurm)
    os.killpg(process.pid, number)
    while "stopping: sbatch is at work" not in (line := process.stderr.readline()):
        assert line, "it did not wait for sbatch"
    (slurm.folder / "go").touch()
    _, said = process.communicate(timeout=60)

    assert process.returncode == code, said
    assert f"job 23 is submitted, and recorded in {work / 'runs/a'}" in said
    assert "hint: `scancel 23` ends it" in said
    assert recorded(work)["job_id"] == "23"


def test_a_signal_while_sbatch_is_at_work_leaves_no_job_where_there_is_none(
    typed: Run, work: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDARC_PATIENCE", "grace=0.1,settle=0.1")
    slurm.act({"waits": True})
    process = typed()
    is_sending(slurm)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "interrupted: nothing was submitted: sbatch was given up: it was stopped" in said
    assert not (work / "runs/a/configs/launch/submission.json").exists()
    assert len(slurm.calls("sbatch")) == 1


def test_a_launch_that_was_killed_is_settled_by_the_next(
    typed: Run, here: Run, work: Path, slurm: Slurm
) -> None:
    slurm.act({"job": "23", "waits": True})
    process = typed()
    is_sending(slurm)
    process.kill()
    process.wait()
    (slurm.folder / "go").touch()

    again = here("sft", *SFT)

    assert again.code == 2
    assert "which was cut off, submitted job 23 (PENDING), which is recorded now" in again.err
    assert f"{work / 'runs/a'} belongs to job 23 (PENDING)" in again.err
    assert recorded(work)["job_id"] == "23"
    assert [(entry.job_id, entry.run_dir) for entry in index.entries()] == [("23", str(work / "runs/a"))]
    assert len(slurm.calls("sbatch")) == 1


def test_a_launch_that_was_killed_and_that_nobody_can_tell_about_blocks_the_directory(
    typed: Run, here: Run, slurm: Slurm
) -> None:
    slurm.act({"waits": True})
    process = typed()
    is_sending(slurm)
    process.kill()
    process.wait()
    (slurm.folder / "go").touch()
    slurm.set(up=False)

    again = here("sft", *SFT)

    assert again.code == 2
    assert "nobody can say whether SLURM took the job of the launch of" in again.err
    assert len(slurm.calls("sbatch")) == 1


def test_a_second_launch_waits_for_the_first_and_is_refused(typed: Run, work: Path, slurm: Slurm) -> None:
    slurm.act({"job": "23", "says": "23\n", "waits": True})
    first = typed()
    is_sending(slurm)
    second = typed()
    while "waiting for it" not in (line := second.stderr.readline()):
        assert line, "it did not wait"
    (slurm.folder / "go").touch()
    _, said = second.communicate(timeout=60)
    first.communicate(timeout=60)

    assert (first.returncode, second.returncode) == (0, 2)
    assert f"another launch (process {first.pid} on " in line
    assert f"{work / 'runs/a'} belongs to job 23 (PENDING)" in said
    assert len(slurm.calls("sbatch")) == 1


def test_a_job_that_slurm_lost_leaves_its_directory(here: Run, work: Path, slurm: Slurm) -> None:
    assert here("sft", *SFT).code == 0

    again = here("sft", *SFT)

    assert again.code == 0
    assert "SLURM has lost job 17: it never began" in again.err
    assert len(slurm.calls("sbatch")) == 2


def test_a_reader_that_goes_away_stops_no_submission(work: Path, slurm: Slurm) -> None:
    script = Path(sys.executable).with_name("sft")
    done = subprocess.run(
        ["/bin/bash", "-c", '"$@" 2>&1 | true; exit "${PIPESTATUS[0]}"', "bash", script, *SFT],
        env=os.environ,
        check=False,
    )

    assert done.returncode == 0
    assert len(slurm.calls("sbatch")) == 1
    assert (work / "runs/a/configs/launch/submission.json").is_file()


def redirected(redirections: str, *argv: str) -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).with_name("sft")
    command = ["/bin/bash", "-c", f'exec "$@" {redirections}', "bash", script, *SFT, *argv]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_full_standard_output_loses_no_job_and_is_no_success(work: Path, slurm: Slurm) -> None:
    done = redirected("> /dev/full")

    assert done.returncode == 1
    record = json.loads((work / "runs/a/configs/launch/submission.json").read_text())
    assert f"job     {record['job_id']}\n" in done.stderr
    assert "error: standard output cannot be written: No space left on device\n" in done.stderr


def test_a_table_for_a_full_standard_output_is_an_error(work: Path) -> None:
    done = subprocess.run(
        ["/bin/bash", "-c", '"$0" options > /dev/full', Path(sys.executable).with_name("medarc_slurm")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("redirections", [">&-", "<&- >&-", "<&- >&- 2>&-"])
def test_without_a_standard_output_nothing_is_begun(work: Path, slurm: Slurm, redirections: str) -> None:
    done = redirected(redirections)

    assert done.returncode == 2
    assert done.stderr == "" or done.stderr.startswith("error: standard output is closed")
    assert not (work / "runs").exists()


@pytest.mark.parametrize("redirections", ["2>&-", "<&- 2>&-", "2> /dev/full"])
def test_an_error_stream_that_takes_nothing_stops_no_launch(
    work: Path, slurm: Slurm, redirections: str
) -> None:
    done = redirected(redirections)

    assert done.returncode == 0
    assert done.stdout.startswith("job ")
    assert len(slurm.calls("sbatch")) == 1


def test_the_value_of_a_secret_is_written_nowhere_however_it_came_there(
    here: Run, work: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("WANDB_MODE", "offline")

    results = [
        here("sft", *SFT, "--setup", f"export HF_TOKEN={SECRET}"),
        here("sft", *SFT, "--env", f"PLAIN={SECRET}"),
        here("sft", *SFT, "--monitors.wandb.project", SECRET),
    ]

    assert [(result.code, SECRET in result.err) for result in results] == [(2, False)] * 3
    assert all("the value of HF_TOKEN would be written into" in result.err for result in results)
    assert not (work / "runs").exists()
    assert slurm.calls("sbatch") == []


ANSWERS = ["garbage", "{}", "[]", "null", '{"kind": "resolved"}', "\udcff"]


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_interpreter_that_answers_something_else_is_no_prime_rl(
    here: Run, work: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    python = work / "python"
    text = f"#!{sys.executable}\nimport sys\nopen(sys.argv[3], 'wb').write({os.fsencode(answer)!r})\n"
    python.write_text(text)
    python.chmod(0o755)
    monkeypatch.setenv("PRIME_RL_PYTHON", str(python))

    result = here("sft", *SFT, "--dry-run")

    assert result.code == 2
    assert "gave no answer that can be read" in result.err
    assert not (work / "runs").exists()


def test_a_shell_line_that_bash_cannot_read_is_refused(here: Run, work: Path) -> None:
    result = here("sft", *SFT, "--setup", "if then", "--dry-run")

    assert result.code == 2
    assert "bash cannot read the script" in result.err
    assert not (work / "runs").exists()


def test_a_current_directory_that_is_gone_is_said_so(cli: Run, work: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    try:
        result = cli("sft", *SFT, "--dry-run")
    finally:
        os.chdir(work)

    assert result.code == 2
    assert "the current directory does not exist any more" in result.err


@pytest.mark.parametrize("argv", [("--project-dir", "~nobody-here/x"), ("--hf-cache-dir", "~nobody-here")])
def test_a_home_of_nobody_is_a_name_like_any_other(here: Run, argv: tuple[str, str]) -> None:
    result = here("sft", *SFT, *argv, "--dry-run")

    assert "Traceback" not in result.err
    assert result.code == (2 if argv[0] == "--project-dir" else 0)


def test_an_option_behind_the_dashes_is_not_lost_in_silence(here: Run) -> None:
    result = here("sft", *SFT, "--dry-run", "--", "--slurm.partition", "gpu")

    assert result.code == 2
    assert "--slurm.partition stands after `--`" in result.err


def test_a_plugin_that_exits_does_not_end_a_launch_as_if_all_were_well(
    here: Run, work: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(plan: object) -> None:
        del plan
        raise SystemExit(0)

    monkeypatch.setattr("medarc_plugin.preflight.medarc_preflight.__code__", leave.__code__)

    result = here("sft", *SFT)

    assert result.code == 2
    assert "plugin 'preflight'" in result.err
    assert not (work / "runs").exists()
    assert slurm.calls("sbatch") == []


EARLY = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, *_):
        if name == "{imported}":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
import {module}
"""


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("medarc_plugin.cli.entrypoints", "pydantic"),
        ("medarc_plugin.cli.medarc_slurm", "medarc_plugin.models"),
    ],
)
def test_ctrl_c_while_modules_are_still_imported_shows_no_traceback(module: str, imported: str) -> None:
    program = EARLY.format(module=module, imported=imported)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
