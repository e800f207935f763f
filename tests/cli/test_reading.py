"""`logs`, as it is typed."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from standins.recorded import MARK


def write_logs(run):
    (run.run_dir / "logs/attempt_1").mkdir(parents=True)
    (run.run_dir / "logs/attempt_1/trainer.log").write_text("".join(f"step {n}\n" for n in range(50)))
    (run.run_dir / "job_17.log").write_text(
        "medarc | a: rl, attempt 1, job 17\nmedarc | \x1b[31mred\x1b[0m\n"
    )


def test_the_last_lines_of_all_logs_are_marked(here, running, slurm):
    write_logs(running)

    done = here("medarc_slurm", "logs", "-n", "2")

    assert done.out.splitlines() == [
        "job          | medarc | a: rl, attempt 1, job 17",
        "job          | medarc | red",
        "trainer      | step 48",
        "trainer      | step 49",
    ]
    assert slurm.calls("squeue") == []


def test_one_components_lines_stand_bare(here, running, slurm):
    write_logs(running)

    assert here("medarc_slurm", "logs", "runs/a", "-c", "trainer", "-n", "1").out == "step 49\n"


def test_an_attempt_that_there_is_not_is_named_with_those_that_there_are(here, running, slurm):

    done = here("medarc_slurm", "logs", "--attempt", "3")

    assert (done.code, "its attempts are 1" in done.err) == (2, True)


def test_a_run_without_logs_says_why(here, make_run, slurm):
    make_run()
    slurm.set(jobs={"17": {"state": "PENDING", "reason": "Priority", "comment": MARK}})

    done = here("medarc_slurm", "logs")

    assert (done.code, done.out) == (0, "")
    assert "there is no log yet: job 17 is waiting (Priority)" in done.err


def start(*argv):
    """Start a command as a process, and read its first line."""
    process = subprocess.Popen(
        [Path(sys.executable).with_name("medarc_slurm"), *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return process, process.stdout.readline()


def test_ctrl_c_leaves_the_run_and_says_how_to_come_back(running, slurm):
    write_logs(running)
    process, first = start("logs", "-f")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)

    assert first.startswith("job ")
    assert process.returncode == 130
    assert "the run goes on; come back with: medarc_slurm logs -f runs/a" in err
    assert "Traceback" not in err
    assert slurm.calls("scancel") == []


def test_a_reader_that_has_seen_enough_ends_the_following(running, slurm):
    write_logs(running)
    process, _ = start("logs", "-f")
    process.stdout.close()
    with (running.run_dir / "job_17.log").open("a") as log:
        log.write("more\n")
    process.wait(timeout=60)

    assert "Traceback" not in process.stderr.read()
    process.stderr.close()


@pytest.mark.parametrize("follow", [(), ("-f",)])
def test_logs_that_cannot_be_printed_are_an_error(running, slurm, follow):
    write_logs(running)

    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [Path(sys.executable).with_name("medarc_slurm"), "logs", "runs/a", *follow],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )

    assert done.returncode == 1
    assert done.stderr.endswith("error: standard output cannot be written: No space left on device\n")
