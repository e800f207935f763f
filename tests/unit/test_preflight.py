"""What is looked at before anything is written."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from standins import make_plan

from medarc_plugin.models import GpuNeeds, JobPlan, Problem
from medarc_plugin.preflight import medarc_preflight

if TYPE_CHECKING:
    from pathlib import Path


def problems(plan: JobPlan) -> list[Problem]:
    return list(medarc_preflight(plan))


def test_a_good_plan_has_no_problem(work: Path) -> None:
    assert problems(make_plan(work / "runs" / "a")) == []


def test_a_file_in_the_way_is_named(work: Path) -> None:
    (work / "runs").touch()

    (found,) = problems(make_plan(work / "runs" / "a"))

    assert found.message == f"{work}/runs/a cannot be made: {work}/runs is not a folder"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(work: Path) -> None:
    work.chmod(0o555)

    (found,) = problems(make_plan(work / "a"))

    assert found.message == f"{work}/a cannot be written: no permission in {work}"


def test_an_unwritable_folder_is_found_before_writing(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)

    (found,) = problems(make_plan(work / "a"))

    assert found.fatal
    assert "no permission in" in found.message


@pytest.mark.parametrize("size", ["64", "900M"])
def test_little_memory_is_taken_for_a_forgotten_unit(work: Path, size: str) -> None:
    (found,) = problems(make_plan(work / "a", {"mem_per_gpu": size}))

    number = size.removesuffix("M")
    assert found.message.startswith(f"--mem-per-gpu {number} MiB is less than any run needs")
    assert (found.hint, found.fatal) == (f"--mem-per-gpu {number}G", False)
    assert problems(make_plan(work / "a", {"mem_per_gpu": "64G"})) == []


def test_a_project_directory_must_be_there(work: Path) -> None:
    (found,) = problems(make_plan(work / "a", {"project_dir": work / "no"}))

    assert (found.check, found.hint) == ("project directory", "name another with --project-dir")


def test_a_template_must_be_there(work: Path) -> None:
    (found,) = problems(make_plan(work / "a", {"template_path": work / "no.j2"}))

    assert found.message == f"{work}/no.j2 is not a file"


def test_a_variable_to_be_passed_must_be_there(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THERE", "")

    (found,) = problems(make_plan(work / "a", {"env": ["THERE", "MISSING", "SET=1"]}))

    assert found.message == "--env MISSING: the variable is not set here, so it cannot be passed on"


@pytest.mark.parametrize(("share", "count"), [(0.3, 0), (0.7, 0), (0.9, 1), (None, 0)])
def test_a_shared_gpu_needs_room_for_the_trainer(work: Path, share: float | None, count: int) -> None:
    found = problems(make_plan(work / "a", gpus=GpuNeeds(1, 1, shared=True), memory_share=share))

    assert count == len(found)
    assert not any(problem.fatal for problem in found)


def test_an_unchecked_config_is_said(work: Path) -> None:
    plan = make_plan(work / "a")

    (found,) = problems(replace(plan, resolved=replace(plan.resolved, checked=False)))

    assert not found.fatal
    assert found.message.startswith("the config is unchecked")


def test_all_problems_are_found_at_once(work: Path) -> None:
    options = {"project_dir": work / "no", "template_path": work / "no.j2", "env": ["MISSING"]}

    assert len(problems(make_plan(work / "a", options))) == 3


def test_a_time_limit_without_checkpoints_on_the_way_is_said_to_cost_the_run(work: Path) -> None:
    (found,) = problems(make_plan(work / "a", {"time": "4:00:00"}))
    (once,) = problems(make_plan(work / "a", {"time": "4:00:00", "requeue": False}))

    assert not found.fatal
    assert found.message.endswith("all of it is lost, and it starts again from the beginning")
    assert once.message.endswith("all of it is lost")
    assert "--ckpt-interval" in (found.hint or "")
    assert problems(make_plan(work / "a", {"time": "4:00:00"}, checkpoint_interval=5)) == []


def test_a_run_that_saves_nothing_is_told_so(work: Path) -> None:
    (found,) = problems(make_plan(work / "a", saves=False))

    assert "nothing of the run is kept" in found.message


def test_a_warning_at_the_start_is_refused(work: Path) -> None:
    plan = make_plan(work / "a", {"time": "5", "signal_time": 250}, checkpoint_interval=5)

    (found,) = problems(plan)

    assert found.fatal
    assert "--signal-time 250" in found.message


def test_without_preflight_only_the_plan_is_looked_at(work: Path) -> None:
    wandb = {"document": {"monitors": {"wandb": {}}}, "wandb": True}
    plan = make_plan(work / "a", {"env": ["MISSING"]}, **wandb)

    assert [found.check for found in problems(plan)] == ["environment", "W&B"]
    assert [found.check for found in problems(replace(plan, preflight=False))] == ["environment"]
