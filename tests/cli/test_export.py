"""`medarc_slurm export`: which interpreter and which job code it uses, and what it says."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from medarc_plugin import export as exporting
from medarc_plugin import job
from medarc_plugin.errors import HostNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable

JOB_CODE = Path(job.__file__).parent


@pytest.fixture
def run_dir(work: Path) -> Path:
    """A run with a checkpoint, launched by nobody."""
    trainer = work / "my runs" / "one" / "checkpoints" / "step_4" / "trainer"
    trainer.mkdir(parents=True)
    for name in (".metadata", "__0_0.distcp"):
        (trainer / name).write_text("x")
    configs = work / "my runs" / "one" / "configs"
    configs.mkdir()
    (configs / "sft.json").write_text('{"model": {"name": "m"}}')
    return configs.parent


def launched(run_dir: Path, **plan: Any) -> Path:
    folder = run_dir / "configs" / "launch"
    folder.mkdir()
    (folder / "launch.json").write_text(json.dumps(plan))
    return folder


def test_the_runs_own_interpreter_and_job_code_are_used(run_dir: Path, checkout: Path) -> None:
    python = checkout / ".venv" / "bin" / "python"
    folder = launched(run_dir, python=str(python))
    shutil.copytree(JOB_CODE, folder / "job")

    command = exporting.export_command(run_dir, 20, force=True)

    assert command == (str(python), str(folder / "job"), "export", str(run_dir), "--step", "20", "--force")


def test_an_older_runs_weights_are_written_by_this_job_code(run_dir: Path) -> None:
    folder = launched(run_dir, python=sys.executable)
    (folder / "job").mkdir()
    (folder / "job" / "__main__.py").touch()

    command = exporting.export_command(run_dir, None, force=False)

    assert command == (sys.executable, str(JOB_CODE), "export", str(run_dir))


@pytest.mark.parametrize("plan", [{}, {"python": None}, {"python": "/gone/bin/python"}])
def test_without_its_interpreter_prime_rl_is_looked_for(
    plan: dict[str, Any], run_dir: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched(run_dir, **plan)
    monkeypatch.setenv("PRIME_RL_DIR", str(checkout))

    command = exporting.export_command(run_dir, None, force=False)

    assert command[0] == str(checkout / ".venv" / "bin" / "python")


def test_without_prime_rl_the_way_to_it_is_shown(run_dir: Path) -> None:
    with pytest.raises(HostNotFoundError) as raised:
        exporting.export_command(run_dir, None, force=False)

    assert "PRIME_RL_DIR" in (raised.value.hint or "")


def test_a_folder_that_is_no_run_is_refused(cli: Callable[..., Any], work: Path) -> None:
    done = cli("medarc_slurm", "export", "nowhere")

    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(
        "error: there is no run nowhere: it is no folder, no job id, and no run's name\n"
    )
    (work / "nowhere").mkdir()
    assert cli("medarc_slurm", "export", "nowhere").err == (
        f"error: {work}/nowhere is no run: it has no folder configs/\n"
        "hint: name the run directory, as --output-dir did\n"
    )


@pytest.mark.parametrize("named", [(), ("17",)])
def test_a_run_is_named_as_everywhere(
    here: Callable[..., Any], make_run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, named: tuple[str]
) -> None:
    run = make_run("a")
    asked = []
    monkeypatch.setattr(exporting, "export", lambda *args, **options: asked.append((args, options)) or 0)

    done = here("medarc_slurm", "export", *named, "--step", "4")

    assert done.code == 0, done.err
    assert asked == [((run.run_dir, 4), {"force": False})]


def test_prime_rl_without_torch_is_said(cli: Callable[..., Any], run_dir: Path, checkout: Path) -> None:
    done = cli("medarc_slurm", "export", str(run_dir), PRIME_RL_DIR=str(checkout))

    assert (done.code, done.out) == (13, "")
    assert "cannot import torch" in done.err
    assert "\nhint: " in done.err
    assert not (run_dir / "weights").exists()


def test_a_relative_run_and_a_step_that_is_not_there(
    cli: Callable[..., Any], run_dir: Path, work: Path, checkout: Path
) -> None:
    name = str(run_dir.relative_to(work))

    done = cli("medarc_slurm", "export", name, "--step", "5", PRIME_RL_DIR=str(checkout))

    assert (done.code, done.out) == (10, "")
    assert f"error: there is no checkpoint {run_dir}/checkpoints/step_5\n" in done.err
    assert "hint: steps with a checkpoint: 4\n" in done.err


def test_the_path_alone_is_on_standard_output(cli: Callable[..., Any], run_dir: Path, checkout: Path) -> None:
    weights = run_dir / "weights" / "step_4"
    weights.mkdir(parents=True)
    (weights / "config.json").write_text("{}")
    header = b'{"a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}'
    content = len(header).to_bytes(8, "little") + header + bytes(2)
    (weights / "model.safetensors").write_bytes(content)

    done = cli("medarc_slurm", "export", str(run_dir), PRIME_RL_DIR=str(checkout))

    assert (done.code, done.out) == (0, f"{weights}\n")
    assert "is there already" in done.err


def test_the_plan_says_whether_to_export() -> None:
    from standins.plans import make_plan

    from medarc_plugin.backends.planning import launch_document

    assert launch_document(make_plan(Path("/runs/a")))["export"] is True
    assert launch_document(make_plan(Path("/runs/a"), {"export": False}))["export"] is False


def test_no_export_is_an_option(work: Path) -> None:
    from medarc_plugin.cli.arguments import parse

    assert parse(["--no-export"]).options == {"export": False}
