"""Every known failure, and some unknown ones, told from the logs and records that they leave.

Each folder of `tests/failures` is one: `capture.toml` says what it is and where its wording is from, `logs`
is what prime-rl's launch left, and `job.log` what the job printed: pieces of real logs around the message.
The record of the attempt is made as the job makes it.
"""

import json
import shutil
from pathlib import Path

import pytest
import tomli
from standins import recorded
from standins.recorded import MARK, end

from medarc_plugin import failures, standing, why
from medarc_plugin.cli import why as command
from medarc_plugin.job.failures import describe
from medarc_plugin.why.evidence import read_failure

CAPTURES = Path(__file__).parents[1] / "failures"
NAMES = sorted(path.name for path in CAPTURES.iterdir())


class Capture:
    """A captured failure, laid out as the run directory that it is from."""

    def __init__(self, name: str, run_dir: Path) -> None:
        self.name = name
        folder = CAPTURES / name
        self.about = tomli.loads((folder / "capture.toml").read_text())
        self.run = recorded.make_run(
            run_dir, plan={"entrypoint": self.about.get("entrypoint", "rl"), "fields": {"shape": "main"}}
        )
        launch = run_dir / "logs" / "attempt_1"
        if (folder / "logs").is_dir():
            shutil.copytree(folder / "logs", launch)
            (run_dir / "logs" / "latest").symlink_to("attempt_1")
        shutil.copy(folder / "job.log", run_dir / "job_17.log")
        shutil.copy(folder / "job.log", run_dir / "prime_rl.log")

    @property
    def known(self) -> str | None:
        return self.about["known"] or None

    def record(self) -> None:
        """Record the attempt as the job does."""
        reason = self.about.get("reason", "failed")
        if reason == "absent":
            return
        failure = ""
        if "component" in self.about:
            elsewhere = {"prime-rl's launcher": self.run.run_dir / "prime_rl.log"}
            component, code = self.about["component"], self.about["code"]
            failure = str(describe(self.run.run_dir, component, code, logs_elsewhere=elsewhere))
        if reason:
            end(
                self.run,
                reason=reason,
                exit_code=int(self.about.get("exit_code", "1:0").partition(":")[0]),
                failure=failure,
                failed=self.about.get("failed", []),
            )
        else:
            recorded.begin(self.run, silent=500)

    def play(self, slurm) -> None:
        """Let SLURM say how the job ended, where that matters; else the records are enough."""
        if "state" not in self.about:
            slurm.remove()
            return
        state, code = self.about.get("state", "FAILED"), self.about.get("exit_code", "1:0")
        job = {"state": state, "exit_code": code, "reason": "None", "node": "node7", "comment": MARK}
        job |= {
            name: self.about[f"job_{name}"]
            for name in ("reason", "dependency")
            if f"job_{name}" in self.about
        }
        by = self.about.get("cancelled_by")
        row = {"id": "17", "state": state if by is None else f"{state} by {by}", "exit_code": code}
        row |= {"comment": MARK}
        slurm.set(jobs={"17": job}, accounting=[row])


@pytest.fixture
def explained(work, slurm):
    """Lay a captured failure out, and explain it."""

    def explain(name):
        capture = Capture(name, work / "runs" / "a")
        capture.record()
        capture.play(slurm)
        answer = why.explain(capture.run)
        assert slurm.refused == ""
        return capture, answer

    return explain


@pytest.mark.parametrize("name", NAMES)
def test_a_captured_failure_is_named_right_or_said_to_be_unknown(explained, name):
    capture, answer = explained(name)

    failure = answer.document()["failure"]
    assert failure["known"] == capture.known
    assert bool(failure["likely"]) == capture.about.get("likely", False)
    text = "\n".join(answer.lines)
    if capture.known is None:
        assert "no known cause" in text
        assert any("medarc_slurm logs" in hint for hint in answer.hints)
    else:
        (entry,) = [each for each in failures.KNOWN if each.name == capture.known]
        assert f"cause: {entry.title}." in text
        assert answer.hints[0] == failure["way"]
        assert "MODULE" not in failure["cause"]


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("unknown-")])
def test_of_an_unknown_failure_the_component_its_error_and_its_log_are_shown(explained, name):
    capture, answer = explained(name)

    failure = answer.document()["failure"]
    component, error = capture.about["component"], capture.about["error"]
    assert (failure["component"], failure["error"]) == (component, error or None)
    assert Path(failure["log"]).is_file()
    text = "\n".join(answer.lines)
    assert f"first to end: {component}, which " in text
    assert (f"its error: {error}" if error else "its last line: ") in text
    assert f"its log: {failure['log']}" in text


def test_every_known_failure_is_captured():
    captured = {tomli.loads((CAPTURES / name / "capture.toml").read_text())["known"] for name in NAMES}

    assert captured - {""} == {failure.name for failure in failures.KNOWN}


def test_every_capture_says_where_its_wording_is_from():
    assert [
        name for name in NAMES if not (CAPTURES / name / "capture.toml").read_text().startswith("# ")
    ] == []


def test_names_are_used_once():
    names = [failure.name for failure in failures.KNOWN]

    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("failure", failures.KNOWN, ids=lambda failure: failure.name)
def test_a_known_failure_says_what_to_do_and_has_something_to_be_known_by(failure):
    found = failures.Found(failure)

    assert failure.title
    assert found.cause.endswith(".")
    assert len(found.way) > 20
    assert failure.patterns or failure.states or failure.reasons


def test_who_cancelled_is_told(explained):
    _, answer = explained("cancelled")

    assert answer.document()["slurm"] == {
        "state": "CANCELLED",
        "exit_code": "0:15",
        "reason": None,
        "cancelled_by": "root",
    }
    assert "SLURM: CANCELLED, it was cancelled by root, signal 15" in answer.lines


def test_a_job_that_slurm_ended_for_its_dependency_was_cancelled_by_nobody(explained):
    capture, answer = explained("dependency-failed")

    assert answer.headline.endswith("was ended before it began")
    assert "job 44, which it depended on, did not end well" in answer.lines
    assert "SLURM: CANCELLED, DependencyNeverSatisfied, afterok:44(failed)" in answer.lines
    assert answer.hints[0].startswith("`medarc_slurm why 44`")
    assert standing.look_at(capture.run).reason == "DependencyNeverSatisfied"


def test_checks_that_failed_are_told_one_by_one_with_their_own_hints(work, slurm):
    capture = Capture("checks-failed", work / "runs" / "a")
    failed = ["NVIDIA driver: nvidia-smi does not answer", "Python: No module named 'torch'"]
    hints = ["--exclude node7, and tell its operators", "uv sync --inexact"]
    end(capture.run, reason="checks-failed", exit_code=3, failed=failed, hints=hints)
    slurm.remove()

    answer = why.explain(capture.run)

    assert list(answer.lines[:3]) == [
        *(f"failed check: {text}" for text in failed),
        f"its log: {capture.run.submission.log}",
    ]
    assert answer.hints == tuple(hints)
    assert any("cause: A Python module is missing." in line for line in answer.lines)
    assert answer.document()["failure"]["checks"][0] == {"text": failed[0], "hint": hints[0]}


def test_attempts_that_failed_alike_are_said_to(explained, work, slurm):
    capture = Capture("cuda-out-of-memory-trainer", work / "runs" / "a")
    failure = str(describe(capture.run.run_dir, "trainer", 1))
    end(capture.run, 1, reason="preempted", exit_code=143, requeued=True)
    for number in (2, 3, 4):
        end(capture.run, number, reason="failed", exit_code=1, failure=failure, requeued=number < 4)
    capture.play(slurm)

    answer = why.explain(capture.run)

    assert "attempts 2 and 3 ended alike" in answer.lines
    assert "attempt 1: A job of higher priority took the GPUs" in answer.lines
    assert [each["known_failure"] for each in answer.document()["attempts"]] == [
        "preempted",
        *["cuda-out-of-memory-trainer"] * 3,
    ]


def test_the_last_attempt_decides(work, slurm):
    capture = Capture("unknown-assertion", work / "runs" / "a")
    end(
        capture.run,
        1,
        reason="failed",
        exit_code=1,
        requeued=True,
        failure="trainer ended with exit code 1: OSError: [Errno 28] No space left on device; it has no log",
    )
    capture.record()
    row = json.loads((capture.run.files.launch / "attempts.jsonl").read_text().splitlines()[-1])
    end(capture.run, 2, **{name: row[name] for name in ("reason", "exit_code", "failure")})
    capture.play(slurm)

    answer = why.explain(capture.run)

    assert answer.document()["failure"]["known"] is None
    assert "in attempt 2" in answer.headline


def test_a_run_directory_that_is_somewhere_else_now_is_explained_all_the_same(work, slurm, explained):
    capture = Capture("disk-full", work / "runs" / "a")
    capture.record()
    capture.play(slurm)
    capture.run.run_dir.rename(work / "moved")
    from medarc_plugin import runs

    answer = why.explain(runs.open_run(work / "moved"))

    failure = answer.document()["failure"]
    assert failure["known"] == "disk-full"
    assert failure["log"] == str(work / "moved" / "logs" / "attempt_1" / "trainer.log")


def test_logs_of_an_older_prime_rl_are_found(work, slurm):
    run = recorded.make_run(work / "runs" / "a", plan={"fields": {"shape": "v0.8.0"}})
    log = run.run_dir / "logs" / "trainer.log"
    log.parent.mkdir()
    log.write_text((CAPTURES / "disk-full" / "logs" / "trainer.log").read_text())
    end(
        run,
        reason="failed",
        exit_code=1,
        failure=f"trainer ended with exit code 1, and its log says nothing; its log: {log}",
    )

    failure = why.explain(run).document()["failure"]

    assert (failure["known"], failure["shown_in"]) == ("disk-full", str(log))


def test_logs_in_json_are_read_with_their_tracebacks(work, slurm):
    run = recorded.make_run(work / "runs" / "a", plan={"fields": {"shape": "main"}})
    log = run.run_dir / "logs" / "attempt_1" / "trainer.log"
    log.parent.mkdir(parents=True)
    trace = "Traceback (most recent call last):\nOSError: [Errno 28] No space left on device"
    rows = [
        {"level": "INFO", "message": "No space left on device, they say"},
        {"level": "ERROR", "message": "Fatal error in train", "exception": trace},
    ]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (log.parent.parent / "latest").symlink_to("attempt_1")
    end(run, reason="failed", exit_code=1, failure=str(describe(run.run_dir, "trainer", 1)))

    failure = why.explain(run).document()["failure"]

    assert failure["known"] == "disk-full"


def test_an_owner_that_was_killed_before_its_record_is_told_from_the_launchers_log(work, slurm):
    capture = Capture("kv-cache-too-small", work / "runs" / "a")
    begun = "medarc | reverse-rl: rl, attempt 1, job 17\n"
    assert (capture.run.run_dir / "job_17.log").read_text().startswith(begun)
    end(capture.run, reason="killed", exit_code=137)
    capture.play(slurm)

    failure = why.explain(capture.run).document()["failure"]

    assert (failure["component"], failure["known"]) == ("inference", "kv-cache-too-small")


def test_every_field_of_the_document_is_described(explained):
    text = (Path(__file__).parents[2] / "docs" / "why.md").read_text()
    _, answer = explained("cancelled")
    document = answer.document()

    names = {*document, *document["failure"], *document["slurm"], *document["attempts"][0]}
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []


def test_without_slurm_the_records_are_enough(work, slurm):
    capture = Capture("gated-model", work / "runs" / "a")
    capture.record()
    slurm.remove()

    answer = why.explain(capture.run)

    assert answer.document()["failure"]["known"] == "gated-model"
    assert answer.document()["slurm"] is None


def test_the_command_prints_plain_lines_and_hints_last(work, slurm, capsys):
    capture = Capture("kv-cache-too-small", work / "runs" / "a")
    capture.record()
    capture.about["state"] = "FAILED"
    capture.play(slurm)

    command.why(str(capture.run.run_dir))

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "reverse, job 17: failed (FAILED) on node7"
    assert "  SLURM: FAILED, its script ended with an error, exit code 1" in lines
    assert lines[-1].startswith("hint: A larger --inference.vllm.gpu-memory-utilization")
    first_hint = next(place for place, line in enumerate(lines) if line.startswith("hint: "))
    assert all(line.startswith("  ") for line in lines[1:first_hint])


def test_a_log_in_a_folder_that_others_hide_is_one_that_is_not_there(work):
    run = recorded.make_run(work / "a")
    (work / "a" / "trainer.log").touch()

    def hidden(self, **_):
        raise PermissionError(13, "Permission denied", str(self))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Path, "stat", hidden)
        found = read_failure("trainer ended with exit code 1: x; its log: /hidden/trainer.log", run)

    assert found.log == work / "a" / "trainer.log"
