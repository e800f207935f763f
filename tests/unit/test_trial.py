"""What `sbatch --test-only` says, and when a job would start."""

from datetime import datetime

import pytest

from medarc_plugin.cli.output import start_words
from medarc_plugin.models import Trial
from medarc_plugin.process import Completed
from medarc_plugin.slurm import trial
from medarc_plugin.slurm.gateway import HERE


def say(monkeypatch, stderr, code=0):
    """Let sbatch say this."""
    asked = []

    def run(argv, **given):
        asked.append((tuple(argv), given["stdin"]))
        return Completed(tuple(argv), code, "", stderr)

    monkeypatch.setattr(trial, "run", run)
    return trial.try_out("#!/bin/bash\n", HERE, 5.0), asked


@pytest.mark.parametrize(
    "line",
    [
        # 20.11 to 24.11, and 26.05.
        "sbatch: Job 57 to start at 2026-11-27T12:00:03 using 1 processors on nodes node1 in partition debug",
        "sbatch: Job 8 to start at 2026-11-27T12:00:03 a using 1 processors on nodes node1 in partition p",
        "sbatch: lua: x\nsbatch: Job 8 to start at 2026-11-27T12:00:03 using 2 CPUs on nodes node1 in p",
    ],
)
def test_an_estimate(monkeypatch, line):
    found, asked = say(monkeypatch, line + "\n")

    assert found == Trial(start="2026-11-27T12:00:03", node="node1")
    assert asked == [(("sbatch", "--test-only"), "#!/bin/bash\n")]


@pytest.mark.parametrize(
    ("stderr", "code", "fatal", "words", "hint"),
    [
        (
            "allocation failure: Requested node configuration is not available\n",
            1,
            False,
            "SLURM finds no node for the job at this moment (Requested node configuration is not available)",
            "sinfo",
        ),
        (
            "sbatch: error: invalid partition specified: x\nallocation failure: Invalid partition name\n",
            1,
            True,
            "SLURM would refuse the job: invalid partition specified: x; Invalid partition name",
            "--partition",
        ),
        (
            "sbatch: unrecognized option '--nosuch=1'\nTry \"sbatch --help\" for more information\n",
            255,
            True,
            "SLURM would refuse the job: unrecognized option '--nosuch=1'",
            "--sbatch-arg",
        ),
        (
            "sbatch: error: Memory\nallocation failure: Access/permission denied\n",
            1,
            True,
            "Memory; Access",
            "mend",
        ),
    ],
)
def test_a_refusal(monkeypatch, stderr, code, fatal, words, hint):
    found, _ = say(monkeypatch, stderr, code)

    assert found.problem is not None
    assert found.problem.fatal is fatal
    assert words in found.problem.message
    assert hint in found.problem.hint


@pytest.mark.parametrize(
    ("stderr", "code", "silence"),
    [
        (
            "allocation failure: Unable to contact slurm controller (connect failure)\n",
            1,
            "Unable to contact",
        ),
        ("no answer within 5 s\nwords", 124, "no answer within 5 s"),
        ("sbatch: No such file or directory", 127, "sbatch: No such file or directory"),
        ("", -9, "exit code -9"),
        ("", 1, "exit code 1"),
        ("Killed", 137, "Killed"),
    ],
)
def test_silence_is_no_refusal(monkeypatch, stderr, code, silence):
    found, _ = say(monkeypatch, stderr, code)

    assert found.problem is None
    assert found.silence is not None
    assert found.silence.startswith(silence)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ("2026-11-27T11:59:00", "now"),
        ("2026-11-27T12:00:40", "now"),
        ("2026-11-27T12:10:00", "2026-11-27 12:10 (in 10 min)"),
        ("2026-11-27T15:30:00", "2026-11-27 15:30 (in 3 h)"),
        ("2026-11-30T12:00:00", "2026-11-30 12:00 (in 3 days)"),
        ("Unknown", "Unknown"),
    ],
)
def test_when_a_job_would_start(start, words):
    assert start_words(start, datetime(2026, 11, 27, 12, 0)) == words  # noqa: DTZ001 - SLURM's is local
