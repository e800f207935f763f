"""Launches through the real command lines: what is written, printed, submitted and refused."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import medarc_plugin.launch
import medarc_plugin.lock
from medarc_plugin.host import resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    from standins import Slurm

    Run = Callable[..., Any]

EXAMPLES = Path(__file__).parents[2] / "examples" / "reverse_text"
RL = ("@", str(EXAMPLES / "rl.toml"), "--output-dir", "runs/a", "--train-gpus", "1", "--infer-gpus", "1")
SFT = ("@", str(EXAMPLES / "sft.toml"), "--output-dir", "runs/a", "--gpus", "1")
LAUNCH = Path("configs") / "launch"


@pytest.fixture
def run_dir(work: Path) -> Path:
    return work / "runs" / "a"


@pytest.fixture
def host(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """prime-rl, found through PRIME_RL_DIR."""
    monkeypatch.setenv("PRIME_RL_DIR", str(checkout))
    return checkout


def directives(run_dir: Path, name: str = "rl") -> dict[str, str]:
    lines = (run_dir / f"{name}.sbatch").read_text().splitlines()
    words = [shlex.split(line.removeprefix("#SBATCH "))[0] for line in lines if line.startswith("#SBATCH ")]
    return {key: value for key, _, value in (word.removeprefix("--").partition("=") for word in words)}


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# Rehearsals.


def test_a_rehearsal_asks_for_a_short_allocation_whatever_the_run_asks_for(
    cli: Run, run_dir: Path, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_TIMELIMIT", "1-00:00:00")

    cli("rl", "--backend", "slurm", *RL, "--dry-run", "--rehearse")

    assert directives(run_dir)["time"] == "5"
    assert "signal" not in directives(run_dir)


@pytest.mark.parametrize("dry", [("--dry-run",), ()])
def test_a_rehearsal_is_called_one(here: Run, host: Path, slurm: Slurm, dry: tuple[str, ...]) -> None:
    said = here("rl", "--backend", "slurm", *RL, "--rehearse", *dry).err

    assert "run         rehearsal of rl with backend slurm, job name 'a'\n" in said
    assert "survives" not in said
    assert "launches    nothing: " in said
    assert ("this submits the rehearsal:\n" if dry else "submitted the rehearsal of 'a'\n") in said


def test_a_rehearsal_takes_the_time_that_is_typed(cli: Run, run_dir: Path, host: Path) -> None:
    cli("rl", "--backend", "slurm", *RL, "--dry-run", "--rehearse", "--time", "20")

    assert directives(run_dir)["time"] == "20"


def test_a_rehearsal_leaves_a_mark_where_the_hubs_cache_is(
    cli: Run, run_dir: Path, host: Path, tmp_path: Path
) -> None:
    home = tmp_path / "hub"
    home.mkdir()
    cache = ("--hf-cache-dir", str(home))

    cli("rl", "--backend", "slurm", *RL, "--dry-run", *cache)
    without = files_in(home), json.loads((run_dir / LAUNCH / "launch.json").read_text())["mark"]
    cli("rl", "--backend", "slurm", *RL, "--dry-run", "--rehearse", *cache)
    mark = json.loads((run_dir / LAUNCH / "launch.json").read_text())["mark"]

    assert without == ([], None)
    assert [str(home / name) for name in files_in(home)] == [mark["file"]]
    assert mark["host"] in Path(mark["file"]).read_text() or mark["host"] in mark["file"]


def test_a_rehearsal_makes_no_cache_for_its_mark(cli: Run, run_dir: Path, host: Path, tmp_path: Path) -> None:
    cli("rl", "--backend", "slurm", *RL, "--dry-run", "--rehearse", "--hf-cache-dir", str(tmp_path / "none"))

    assert json.loads((run_dir / LAUNCH / "launch.json").read_text())["mark"]["file"] is None
    assert not (tmp_path / "none").exists()


def test_a_rehearsal_deletes_no_run(here: Run, work: Path, run_dir: Path, host: Path, slurm: Slurm) -> None:
    (work / "rl.toml").write_text("clean = true\n" + (EXAMPLES / "rl.toml").read_text())
    (run_dir / "checkpoints").mkdir(parents=True)
    (run_dir / "configs").mkdir()
    (run_dir / "configs" / "rl.json").write_text("{}")
    before = files_in(run_dir)

    by_flag = here("rl", "--backend", "slurm", *RL, "--rehearse", "--clean")
    by_config = here("rl", "--backend", "slurm", "@", "rl.toml", *RL[2:], "--rehearse")

    for result in (by_flag, by_config):
        assert result.code == 2
        assert "holds a run, which --clean would delete and a rehearsal must not" in result.err
    assert files_in(run_dir) == before
    assert (run_dir / "checkpoints").is_dir()
    assert slurm.calls("sbatch") == []


def test_a_rehearsal_takes_clean_where_there_is_no_run(
    here: Run, run_dir: Path, host: Path, slurm: Slurm
) -> None:
    run_dir.mkdir(parents=True)
    (run_dir / "job_7.log").touch()

    assert here("rl", "--backend", "slurm", *RL, "--rehearse", "--clean").code == 0
    assert (run_dir / "job_7.log").exists()


# Dry runs.


@pytest.mark.parametrize(
    ("program", "argv", "name"),
    [
        ("rl", ("--backend", "slurm", *RL), "rl"),
        ("sft", ("--backend", "slurm", *SFT), "sft"),
        ("medarc_slurm", ("rl", *RL[1:]), "rl"),
        ("medarc_slurm", ("sft", *SFT[1:]), "sft"),
        (
            "inference",
            ("--backend", "slurm", "--model.name", "m", "--output-dir", "runs/a", "--gpus", "2"),
            "inference",
        ),
    ],
)
def test_a_dry_run_prints_the_one_command_that_submits(
    cli: Run,
    work: Path,
    run_dir: Path,
    host: Path,
    slurm: Slurm,
    program: str,
    argv: tuple[str, ...],
    name: str,
) -> None:
    result = cli(program, *argv, "--dry-run")

    assert (result.code, result.out) == (0, f"sbatch --parsable {work}/runs/a/{name}.sbatch\n")
    assert "checked by prime-rl" in result.err
    assert {f"{name}.sbatch", f"configs/{name}.json", "configs/launch/launch.json"} <= set(files_in(run_dir))
    assert slurm.calls("sbatch") == []


def test_a_dry_run_without_prime_rl_says_that_nothing_was_checked(here: Run, run_dir: Path) -> None:
    result = here("rl", "--backend", "slurm", *RL, "--dry-run")

    assert result.code == 0
    assert "warning: config: the config is unchecked: prime-rl was not found" in result.err
    assert json.loads((run_dir / LAUNCH / "launch.json").read_text())["python"] is None


def test_the_plan_is_shown(here: Run, host: Path) -> None:
    argv = (
        "--train-gpus",
        "2",
        "--infer-gpus",
        "3",
        "-p",
        "gpu",
        "-t",
        "30",
        "--mem-per-gpu",
        "10G",
        "--gpu-type",
        "h100",
    )
    lines = here("rl", "--backend", "slurm", *RL, *argv, "--dry-run").err.splitlines()

    shown = [line.split(maxsplit=1) for line in lines]
    assert ["GPUs", "5 of type h100, on one node"] in shown
    assert ["inference:", "GPUs 0-2 of the allocation"] in shown
    assert ["trainer:", "GPUs 3-4 of the allocation"] in shown
    assert ["CPUs", "40 (8 for each GPU)"] in shown
    assert ["memory", "50 GiB"] in shown
    assert ["partition", "gpu (command line)"] in shown
    assert ["account", "the cluster's default"] in shown


def test_the_allocation_is_the_smallest(here: Run, run_dir: Path, host: Path) -> None:
    here("sft", "--backend", "slurm", *SFT, "--dry-run")

    found = directives(run_dir, "sft")
    assert (found["gres"], found["cpus-per-task"], found["nodes"], found["ntasks"]) == (
        "gpu:1",
        "8",
        "1",
        "1",
    )
    assert not {"exclusive", "mem", "partition", "account", "time", "qos"} & set(found)


def test_one_gpu_can_be_shared(here: Run, run_dir: Path, host: Path) -> None:
    result = here("rl", "--backend", "slurm", *RL[:4], "--single-gpu", "--dry-run")

    config = json.loads((run_dir / "configs" / "rl.json").read_text())
    assert result.code == 0, result.err
    assert directives(run_dir)["gres"] == "gpu:1"
    assert config["weight_broadcast"]["type"] == "filesystem"
    assert config["inference"]["vllm"]["gpu_memory_utilization"] == 0.3
    assert (
        "the model's size is unknown (PrimeIntellect/Qwen3-0.6B-Reverse-Text-SFT: it is not on" in result.err
    )


ARCHITECTURE = {
    "head_dim": 128,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "tie_word_embeddings": True,
    "vocab_size": 151936,
}


def share_one(here: Run, work: Path, *argv: str, **architecture: int) -> Any:
    """Plan a run on one shared GPU with a model that is here."""
    (work / "model").mkdir()
    (work / "model" / "config.json").write_text(json.dumps({**ARCHITECTURE, **architecture}))
    return here(
        "rl", "--backend", "slurm", *RL[:4], "--single-gpu", "--dry-run", "--model.name", "model", *argv
    )


def test_the_memory_of_a_shared_gpu_is_divided_and_shown(
    here: Run, work: Path, run_dir: Path, host: Path
) -> None:
    result = share_one(here, work, "--gpu-type", "h100")

    share = json.loads((run_dir / "configs" / "rl.json").read_text())["inference"]["vllm"][
        "gpu_memory_utilization"
    ]
    shown = [line.strip() for line in result.err.splitlines()]
    assert result.code == 0, result.err
    assert 0.4 < share < 0.6
    (divided,) = [line for line in shown if line.startswith("GPU memory")]
    assert divided.startswith(f"GPU memory  79.6 GiB: vLLM's share is {share}, ")
    assert divided.endswith(" GiB (--gpu-type h100)")
    (trainer,) = [line for line in shown if line.startswith("trainer about")]
    # The example switches prime-rl's memory savers off.
    assert "parameters 2.2, gradients 2.2, optimizer 4.4, activations " in trainer
    assert any(line.startswith("vLLM at least ") and "weights 1.1, cache 4.4" in line for line in shown)


def test_the_share_of_an_unknown_gpu_is_worked_out_in_the_job(
    here: Run, work: Path, run_dir: Path, host: Path
) -> None:
    result = share_one(here, work)

    plan = json.loads((run_dir / "configs" / "launch" / "launch.json").read_text())
    assert result.code == 0, result.err
    assert "the job works vLLM's share out for the GPU that it gets" in result.err
    assert (plan["memory"]["share"], plan["memory"]["fixed"]) == (None, False)


def test_a_share_on_the_command_line_is_the_users_own(
    here: Run, work: Path, run_dir: Path, host: Path
) -> None:
    result = share_one(here, work, "--gpu-memory", "80G", "--inference.vllm.gpu-memory-utilization", "0.35")

    plan = json.loads((run_dir / "configs" / "launch" / "launch.json").read_text())
    config = json.loads((run_dir / "configs" / "rl.json").read_text())
    assert result.code == 0, result.err
    assert config["inference"]["vllm"]["gpu_memory_utilization"] == 0.35
    assert (plan["memory"]["share"], plan["memory"]["fixed"]) == (0.35, True)


def test_trainer_and_vllm_that_do_not_fit_are_refused(
    here: Run, work: Path, run_dir: Path, host: Path
) -> None:
    result = share_one(here, work, "--gpu-memory", "24G", hidden_size=4096)

    assert result.code == 2
    assert "GPU memory: trainer and vLLM do not fit on one GPU: the trainer needs about " in result.err
    assert "hint: a smaller seq_len" in result.err
    assert not run_dir.exists()


def test_only_names_that_prime_rls_guard_allows_are_written(here: Run, run_dir: Path, host: Path) -> None:
    here("rl", "--backend", "slurm", *RL, "--dry-run")

    assert {path.name for path in run_dir.iterdir()} == {"configs", "rl.sbatch"}


def test_what_was_resolved_is_accepted_by_prime_rl_again(here: Run, run_dir: Path, host: Path) -> None:
    here("rl", "--backend", "slurm", *RL, "--dry-run")

    done = subprocess.run(
        [host / ".venv/bin/rl", "@", run_dir / "configs" / "rl.json", "--dry-run"],
        capture_output=True,
        check=False,
        env={"PATH": "/usr/bin:/bin"},
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("dashes", [(), ("--",)])
def test_overrides_reach_prime_rl(here: Run, run_dir: Path, host: Path, dashes: tuple[str, ...]) -> None:
    here(
        "medarc_slurm", "rl", *RL[1:], "--dry-run", *dashes, "--max-steps", "5", "--trainer.optim.lr", "1e-6"
    )

    config = json.loads((run_dir / "configs" / "rl.json").read_text())
    assert (config["max_steps"], config["trainer"]["optim"]["lr"]) == (5, 1e-6)


@pytest.mark.parametrize("found", [True, False])
def test_the_slurm_table_is_read_and_goes_no_further(
    here: Run, work: Path, run_dir: Path, found: bool, request: pytest.FixtureRequest
) -> None:
    if found:
        request.getfixturevalue("host")
    (work / "rl.toml").write_text(
        (EXAMPLES / "rl.toml").read_text()
        + '\n[slurm]\npartition = "gpu"\ngpu_type = "h100"\nshared_fs = true\n'
    )

    result = here("rl", "--backend", "slurm", "@", "rl.toml", *RL[2:], "--dry-run")

    assert result.code == 0, result.err
    assert directives(run_dir)["partition"] == "gpu"
    assert "slurm" not in json.loads((run_dir / "configs" / "rl.json").read_text())


def test_the_command_line_wins_over_the_table_which_wins_over_sbatch(
    here: Run, work: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "rl.toml").write_text('[inference]\n[slurm]\npartition = "table"\naccount = "table"\n')
    for name in ("PARTITION", "ACCOUNT", "QOS"):
        monkeypatch.setenv(f"SBATCH_{name}", "variable")

    here("medarc_slurm", "rl", "rl.toml", "--output-dir", "runs/a", "-p", "line", "--dry-run")

    found = directives(run_dir)
    assert (found["partition"], found["account"], found["qos"]) == ("line", "table", "variable")


@pytest.mark.parametrize("how", ["--dry_run", "-- --dry-run", "dry_run = true"])
def test_a_dry_run_that_prime_rl_would_understand_submits_nothing(
    here: Run, work: Path, run_dir: Path, host: Path, slurm: Slurm, how: str
) -> None:
    (work / "rl.toml").write_text(f"{how if '=' in how else ''}\n{(EXAMPLES / 'rl.toml').read_text()}")

    result = here("rl", "--backend", "slurm", "@", "rl.toml", *RL[2:], *([] if "=" in how else how.split()))

    assert (result.code, slurm.calls("sbatch")) == (0, [])
    assert (run_dir / "rl.sbatch").is_file()


@pytest.mark.parametrize(
    "name", ["-x", "a b", "it's", '"q"', "$(touch x)", "`id`", "100%j", "{{ x }}", "é漢", "#", "\u2028"]
)
def test_a_name_is_literal(here: Run, work: Path, name: str) -> None:
    argv = ("--output-dir", f"runs/{name}", "--job-name", name, "--comment", name, "--dry-run")
    result = here("sft", "--backend", "slurm", *SFT[:2], *argv)

    assert result.code == 0, result.err
    assert shlex.split(result.out)[-1] == str(work / "runs" / name / "sft.sbatch")
    text = (work / "runs" / name / "sft.sbatch").read_text()
    escaped = name.replace('"', '\\"')
    assert f'#SBATCH --job-name="{escaped}"\n' in text or f"#SBATCH --job-name={name}\n" in text


def test_a_run_of_ones_own_name_lies_where_the_config_says(here: Run, work: Path, host: Path) -> None:
    (work / "p").mkdir()
    result = here(
        "medarc_slurm",
        "rl",
        RL[1],
        "--project-dir",
        "p",
        "--dry-run",
        "--",
        "--output-dir",
        "out",
        "--run.name",
        "b",
    )

    assert result.code == 0, result.err
    assert (work / "p" / "out" / "b" / "rl.sbatch").is_file()


def test_provenance_tells_what_was_typed_and_with_what(here: Run, run_dir: Path, host: Path) -> None:
    here("rl", "--backend", "slurm", *RL, "--dry-run")

    found = json.loads((run_dir / LAUNCH / "provenance.json").read_text())
    assert found["command"] == ["rl", "--backend", "slurm", *RL, "--dry-run"]
    assert found["prime_rl"]["directory"] == str(host)
    assert found["checked"] is True


def test_the_backend_may_be_set_in_the_environment(cli: Run, run_dir: Path, host: Path, slurm: Slurm) -> None:
    result = cli("rl", *RL, "--dry-run", MEDARC_BACKEND="slurm")

    assert result.out == f"env -u MEDARC_BACKEND sbatch --parsable {run_dir}/rl.sbatch\n"


# Submissions.


def test_a_submission_prints_the_job_and_the_paths(cli: Run, run_dir: Path, host: Path, slurm: Slurm) -> None:
    result = cli("rl", "--backend", "slurm", *RL)

    assert result.code == 0, result.err
    assert [line.split(maxsplit=1) for line in result.out.splitlines()] == [
        ["job", "17"],
        ["run", str(run_dir)],
        ["script", str(run_dir / "rl.sbatch")],
        ["log", str(run_dir / "job_17.log")],
    ]
    assert [call["argv"] for call in slurm.calls("sbatch")] == [["--parsable", str(run_dir / "rl.sbatch")]]


def test_a_submission_is_recorded(here: Run, run_dir: Path, host: Path, slurm: Slurm) -> None:
    slurm.set(cluster="west")
    result = here("rl", "--backend", "slurm", *RL)

    record = json.loads((run_dir / LAUNCH / "submission.json").read_text())
    plan = json.loads((run_dir / LAUNCH / "launch.json").read_text())
    assert "submitted 'a' on west" in result.err
    assert (record["job_id"], record["cluster"], record["backend"]) == ("17", "west", "slurm")
    assert record["token"] == plan["token"]
    assert f"[medarc:{plan['token']}]" == directives(run_dir)["comment"]


def test_sbatch_variables_are_wishes_and_do_not_override_the_script(
    here: Run, run_dir: Path, host: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_PARTITION", "debug")
    monkeypatch.setenv("SBATCH_GRES", "gpu:8")
    monkeypatch.setenv("SLURM_JOB_ID", "99")

    result = here("rl", "--backend", "slurm", *RL, "--partition", "gpu")

    assert directives(run_dir)["partition"] == "gpu"
    assert "warning: SBATCH_GRES: set, but the run decides this; ignored" in result.err
    assert not {"SBATCH_PARTITION", "SBATCH_GRES", "SLURM_JOB_ID"} & set(
        slurm.calls("sbatch")[0]["environment"]
    )


def test_a_cache_that_would_be_somewhere_else_each_time_is_ignored(
    here: Run, work: Path, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDARC_CACHE_DIR", "cache")

    result = here("rl", "--backend", "slurm", *RL, "--dry-run")

    assert result.code == 0
    assert "warning: MEDARC_CACHE_DIR: 'cache' is not an absolute path; ignored\n" in result.err
    assert not (work / "cache").exists()


SENTINEL = "hf_OpenSesame123"


def leaks(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and SENTINEL.encode() in path.read_bytes()]


@pytest.mark.parametrize("dry", [True, False])
def test_secrets_reach_sbatchs_environment_and_nothing_else(
    cli: Run, work: Path, host: Path, slurm: Slurm, dry: bool
) -> None:
    secrets = dict.fromkeys(("HF_TOKEN", "WANDB_API_KEY", "MY_SECRET"), SENTINEL)

    result = cli(
        "rl",
        "--backend",
        "slurm",
        *RL,
        "--auto-auth",
        "--env",
        "MY_SECRET",
        *(["--dry-run"] if dry else []),
        **secrets,
    )

    assert result.code == 0, result.err
    assert SENTINEL not in result.printed
    assert leaks(work) == []
    for call in slurm.calls("sbatch"):
        assert SENTINEL not in "".join(call["argv"])
        assert secrets.items() <= call["environment"].items()
    assert len(slurm.calls("sbatch")) == (0 if dry else 1)
    assert "passed on   MY_SECRET, HF_TOKEN, WANDB_API_KEY (values stay out of all files)" in result.err


@pytest.mark.parametrize(
    ("variables", "path"),
    [
        ({}, "home/.cache/huggingface/token"),
        ({"XDG_CACHE_HOME": "{}/xdg"}, "xdg/huggingface/token"),
        ({"HF_HOME": "{}/hf", "XDG_CACHE_HOME": "{}/xdg"}, "hf/token"),
        ({"HF_TOKEN_PATH": "{}/t", "HF_HOME": "{}/hf"}, "t"),
    ],
)
def test_the_token_is_found_where_the_hub_stores_it(
    here: Run, tmp_path: Path, work: Path, host: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str], path: str,
) -> None:  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(tmp_path))
    store = tmp_path / path
    store.parent.mkdir(parents=True, exist_ok=True)
    store.write_text(f"{SENTINEL}\n")

    result = here("rl", "--backend", "slurm", *RL, "--auto-auth")

    assert slurm.calls("sbatch")[0]["environment"]["HF_TOKEN"] == SENTINEL
    assert SENTINEL not in result.printed
    assert leaks(work) == []
    assert "  HF_TOKEN (values stay out of all files); not found here: WANDB_API_KEY\n" in result.err
    assert "warning: WANDB_API_KEY was not found here, so the job will not have it" in result.err


def test_what_is_not_here_is_not_said_to_be_passed_on(here: Run, host: Path) -> None:
    result = here("rl", "--backend", "slurm", *RL, "--auto-auth", "--dry-run")

    assert "passed on   nothing; not found here: HF_TOKEN, WANDB_API_KEY\n" in result.err


def test_a_refusal_shows_no_secret(
    here: Run, work: Path, host: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", SENTINEL)
    slurm.set(up=False)

    result = here("rl", "--backend", "slurm", *RL, "--auto-auth")

    assert result.code == 2
    assert SENTINEL not in result.printed
    assert leaks(work) == []


def test_a_secret_in_the_slurm_table_is_refused_unseen(here: Run, work: Path, run_dir: Path) -> None:
    for table in (f'env = ["HF_TOKEN={SENTINEL}"]', f'[slurm.env]\nHF_TOKEN = "{SENTINEL}"'):
        (work / "rl.toml").write_text(f"[slurm]\n{table}\n")

        result = here("medarc_slurm", "rl", "rl.toml", "--output-dir", "runs/a", "--dry-run")

        assert result.code == 2
        assert SENTINEL not in result.printed
        assert not run_dir.exists()


# A run directory that is taken.


@pytest.fixture
def submitted(here: Run, host: Path, slurm: Slurm, run_dir: Path) -> Callable[..., None]:
    """Submit a run, and let its job be in a state."""

    def run(state: str | None) -> None:
        assert here("rl", "--backend", "slurm", *RL).code == 0
        comment = directives(run_dir)["comment"]
        slurm.set(jobs={"17": {"state": state, "comment": comment}} if state else {})

    return run


@pytest.mark.parametrize("state", ["PENDING", "RUNNING"])
@pytest.mark.parametrize("how", [(), ("--resume",), ("--clean",), ("--dry-run",), ("--backend", "local")])
def test_a_run_whose_job_is_in_the_queue_is_left_alone(
    here: Run, run_dir: Path, submitted: Callable[..., None], slurm: Slurm, state: str, how: tuple[str, ...]
) -> None:
    submitted(state)
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}

    result = here("rl", "--backend", "slurm", *RL, *how)

    assert result.code == 2
    assert f"belongs to job 17 ({state})" in result.err
    assert "scancel 17" in result.err
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before
    assert len(slurm.calls("sbatch")) == 1


def test_a_run_is_left_alone_when_nobody_can_be_asked(
    here: Run, submitted: Callable[..., None], slurm: Slurm
) -> None:
    submitted("RUNNING")
    slurm.set(up=False)

    result = here("rl", "--backend", "slurm", *RL)

    assert "belongs to job 17 (SLURM does not say how it is)" in result.err


def test_a_run_that_is_there_is_refused_resumed_or_deleted(
    here: Run, run_dir: Path, submitted: Callable[..., None]
) -> None:
    submitted(None)
    (run_dir / "checkpoints" / "step_5").mkdir(parents=True)

    refused = here("rl", "--backend", "slurm", *RL)
    resumed = here("rl", "--backend", "slurm", *RL, "--resume")
    kept = (run_dir / "checkpoints").is_dir()
    config = json.loads((run_dir / "configs" / "rl.json").read_text())
    cleaned = here("rl", "--backend", "slurm", *RL, "--clean")

    assert (refused.code, resumed.code, cleaned.code) == (2, 0, 0)
    assert "already holds a run: checkpoints" in refused.err
    assert kept
    assert config["resume"] is not None
    assert not (run_dir / "checkpoints").exists()
    assert (run_dir / LAUNCH / "submission.json").is_file()


def test_a_dry_run_deletes_nothing(here: Run, run_dir: Path) -> None:
    (run_dir / "checkpoints").mkdir(parents=True)
    (run_dir / "configs").mkdir()
    (run_dir / "configs" / "rl.json").touch()

    result = here("rl", "--backend", "slurm", *RL, "--clean", "--dry-run")

    assert result.code == 2
    assert "which --clean would delete and a dry run must not" in result.err
    assert (run_dir / "checkpoints").is_dir()
    assert (run_dir / "configs" / "rl.json").read_text() == ""


@pytest.mark.parametrize("how", [("--no-clean",), ("--clean", "false"), ("--clean=false",)])
def test_the_command_line_can_forbid_what_the_config_would_delete(
    here: Run, work: Path, run_dir: Path, host: Path, slurm: Slurm, how: tuple[str, ...]
) -> None:
    (work / "rl.toml").write_text("clean = true\n" + (EXAMPLES / "rl.toml").read_text())
    (run_dir / "checkpoints").mkdir(parents=True)
    (run_dir / "configs").mkdir()
    (run_dir / "configs" / "rl.json").touch()

    result = here("rl", "--backend", "slurm", "@", "rl.toml", *RL[2:], *how)

    assert "already holds a run: checkpoints" in result.err
    assert (run_dir / "checkpoints").is_dir()
    assert slurm.calls("sbatch") == []


def test_clean_in_the_config_is_obeyed_and_not_passed_to_the_job(
    here: Run, work: Path, run_dir: Path, host: Path, slurm: Slurm
) -> None:
    (work / "rl.toml").write_text("clean = true\n" + (EXAMPLES / "rl.toml").read_text())
    (run_dir / "checkpoints").mkdir(parents=True)
    (run_dir / "configs").mkdir()
    (run_dir / "configs" / "rl.json").touch()

    assert here("rl", "--backend", "slurm", "@", "rl.toml", *RL[2:]).code == 0

    assert not (run_dir / "checkpoints").exists()
    assert not json.loads((run_dir / "configs" / "rl.json").read_text()).get("clean")
    assert len(slurm.calls("sbatch")) == 1


def test_a_launch_deletes_nothing_under_another(
    here: Run, run_dir: Path, host: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(medarc_plugin.lock, "WAIT_SECONDS", 0.1)
    (run_dir / LAUNCH).mkdir(parents=True)
    (run_dir / "configs" / "rl.json").touch()
    (run_dir / "checkpoints").mkdir()
    with (run_dir / LAUNCH / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)

        result = here("rl", "--backend", "slurm", *RL, "--clean")

    assert "another launch is still at work" in result.err
    assert (run_dir / "checkpoints").is_dir()
    assert slurm.calls("sbatch") == []


def test_a_job_whose_record_cannot_be_written_is_still_told(
    here: Run, host: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(medarc_plugin.launch.rundir, "record", full)

    result = here("rl", "--backend", "slurm", *RL)

    assert result.code == 0
    assert result.out.startswith("job     17\n")
    assert "job 17 is submitted, but could not be recorded" in result.err
    assert len(slurm.calls("sbatch")) == 1


# prime-rl's own commands.


@pytest.mark.parametrize(
    ("program", "argv", "expected"),
    [
        ("rl", ("@", "x y.toml", "--a=b c", ""), None),
        ("sft", ("--partition", "gpu", "--output-dir", "x", "--dry-run", "--", "-h"), None),
        ("rl", (), None),
        ("rl", ("--help",), None),
        ("inference", ("--model.name", "X", "--gpus", "2"), ("--vllm.model", "X", "--gpus", "2")),
        ("inference", ("--model.name=X",), ("--vllm.model=X",)),
    ],
)
def test_without_a_backend_the_command_is_prime_rls_own(
    cli: Run, tmp_path: Path, program: str, argv: tuple[str, ...], expected: tuple[str, ...] | None
) -> None:
    """The interpreter notes what it is given, and ends in a way of its own."""
    folder = tmp_path / "prime-rl"
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / "src" / "prime_rl").mkdir(parents=True)
    (folder / "pyproject.toml").touch()
    (folder / ".venv" / "pyvenv.cfg").touch()
    configs = folder / "packages" / "prime-rl-configs" / "src" / "prime_rl" / "configs"
    configs.mkdir(parents=True)
    (configs / "inference.py").write_text("class InferenceConfig:\n    vllm: VLLMConfig\n")
    python = folder / ".venv" / "bin" / "python"
    python.write_text(
        '#!/bin/sh\nfor word in "$@"; do printf "%s\\n" "<$word>"; done\n'
        'echo "$VIRTUAL_ENV ${PATH%%:*} ${MEDARC_BACKEND-none}" >&2\nexit 43\n'
    )
    python.chmod(0o755)

    result = cli(program, *argv, PRIME_RL_DIR=str(folder), MEDARC_BACKEND="")

    words = ["-m", f"prime_rl.entrypoints.{program}", *(argv if expected is None else expected)]
    assert (result.code, result.out.splitlines()) == (43, [f"<{word}>" for word in words])
    assert result.err == f"{folder}/.venv {folder}/.venv/bin none\n"


def test_a_run_of_prime_rls_own_ends_as_it_ends(cli: Run, work: Path, host: Path) -> None:
    result = cli(
        *("sft", "@", str(EXAMPLES / "sft.toml"), "--output-dir", "runs", "--run.name", "b"),
        CUDA_VISIBLE_DEVICES="0", STANDIN_EXIT_CODE="7", STANDIN_STEPS="1",
    )  # fmt: skip

    assert result.code == 7
    assert (work / "runs" / "b" / "metrics.jsonl").is_file()


# The rest.


@pytest.mark.parametrize("argv", [("rl", "--backend", "slurm", "--help"), ("medarc_slurm", "sft", "-h")])
def test_help_goes_to_standard_output(cli: Run, argv: tuple[str, ...]) -> None:
    result = cli(*argv)

    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("Usage: ")
    assert "--cpus-per-gpu N" in result.out


def test_options_are_listed_with_value_and_source(cli: Run, work: Path) -> None:
    (work / "rl.toml").write_text('[slurm]\naccount = "lab"\n')

    result = cli("medarc_slurm", "options", "rl.toml", "-p", "gpu", SBATCH_QOS="high", COLUMNS="100")

    rows = [line.split() for line in result.out.splitlines()]
    assert ["--partition", "gpu", "command", "line"] in rows
    assert ["--account", "lab", "[slurm]"] in rows
    assert ["--qos", "high", "SBATCH_QOS"] in rows
    assert ["--cpus-per-gpu", "8", "built-in"] in rows
    assert result.code == 0


def test_the_version_is_told(cli: Run) -> None:
    assert cli("medarc_slurm", "--version").out == f"medarc_plugin {medarc_plugin.__version__}\n"


def test_an_unknown_command_is_refused(cli: Run) -> None:
    result = cli("medarc_slurm", "trian")

    assert result.code == 2
    assert "No such command 'trian'" in result.err


def test_an_interruption_ends_with_130(
    here: Run, monkeypatch: pytest.MonkeyPatch, host: Path, run_dir: Path
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(resolve, "run_apart", interrupt)

    result = here("rl", "--backend", "slurm", *RL)

    assert (result.code, result.out, result.err) == (130, "", "interrupted\n")
    assert not run_dir.exists()


@pytest.fixture
def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prime-rl whose interpreter is a script that hangs, with a child; all of it holds the pipe `lives`."""
    folder = tmp_path / "prime-rl"
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / "src" / "prime_rl").mkdir(parents=True)
    (folder / "pyproject.toml").touch()
    os.mkfifo(tmp_path / "lives")
    python = folder / ".venv" / "bin" / "python"
    # Who looks at the answers waits for them, and so has started all of this.
    python.write_text(
        "#!/bin/sh\n/usr/bin/mkfifo $3\n: > $3\n"
        f"exec 3>{tmp_path}/lives\n/bin/sleep 1000 &\n/bin/sleep 1000\ntrue\n"
    )
    python.chmod(0o755)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("PRIME_RL_DIR", str(folder))
    return tmp_path / "lives"


def signalled(
    program: str, *argv: str, lives: Path, number: int, stderr: int = subprocess.PIPE
) -> tuple[int, str, str]:
    """Start a command, send a signal to it alone when prime-rl's interpreter runs, and see all of it end."""
    command = [Path(sys.executable).with_name(program), *argv]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process:
        with lives.open() as held:  # returns when the resolver is at work
            process.send_signal(number)
            out, err = process.communicate(timeout=20)
            assert select.select([held], [], [], 20)[0], "something that it started goes on"
        return process.returncode, out, err


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (signal.SIGINT, 130, "interrupted\n"),
        (signal.SIGTERM, 143, "ended by SIGTERM\n"),
        (signal.SIGHUP, 129, "ended by SIGHUP\n"),
    ],
)
def test_a_process_that_is_told_to_end_leaves_nothing(
    work: Path, slurm: Slurm, hanging: Path, number: int, code: int, words: str
) -> None:
    done = signalled("rl", "--backend", "slurm", *RL, lives=hanging, number=number)

    assert done == (code, "", words)
    assert not (work / "runs").exists()
    assert list((hanging.parent / "tmp").iterdir()) == []


def test_a_process_that_is_killed_takes_prime_rls_interpreter_along(slurm: Slurm, hanging: Path) -> None:
    assert signalled("rl", "--backend", "slurm", *RL, lives=hanging, number=signal.SIGKILL)[0] == -9


def test_several_configs_on_a_terminal_can_be_interrupted(work: Path, slurm: Slurm, hanging: Path) -> None:
    for name in "ab":
        (work / f"{name}.toml").touch()
    argv = ("rl", "a.toml", "b.toml", "--output-dir", "runs/{stem}", "--dry-run")
    terminal, screen = os.openpty()
    try:
        code, _, _ = signalled("medarc_slurm", *argv, lives=hanging, number=signal.SIGINT, stderr=screen)
    finally:
        os.close(screen)
        os.close(terminal)

    assert code == 130
    assert not (work / "runs").exists()


def test_a_run_in_the_foreground_is_told_that_it_is_to_end(tmp_path: Path) -> None:
    lives = tmp_path / "lives"
    os.mkfifo(lives)
    child = f"/bin/sleep 1000 & trap 'kill $!; echo told; exit 7' TERM; exec 3>{lives}; wait"
    program = (
        "import sys; from medarc_plugin.cli import output; from medarc_plugin.process import run_attached\n"
        "sys.exit(output.guarded(lambda: run_attached(sys.argv[1:])))"
    )
    argv = [sys.executable, "-c", program, "/bin/sh", "-c", child]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process, lives.open():
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)

    assert (process.returncode, out) == (7, "told\n")


def test_a_reader_that_goes_away_is_no_error(work: Path) -> None:
    program = shlex.quote(str(Path(sys.executable).with_name("rl")))
    done = subprocess.run(
        ["/bin/sh", "-c", f"{program} --backend slurm --help | /usr/bin/head -1"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.startswith("Usage: ")
    assert "Traceback" not in done.stderr
