"""What a submitted run needs around it: folders, disk, W&B's key, models and data."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from standins import make_plan
from standins.recorded import write_checkpoint

from medarc_plugin.preflight import surroundings
from medarc_plugin.preflight.surroundings import Mount, mount_of
from medarc_plugin.slurm.facts import ClusterFacts, Node, Partition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from medarc_plugin.models import JobPlan, Problem

MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 27 0:27 / /dev/shm rw - tmpfs tmpfs rw
31 27 0:40 / /home rw,relatime shared:1 - nfs4 filer:/home rw
32 31 0:41 / /home/scratch\\040space rw - lustre mgs@tcp:/scratch rw
33 31 0:42 / /home/over rw - xfs /dev/vdb rw
34 31 0:43 / /home/over rw - beegfs beegfs rw
"""


@pytest.mark.parametrize(
    ("path", "mount"),
    [
        ("/x/y", Mount("/", "ext4")),
        ("/dev/shm/run", Mount("/dev/shm", "tmpfs")),
        ("/dev/shmoo", Mount("/", "ext4")),
        ("/home/me/runs", Mount("/home", "nfs4")),
        ("/home/scratch space/run", Mount("/home/scratch space", "lustre")),
        ("/home/over/run", Mount("/home/over", "beegfs")),
    ],
)
def test_where_a_path_lies(path: str, mount: Mount) -> None:
    from pathlib import Path

    assert mount_of(Path(path), MOUNTS) == mount


def problems(check: Callable[[JobPlan], Iterator[Problem]], plan: JobPlan) -> list[Problem]:
    return list(check(plan))


def on_a_cluster(plan: JobPlan, host: str) -> JobPlan:
    facts = ClusterFacts(
        "me", partitions=(Partition("p", default=True),), nodes=(Node("n", ("p",), host=host),)
    )
    return replace(plan, cluster=facts)


@pytest.mark.parametrize(
    ("kind", "fatal"), [("tmpfs", True), ("ext4", False), ("nfs4", None), ("fuse.juicefs", None)]
)
def test_folders_that_no_node_can_see(
    work: Path, monkeypatch: pytest.MonkeyPatch, kind: str, fatal: bool | None
) -> None:
    monkeypatch.setattr(surroundings, "mount_of", lambda *_: Mount("/scratch", kind))
    found = problems(surroundings.folders_are_shared, on_a_cluster(make_plan(work / "run"), "node7"))

    assert [problem.fatal for problem in found] == ([] if fatal is None else [fatal])
    if found:
        assert found[0].message.startswith(
            f"the run directory {work}/run and the project directory {work} and prime-rl /opt/prime-rl lie "
        )


def test_a_machine_that_is_the_cluster_shares_with_itself(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surroundings, "mount_of", lambda *_: Mount("/", "tmpfs"))
    plan = make_plan(work / "run")

    for host in ("localhost", socket.gethostname()):
        assert problems(surroundings.folders_are_shared, on_a_cluster(plan, host)) == []
    assert problems(surroundings.folders_are_shared, plan) == []


def free(monkeypatch: pytest.MonkeyPatch, gib: float, files: int = 1) -> None:
    monkeypatch.setattr(surroundings.shutil, "disk_usage", lambda _: SimpleNamespace(free=int(gib * 2**30)))
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_files=10, f_favail=files))


@pytest.mark.parametrize(
    ("gib", "files", "options", "said"),
    [
        (100, 1, {"min_free_disk": "100G"}, None),
        (
            100,
            1,
            {"min_free_disk": "101G"},
            (True, "100 GiB are free for ", "--min-free-disk 101G ends a job"),
        ),
        (0.5, 1, {}, (False, "512 MiB are free for ", "run")),
        (100, 0, {}, (True, "the file system of ", "can take no more files")),
    ],
)
def test_disk(
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    gib: float,
    files: int,
    options: dict[str, Any],
    said: tuple[bool, str, str] | None,
) -> None:
    free(monkeypatch, gib, files)
    found = problems(surroundings.disk_has_room, make_plan(work / "no" / "such" / "run", options))

    assert len(found) == (said is not None)
    if said:
        assert (found[0].fatal, found[0].message.startswith(said[1]), said[2] in found[0].message) == (
            said[0],
            True,
            True,
        )


MODEL = {
    "vocab_size": 32_000,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}


def test_a_checkpoint_that_does_not_fit_is_warned_of(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = work / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], **MODEL}))
    plan = make_plan(work / "run", model=str(model))
    free(monkeypatch, 10)
    (found,) = problems(surroundings.disk_has_room, plan)
    nothing_kept = problems(
        surroundings.disk_has_room, make_plan(work / "run", model=str(model), saves=False)
    )

    # 1.1 billion parameters: each of 4 bytes, with two values of AdamW's.
    assert not found.fatal
    assert "10 GiB are free" in found.message
    assert "a checkpoint takes about 12." in found.message
    assert nothing_kept == []


WANDB = {"document": {"monitors": {"wandb": {"project": "p"}}}, "wandb": True}


def logging(work: Path, options: dict[str, Any] | None = None, **changes: Any) -> JobPlan:
    return make_plan(work / "run", options, **{**WANDB, **changes})


def test_wandb_without_a_key_is_refused_and_says_how_to_get_one(work: Path) -> None:
    (found,) = problems(surroundings.wandb_has_a_key, logging(work))

    assert found.fatal
    assert "https://api.wandb.ai" in found.message
    assert "wandb login" in (found.hint or "")


@pytest.mark.parametrize(
    "how",
    [
        "WANDB_API_KEY",
        "WANDB_MODE=offline",
        "WANDB_MODE=disabled",
        "WANDB_DISABLED=true",
        "netrc",
        "NETRC",
        ".env",
        ".env offline",
        "--env",
        "settings",
        "the config",
        "no W&B",
    ],
)
def test_wandb_has_a_key_or_needs_none(work: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    plan = logging(work)
    login = "machine api.wandb.ai\n  login user\n  password sentinel\n"
    if how.startswith("WANDB_"):
        monkeypatch.setenv(*(how if "=" in how else f"{how}=x").split("="))
    elif how == "netrc":
        (work.parent / "home" / ".netrc").write_text(login)
    elif how == "NETRC":
        (work / "mine").write_text(login)
        monkeypatch.setenv("NETRC", str(work / "mine"))
    elif how == ".env":
        (work / ".env").write_text("# keys\nexport WANDB_API_KEY='sentinel' # mine\n")
    elif how == ".env offline":
        (work / ".env").write_text('WANDB_MODE="offline"\n')
    elif how == "--env":
        plan = logging(work, {"env": ["WANDB_MODE=offline"]})
    elif how == "settings":
        (work / "wandb").mkdir()
        (work / "wandb" / "settings").write_text("[default]\nmode = offline\n")
    elif how == "the config":
        plan = logging(work, document={"monitors": {"wandb": {"offline": True}}})
    else:
        plan = logging(work, document={}, wandb=False)

    assert problems(surroundings.wandb_has_a_key, plan) == []


def test_another_server_of_wandbs_wants_its_own_key(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (work.parent / "home" / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password x\n")
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org/")
    (found,) = problems(surroundings.wandb_has_a_key, logging(work))
    (work.parent / "home" / ".netrc").write_text("machine wandb.example.org\n  login user\n  password x\n")

    assert "https://wandb.example.org, and there is no key" in found.message
    assert problems(surroundings.wandb_has_a_key, logging(work)) == []


@pytest.mark.parametrize("options", [{"setup": ["source ~/keys"]}, {"module": ["wandb"]}])
def test_what_setup_lines_may_set_is_warned_of_alone(work: Path, options: dict[str, Any]) -> None:
    (found,) = problems(surroundings.wandb_has_a_key, logging(work, options))

    assert not found.fatal


def reading(work: Path, options: dict[str, Any] | None = None, **names: str) -> JobPlan:
    document = {"trainer": {"model": {"name": names.get("model", "org/model")}}}
    return make_plan(work / "run", {"hf_cache_dir": work / "hf", **(options or {})}, document=document)


def offline(plan: JobPlan) -> JobPlan:
    environment = {"HF_HOME": str(plan.options.hf_cache_dir), "HF_HUB_OFFLINE": "1"}
    return replace(plan, launch=replace(plan.launch, environment=environment))


def fill_cache(work: Path) -> None:
    folder = work / "hf" / "hub" / "models--org--model"
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / "snapshots" / "abc" / name).write_text("{}")


def test_offline_the_cache_must_have_the_model(work: Path) -> None:
    plan = offline(reading(work))
    (found,) = problems(surroundings.files_are_there, plan)
    fill_cache(work)

    assert (found.check, found.fatal) == ("model", True)
    assert found.message == f"org/model: the cache {work}/hf/hub lacks a copy, and offline mode is set"
    assert "hf download org/model" in (found.hint or "")
    assert problems(surroundings.files_are_there, plan) == []


def test_online_the_hub_is_not_asked(work: Path) -> None:
    assert problems(surroundings.files_are_there, reading(work)) == []


def test_a_path_that_is_not_there_is_refused_online_too(work: Path) -> None:
    plan = reading(work, model="./models/mine")
    (found,) = problems(surroundings.files_are_there, plan)
    waits = replace(plan, options=plan.options.model_copy(update={"dependency": "afterok:1"}))
    before = problems(surroundings.files_are_there, waits)
    (work / "models" / "mine").mkdir(parents=True)

    assert (found.check, found.message) == ("model", f"{work}/models/mine is not there")
    assert before == problems(surroundings.files_are_there, plan) == []


def test_weights_that_a_run_is_still_to_write_are_warned_of_unless_the_job_waits(work: Path) -> None:
    configs = work / "first" / "configs"
    configs.mkdir(parents=True)
    (configs / "sft.json").write_text(json.dumps({"model": {"name": "org/model"}}))

    plan = reading(work, model=str(work / "first" / "weights" / "step_10"))
    (found,) = problems(surroundings.files_are_there, plan)
    waits = replace(plan, options=plan.options.model_copy(update={"dependency": "afterok:1"}))

    assert not found.fatal
    assert found.message.startswith(
        f"{work}/first/weights/step_10 is not there yet: the job fails at its start"
    )
    assert "--dependency afterok:JOB" in (found.hint or "")
    assert problems(surroundings.files_are_there, waits) == []


@pytest.fixture
def resuming(work: Path) -> Callable[..., list[Problem]]:
    """Says what is found of an RL run that is to resume: with a checkpoint of step 5, a torn one of 10."""
    write_checkpoint(work / "run", 5, progress=True)
    (work / "run" / "checkpoints" / "step_10").mkdir()

    def resuming(resume: Any, options: dict[str, Any] | None = None, run: str = "run", **more: Any) -> Any:
        document = {"resume": resume, **more}
        plan = make_plan(work / run, options, document=document, resume=resume is not None)
        return problems(surroundings.checkpoint_is_there, plan)

    return resuming


@pytest.mark.parametrize("resume", [None, {}, {"step": 5}, {"dir": "/elsewhere"}])
def test_what_can_be_resumed_from_is_nothing_to_speak_of(resuming: Any, resume: Any) -> None:
    assert resuming(resume) == []


@pytest.mark.parametrize("step", [7, 10])
def test_a_step_without_a_whole_checkpoint_is_refused(resuming: Any, work: Path, step: int) -> None:
    (found,) = resuming({"step": step})

    assert found.fatal
    assert found.message == f"no whole checkpoint of step {step} is in {work}/run/checkpoints"
    assert found.hint == "there are: 5; --resume takes the newest"
    assert resuming({"step": step}, {"dependency": "afterany:1"}) == []
    assert resuming({"step": step}, trainer={"ckpt": {"output_dir": "/local/of/the/node"}}) == []


def test_without_any_checkpoint_a_resume_begins_and_that_is_said(resuming: Any, work: Path) -> None:
    (found,) = resuming({}, run="new")
    (refused,) = resuming({"step": 5}, run="new")

    assert not found.fatal
    assert found.message == f"no checkpoint is in {work}/new: the run starts from the beginning"
    assert refused.hint == "there is none: --resume alone starts from the beginning"


def test_a_rehearsal_is_to_find_out_itself(work: Path) -> None:
    plan = offline(reading(work))
    (found,) = problems(
        surroundings.files_are_there, replace(plan, launch=replace(plan.launch, rehearse=True))
    )

    assert not found.fatal
