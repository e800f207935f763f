"""Several configs in one call: each is a run, and what stands in the way of one stops no other."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from standin import make_checkout

from medarc_plugin.host import resolve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Result
    from standins import Slurm

    Run = Callable[..., Result]

CONFIG = 'max_steps = {}\n\n[model]\nname = "m"\n\n[data]\ntype = "fake"\n'
PLACE = ("--output-dir", "runs/{stem}", "--gpus", "1")
RL_PLACE = ("--output-dir", "runs/{stem}", "--train-gpus", "1", "--infer-gpus", "1")


@pytest.fixture(autouse=True)
def prime_rl(work: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch, slurm: object) -> None:
    """A prime-rl, a cluster, and three configs of which one is refused."""
    monkeypatch.setenv("PRIME_RL_DIR", str(checkout))
    for steps, name in enumerate(("a", "b", "c"), start=5):
        (work / f"{name}.toml").write_text(CONFIG.format(steps if name != "b" else '"many"'))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A line each time that prime-rl's interpreter is run."""
    found: list[str] = []
    run = resolve.run_apart

    def count(argv: list[str], **options: object) -> object:
        found.append(argv[0])
        return run(argv, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(resolve, "run_apart", count)
    return found


def steps(work: Path, name: str) -> object:
    return json.loads((work / f"runs/{name}/configs/sft.json").read_text())["max_steps"]


def test_a_silent_controller_is_waited_for_once(here: Run, slurm: Slurm, work: Path) -> None:
    slurm.set(up=False)

    done = here("medarc_slurm", "sft", "a.toml", "c.toml", *PLACE)

    assert done.code == 2
    assert len(slurm.calls("sbatch")) == 1
    assert "error: a.toml: nothing was submitted: sbatch failed" in done.err
    assert "error: c.toml: not submitted, and no files are written: SLURM does not answer" in done.err
    assert "0 of 2 runs submitted; 2 could not be" in done.err
    assert not (work / "runs/c").exists()


def test_all_are_written_by_one_process_of_prime_rls(here: Run, work: Path, asked: list[str]) -> None:
    done = here("medarc_slurm", "sft", "a.toml", "c.toml", *PLACE, "--dry-run")

    assert done.code == 0, done.err
    assert len(asked) == 1
    assert (steps(work, "a"), steps(work, "c")) == (5, 7)
    assert [line.rpartition("/runs/")[2] for line in done.out.splitlines()] == [
        "a/sft.sbatch",
        "c/sft.sbatch",
    ]
    assert "2 configs checked by prime-rl" in done.err
    assert f"written {work}/runs/a: 1 GPU, the partition's time limit\n" in done.err
    assert done.err.endswith("2 of 2 runs written, nothing is started\n")


def test_rehearsals_are_called_so(here: Run, work: Path) -> None:
    written = here("medarc_slurm", "sft", "a.toml", "c.toml", *PLACE, "--rehearse", "--dry-run")
    submitted = here("medarc_slurm", "sft", "a.toml", "c.toml", *PLACE, "--rehearse")

    assert f"written {work}/runs/c: 1 GPU, time limit 5 min\n" in written.err
    assert written.err.endswith("2 of 2 rehearsals written, nothing is started\n")
    assert submitted.err.endswith("2 of 2 rehearsals submitted\n")


def test_what_is_written_is_what_one_call_writes(here: Run, work: Path) -> None:
    def written() -> tuple[str, str]:
        script = (work / "runs/c/sft.sbatch").read_text()
        # Each submission has a word of its own.
        return (work / "runs/c/configs/sft.json").read_text(), re.sub(r"medarc:\w+", "medarc:", script)

    here("medarc_slurm", "sft", "a.toml", "c.toml", *PLACE, "--dry-run")
    together = written()
    alone = here("medarc_slurm", "sft", "c.toml", *PLACE, "--dry-run", "--no-cache")

    assert alone.code == 0, alone.err
    assert written() == together


def test_errors_are_gathered_and_stop_no_other(here: Run, work: Path) -> None:
    done = here("medarc_slurm", "sft", "a.toml", "b.toml", "missing.toml", "c.toml", *PLACE, "--dry-run")

    errors = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert done.code == 2
    assert [error.split(":")[1] for error in errors] == [" b.toml", " missing.toml"]
    assert "valid integer" in done.err
    assert done.err.endswith("2 of 4 runs written, nothing is started; 2 could not be\n")
    assert sorted(path.name for path in (work / "runs").iterdir()) == ["a", "c"]


def test_what_is_the_same_for_all_is_said_once(here: Run) -> None:
    done = here("medarc_slurm", "sft", "a.toml", "c.toml", *PLACE, "--dry-run", "--no-such-key", "1")

    assert done.code == 2
    assert done.err.count("error:") == 1
    assert "error: all 2 configs: " in done.err


def test_those_that_are_known_are_not_asked_again(here: Run, asked: list[str]) -> None:
    here("medarc_slurm", "sft", "a.toml", *PLACE, "--dry-run")

    done = here("medarc_slurm", "sft", "a.toml", "c.toml", *PLACE, "--dry-run")
    again = here("medarc_slurm", "sft", "a.toml", "c.toml", *PLACE, "--dry-run")

    assert len(asked) == 2
    assert "2 configs checked by prime-rl" in done.err
    assert ", 1 of them from the cache" in done.err
    assert ", 2 of them from the cache" in again.err


def test_all_are_submitted(here: Run, work: Path) -> None:
    done = here("medarc_slurm", "sft", "a.toml", "b.toml", "c.toml", *PLACE)

    lines = [line.split() for line in done.out.splitlines()]
    assert done.code == 2
    assert [(line[0], line[2]) for line in lines] == [("job", f"{work}/runs/{name}") for name in "ac"]
    assert all((work / f"runs/{name}/configs/launch/submission.json").exists() for name in "ac")
    assert done.err.endswith("2 of 3 runs submitted; 1 could not be\n")


def test_one_that_is_refused_keeps_no_other_from_being_remembered(here: Run, asked: list[str]) -> None:
    here("medarc_slurm", "sft", "b.toml", "c.toml", *PLACE, "--dry-run")

    done = here("medarc_slurm", "sft", "c.toml", *PLACE, "--dry-run")

    assert "from the cache" in done.err
    assert len(asked) == 1


def test_a_foreground_takes_one_run(here: Run, work: Path) -> None:
    done = here("medarc_slurm", "sft", "a.toml", "c.toml", *PLACE, "--backend", "local")

    assert done.code == 2
    assert "one config at a time" in done.err
    assert not (work / "runs").exists()


ENVIRONMENTS = {
    "killer": "import os; print('oh no', flush=True); os._exit(3)",
    "segv": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "leaver": "import sys; sys.exit('no licence')",
    "good": "",
    "hanging": "import signal; signal.pause()",
    "threads": "import threading; threading.Thread(target=threading.Event().wait).start()",
}
RL = """
[trainer]
[orchestrator.renderer]
name = "prime-qwen3"
[[orchestrator.train.source]]
[orchestrator.train.source.env.taskset]
id = "{}"
[inference]
"""


@pytest.fixture
def environments(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prime-rl with environments that end its process when they are imported; a config for each."""
    checkout = make_checkout(tmp_path / "prime-rl")
    (packages,) = checkout.glob(".venv/lib/python3*/site-packages")
    for name, text in ENVIRONMENTS.items():
        (packages / f"{name}.py").write_text(text)
        (work / f"{name}.toml").write_text(RL.format(name))
    for index in range(3):
        (work / f"good{index}.toml").write_text(RL.format("good"))
    monkeypatch.setenv("PRIME_RL_DIR", str(checkout))
    return checkout


@pytest.mark.parametrize(
    "order", ["killer good0 good1 good2", "good0 killer segv good1 leaver good2", "good0 good1 good2 segv"]
)
def test_a_config_at_which_prime_rl_dies_is_the_only_one_that_fails(
    here: Run, work: Path, environments: Path, asked: list[str], order: str
) -> None:
    names = order.split()

    done = here("medarc_slurm", "rl", *(f"{name}.toml" for name in names), *RL_PLACE, "--dry-run")

    bad = [name for name in names if "good" not in name]
    errors = [line.split(": ")[1] for line in done.err.splitlines() if line.startswith("error: ")]
    assert done.code == 2
    assert errors == [f"{name}.toml" for name in bad]
    assert sorted(path.name for path in (work / "runs").iterdir()) == ["good0", "good1", "good2"]
    assert len(asked) == 2, "one process for all, and one that takes each apart"


def test_what_ended_it_is_said_with_the_config(here: Run, environments: Path) -> None:
    argv = ("killer.toml", "segv.toml", "leaver.toml")

    done = here("medarc_slurm", "rl", *argv, *RL_PLACE, "--dry-run")

    assert "ended with exit code 3 while it resolved killer.toml:\noh no\n" in done.err
    assert "was killed by SIGSEGV while it resolved segv.toml, and printed nothing\n" in done.err
    assert "was asked to end while it resolved leaver.toml:\nSystemExit: no licence\n" in done.err
    assert "-m prime_rl.entrypoints.rl @ segv.toml --dry-run` is the same without this plugin" in done.err
    assert "uv sync" not in done.err


def test_one_config_at_which_prime_rl_dies_is_asked_once(
    here: Run, environments: Path, asked: list[str]
) -> None:
    done = here("medarc_slurm", "rl", "killer.toml", *RL_PLACE, "--dry-run")

    assert done.code == 2
    assert "ended with exit code 3 while it resolved killer.toml:\noh no\n" in done.err
    assert len(asked) == 1


def test_one_at_which_prime_rl_hangs_is_named_and_the_others_go_on(
    here: Run, work: Path, environments: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "TIMEOUT", 3.0)

    done = here("medarc_slurm", "rl", "good0.toml", "hanging.toml", "good1.toml", *RL_PLACE, "--dry-run")

    assert done.code == 2
    assert done.err.count("error: ") == 1
    assert "gave no answer within 3 s while it resolved hanging.toml; it printed:" in done.err
    assert sorted(path.name for path in (work / "runs").iterdir()) == ["good0", "good1"]


def test_threads_that_an_environment_leaves_are_not_waited_for(here: Run, environments: Path) -> None:
    done = here("medarc_slurm", "rl", "threads.toml", *RL_PLACE, "--dry-run")

    assert done.code == 0, done.err


def test_what_is_resolved_apart_is_what_is_resolved_together(
    here: Run, work: Path, environments: Path
) -> None:
    def written(*names: str) -> str:
        here("medarc_slurm", "rl", *(f"{name}.toml" for name in names), *RL_PLACE, "--dry-run", "--no-cache")
        return (work / "runs/good1/configs/rl.json").read_text()

    assert written("killer", "good1") == written("good0", "good1")


def test_an_interpreter_that_ends_before_it_is_at_any_config_is_nobodys_fault(
    here: Run, environments: Path, asked: list[str]
) -> None:
    (packages,) = environments.glob(".venv/lib/python3*/site-packages")
    (packages / "pydantic_config").unlink()
    (packages / "pydantic_config.py").write_text("import os; os._exit(5)")

    done = here("medarc_slurm", "rl", "good0.toml", "good1.toml", *RL_PLACE, "--dry-run")

    assert done.code == 2
    assert "error: all 2 configs: prime-rl's interpreter" in done.err
    assert (
        "`uv sync --all-extras --all-packages --inexact` in prime-rl's checkout repairs its environment"
        in done.err
    )
    assert len(asked) == 1
