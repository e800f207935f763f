"""Several configs in one call: each is a run, and what stands in the way of one stops no other."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from medarc_plugin.host import resolve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Result

    Run = Callable[..., Result]

CONFIG = 'max_steps = {}\n\n[model]\nname = "m"\n\n[data]\ntype = "fake"\n'
PLACE = ("--output-dir", "runs/{stem}", "--gpus", "1")


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
    assert done.err.endswith("2 of 2 runs written, nothing is started\n")


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


def test_a_config_at_which_prime_rl_dies_is_the_only_one_that_fails(
    here: Run, work: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The interpreter ends at the second of three; the third is asked again."""
    python = tmp_path / "python"
    python.write_text(
        f"#!/bin/bash\nPATH=/usr/bin:/bin\n"
        f"real={checkout}/.venv/bin/python\n"
        'if grep -q c.toml <(sed -n 2p "$2"); then\n'
        '  head -n 1 "$2" > "$2.first"; "$real" "$1" "$2.first" "$3"; echo gone >&2; exit 3\n'
        "fi\n"
        'exec "$real" "$@"\n'
    )
    python.chmod(0o755)
    monkeypatch.setenv("PRIME_RL_PYTHON", str(python))
    (work / "d.toml").write_text(CONFIG.format(8))

    done = here("medarc_slurm", "sft", "a.toml", "c.toml", "d.toml", *PLACE, "--dry-run", "--no-cache")

    assert done.code == 2
    assert done.err.count("error:") == 1
    assert "error: c.toml: prime-rl's interpreter" in done.err
    assert "gone" in done.err
    assert sorted(path.name for path in (work / "runs").iterdir()) == ["a", "d"]
