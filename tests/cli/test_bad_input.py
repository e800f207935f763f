"""Bad input: exit code 2, what happened and the way out on stderr, no traceback, nothing written."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from standin import make_checkout

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from standins import Slurm

RL = """
[model]
name = "PrimeIntellect/Qwen3-0.6B"
[trainer]
[orchestrator.renderer]
name = "prime-qwen3"
[inference]
"""
LAUNCH = ("--backend", "slurm", "@", "rl.toml", "--output-dir", "run")


@pytest.fixture(autouse=True)
def config(work: Path, slurm: Slurm) -> None:
    (work / "rl.toml").write_text(RL)


@pytest.fixture
def refused(here: Callable[..., object], slurm: Slurm, work: Path) -> Callable[..., str]:
    """Run a command that must be refused with nothing written or submitted; return what it said."""

    def run(program: str, *argv: str, hint: bool = True) -> str:
        before = sorted(work.rglob("*"))
        result = here(program, *argv)

        assert (result.code, result.out) == (2, "")
        assert result.err.count("error: ") == 1
        assert ("\nhint: " in result.err) is hint
        assert "Traceback" not in result.err
        assert sorted(work.rglob("*")) == before
        assert slurm.calls("sbatch") == []
        return result.err

    return run


UNREADABLE = {
    "missing": ("no.toml", None, "Config file not found: no.toml", "/work has none of that name"),
    "mistyped": ("rll.toml", None, "Config file not found: rll.toml", "did you mean rl.toml?"),
    "elsewhere": ("there/rl.toml", None, "Config file not found", "there is no folder there in"),
    "no TOML": ("bad.toml", b"a = ", "Invalid TOML in bad.toml", ""),
    "another kind": ("bad.txt", b"", "Unsupported file type: bad.txt", ""),
    "no table": ("bad.json", b"[]", "bad.json holds something that is not a table", ""),
    "slurm is no table": ("bad.toml", b"slurm = 5", "[slurm] must be a table", ""),
    "a BOM": (
        "bad.toml",
        b"\xef\xbb\xbfa = 1",
        "Invalid TOML in bad.toml",
        "`tail -c +4 bad.toml` is without",
    ),
    "another code": ("bad.toml", b"a = 1 # caf\xe9", "bad.toml is not UTF-8 text", "`iconv -f WINDOWS-1252"),
    "wide characters": ("bad.toml", "a = 1".encode("utf-16"), "is not UTF-8 text", "`iconv -f UTF-16"),
    "many digits": (
        "bad.toml",
        b"a = " + b"9" * 6000,
        "bad.toml holds a value that cannot be read: Exceeds",
        "",
    ),
    "many in hex": ("bad.toml", b"a = 0x" + b"f" * 6000, "bad.toml holds a value that cannot be read", ""),
    "no date": (
        "bad.yaml",
        b"a: 2020-13-45",
        "bad.yaml holds a value that cannot be read: month must be",
        "",
    ),
    "very deep": ("bad.json", b"[" * 100_000, "bad.json is nested too deeply", ""),
}


@pytest.mark.parametrize(("name", "content", "message", "hint"), UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("program", ["rl", "medarc_slurm"])
def test_a_config_that_cannot_be_read(
    refused: Callable[..., str],
    work: Path,
    program: str,
    name: str,
    content: bytes | None,
    message: str,
    hint: str,
) -> None:
    if content is not None:
        (work / name).write_bytes(content)
    head = ("rl", name) if program == "medarc_slurm" else ("--backend", "slurm", "@", name)

    said = refused(program, *head, "--output-dir", "run", "--dry-run", hint=bool(hint))

    assert message in said
    assert hint in said


@pytest.mark.parametrize(("make", "what"), [(os.mkfifo, "a pipe"), (os.mkdir, "a folder")])
def test_a_config_that_is_no_file_is_refused_before_it_is_read(
    refused: Callable[..., str], work: Path, make: Callable[[str], None], what: str
) -> None:
    make("config.toml")

    said = [
        refused("rl", *LAUNCH, "@", "config.toml", "--dry-run"),
        refused("rl", *LAUNCH, "--trainer", "@config.toml", "--dry-run"),
        refused("medarc_slurm", "rl", "config.toml", "--output-dir", "run"),
    ]

    assert all(f"config.toml is {what}, not a regular file" in each for each in said)


def test_a_file_that_cannot_be_read_is_named_among_several_and_stops_no_other(
    here: Callable[..., Any], work: Path
) -> None:
    (work / "bad.toml").write_text("a = " + "9" * 6000)
    done = here("medarc_slurm", "rl", "bad.toml", "rl.toml", "--output-dir", "runs/{stem}", "--dry-run")
    merged = here("rl", *LAUNCH, "@", "rl.toml", "@", "bad.toml", "--dry-run")

    assert (done.code, merged.code) == (2, 2)
    assert "error: bad.toml: bad.toml holds a value" in done.err
    assert "1 of 2 runs written" in done.err
    assert "error: bad.toml holds a value" in merged.err


def test_a_date_in_an_unchecked_config_is_written_as_prime_rl_would(
    here: Callable[..., Any], work: Path
) -> None:
    (work / "rl.toml").write_text(f"since = 2026-08-21\n{RL}")

    done = here("rl", *LAUNCH, "--dry-run")

    assert done.code == 0, done.err
    assert json.loads((work / "run/configs/rl.json").read_text())["since"] == "2026-08-21"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--train-gpus", "0"), "--train-gpus 0: a run needs at least one GPU"),
        (("--infer-gpus", "-1"), "--infer-gpus -1: a run needs at least one GPU"),
        (("--train-gpus", "two"), "--train-gpus 'two' is not a whole number"),
        (("--deployment.num-train-gpus", "0"), "deployment.num_train_gpus = 0"),
    ],
)
def test_a_number_of_gpus_that_no_run_has(
    refused: Callable[..., str], argv: tuple[str, ...], message: str
) -> None:
    assert message in refused("rl", *LAUNCH, *argv, "--dry-run", hint="num" in argv[0])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--train-gpus", "9"), "10 GPUs (9 train + 1 inference) are more than the 8 of a node"),
        (("--train-gpus", "4", "--infer-gpus", "5"), "9 GPUs (4 train + 5 inference)"),
        (("--gpus", "2"), "--gpus 2: rl has two kinds of GPUs"),
        (("--single-gpu", "--train-gpus", "2"), "--single-gpu and --train-gpus 2 contradict each other"),
        (("--single-gpu", "--infer-gpus", "2"), "--single-gpu and --infer-gpus 2 contradict each other"),
        (
            ("--single-gpu", "--deployment.num-train-gpus", "2"),
            "--single-gpu and deployment.num_train_gpus = 2",
        ),
        (
            ("--single-gpu", "--weight-broadcast.type", "nccl"),
            "--single-gpu and weight_broadcast.type = 'nccl'",
        ),
        (("--deployment.type", "multi_node"), "this backend places runs on one node"),
        (("--run.dir", "other"), "run.dir = 'other' and --output-dir contradict each other"),
        (("--backend", "slrum"), "unknown backend 'slrum'"),
        (("--slurm.partitoin", "gpu"), "unknown option --slurm.partitoin"),
        (("--prime-rl-dir", "nowhere"), "is not a folder"),
        (("--template-path", "no.j2"), "no.j2 is not a file"),
        (("--project-dir", "nowhere"), "nowhere is not a folder"),
        (("--env", "MISSING"), "--env MISSING: the variable is not set here"),
    ],
)
def test_what_contradicts_or_is_not_there(
    refused: Callable[..., str], argv: tuple[str, ...], message: str
) -> None:
    assert message in refused("rl", *LAUNCH, *argv, "--dry-run")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--time", "soon"), "--time: SLURM cannot read 'soon' as a time"),
        (("--mem", "64GB"), "--mem: '64GB' is not a memory size"),
        (("--cpus-per-gpu", "0"), "--cpus-per-gpu: input should be greater than or equal to 1 (got '0')"),
        (("--gpu-flag", "gpu"), "--gpu-flag: input should be 'gres', 'gpus-per-node' or 'gpus' (got 'gpu')"),
        (("--job-name", "a\nb"), "--job-name: a value cannot contain a line break"),
        (("--comment", "a\0b"), "--comment: a value cannot contain a NUL"),
        (("--partition", "a\rb"), "--partition: a value cannot contain a line break"),
        (("--output-dir", "a\nb"), "--output-dir cannot hold a line break"),
        (("--mem", "1G", "--mem-per-gpu", "1G"), "--mem 1G and --mem-per-gpu 1G contradict each other"),
        (("--nodelist", "a", "--exclude", "a"), "--nodelist and --exclude contradict each other"),
        (("--sbatch-arg", "gres=gpu:8"), "--sbatch-arg gres: the plugin sets this itself; use --gpus"),
        (("--env", "HF_TOKEN=sesame"), "pass it by name: --env HF_TOKEN"),
        (("--job-name", "x" * 1025), "--job-name is longer than the 1024 bytes that SLURM takes"),
        (
            ("--comment", "x" * 1010),
            "--comment is longer than the 1024 bytes that SLURM takes, of which this plugin",
        ),
        (("--resume", "--clean"), "--resume and --clean contradict each other"),
        (("--partition",), "--partition needs a value"),
        (("--exclusive=user",), "--exclusive takes no value"),
        (("--output-dir", "x" * 300), "File name too long"),
    ],
)
def test_a_value_that_cannot_be_used(
    refused: Callable[..., str], argv: tuple[str, ...], message: str
) -> None:
    said = refused("rl", *LAUNCH, "--dry-run", *argv, hint="too long" in message or "longer than" in message)

    assert message in said
    assert "sesame" not in said


def test_resume_and_clean_contradict_each_other_wherever_they_stand(
    refused: Callable[..., str], work: Path
) -> None:
    (work / "rl.toml").write_text(f"clean = true{RL}")

    assert "clean and resume contradict each other" in refused("rl", *LAUNCH, "--resume", "--dry-run")


def test_no_output_directory_and_no_name(refused: Callable[..., str]) -> None:
    said = refused("rl", "--backend", "slurm", "@", "rl.toml", "--dry-run")

    assert "where should the run go?" in said


@pytest.mark.parametrize("program", ["rl", "medarc_slurm"])
def test_an_output_directory_that_cannot_be_made(refused: Callable[..., str], program: str) -> None:
    head = ("rl", "rl.toml") if program == "medarc_slurm" else ("--backend", "slurm", "@", "rl.toml")

    assert "rl.toml is not a folder" in refused(program, *head, "--output-dir", "rl.toml/run", "--dry-run")


def test_an_output_directory_without_permission(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)

    assert "no permission in" in refused("rl", *LAUNCH, "--dry-run")


def test_no_backend_and_no_prime_rl(refused: Callable[..., str]) -> None:
    said = refused("rl", "@", "rl.toml", "--dry-run")

    assert "prime-rl was not found" in said
    assert "in it, and set PRIME_RL_DIR to it\n" in said
    # It would go to prime-rl, which knows no such field.
    assert "--prime-rl-dir" not in said


def test_a_real_submission_without_prime_rl(refused: Callable[..., str]) -> None:
    said = refused("rl", *LAUNCH)

    assert "prime-rl was not found: looked at --prime-rl-dir, PRIME_RL_DIR, ./prime-rl" in said
    assert "git submodule update --init" in said
    assert "name it with --prime-rl-dir or PRIME_RL_DIR" in said


@pytest.mark.parametrize("dry", [("--dry-run",), ()])
def test_an_unknown_key_is_answered_in_prime_rls_own_words(
    refused: Callable[..., str], checkout: Path, dry: tuple[str, ...]
) -> None:
    said = refused("rl", *LAUNCH, "--prime-rl-dir", str(checkout), "--trainer.optim.learning-rate", "1", *dry)

    assert "learning-rate" in said
    assert "Extra inputs are not permitted" in said
    assert "hint: these are prime-rl's own words\n" in said


def test_a_key_of_another_release_is_named_with_its_release(
    refused: Callable[..., str], checkout: Path
) -> None:
    said = refused(
        "rl",
        *LAUNCH,
        "--prime-rl-dir",
        str(checkout),
        "--orchestrator.max-inflight-episodes",
        "128",
        "--dry-run",
    )

    assert (
        "hint: these are prime-rl's own words; orchestrator.max_inflight_episodes is a key of prime-rl "
        "v0.8.0, and this one is like main: this project's examples/reverse_text/rl.toml shows how it spells "
        "things\n"
    ) in said


@pytest.fixture
def own_checkout(tmp_path: Path) -> Path:
    return make_checkout(tmp_path / "prime-rl")


def test_an_interpreter_that_does_not_start(refused: Callable[..., str], own_checkout: Path) -> None:
    python = own_checkout / ".venv" / "bin" / "python"
    python.unlink()
    python.write_text("#!/bin/sh\necho 'libpython3.12.so: cannot open' >&2\nexit 127\n")
    python.chmod(0o755)

    said = refused("rl", *LAUNCH, "--prime-rl-dir", str(own_checkout), "--dry-run")

    assert "libpython3.12.so: cannot open" in said
    assert "`uv sync --all-extras --all-packages --inexact` in prime-rl's checkout repairs" in said


def test_an_interpreter_without_prime_rls_packages(refused: Callable[..., str], own_checkout: Path) -> None:
    shutil.rmtree(own_checkout / ".venv" / "lib")

    said = refused("rl", *LAUNCH, "--prime-rl-dir", str(own_checkout), "--dry-run")

    assert "cannot be imported" in said
    assert "\nModuleNotFoundError: No module named 'prime_rl'\nhint: " in said
    assert "its environment lacks 'prime_rl'" in said


def test_a_prime_rl_of_an_unknown_shape(refused: Callable[..., str], own_checkout: Path) -> None:
    configs = own_checkout / "src" / "prime_rl"
    configs.unlink()
    (configs / "configs").mkdir(parents=True)
    (configs / "configs" / "rl.py").write_text(
        "from pydantic import BaseModel\n"
        "class Run(BaseModel):\n    nickname: str\n"
        "class RLConfig(BaseModel):\n    output_dir: str\n    run: Run | None\n"
    )

    said = refused("rl", *LAUNCH, "--prime-rl-dir", str(own_checkout), "--dry-run")

    assert "has a config schema that this plugin does not know\n" in said
    assert "  to be main it lacks run.name, run.dir, clean," in said
    assert "  to be v0.8.0 it lacks clean_output_dir, dry_run," in said
    # Each table once, by its own name, however many fields are missing there or below.
    assert [line for line in said.splitlines() if line.startswith("  it has")] == [
        "  it has in [run]: nickname",
        "  it has at the top: output_dir, run",
    ]
    assert "--no-check goes on with an unchecked config" in said


def test_a_prime_rl_of_an_unknown_shape_can_be_used_unchecked(
    here: Callable[..., Any], work: Path, own_checkout: Path
) -> None:
    source = own_checkout / "src" / "prime_rl"
    configs = source.resolve()
    source.unlink()
    shutil.copytree(configs, source)
    schema = source / "configs" / "rl.py"
    schema.write_text(schema.read_text().replace("clean: bool", "cleared: bool"))

    refusal = here("rl", *LAUNCH, "--prime-rl-dir", str(own_checkout), "--dry-run")
    done = here("rl", *LAUNCH, "--prime-rl-dir", str(own_checkout), "--dry-run", "--no-check")

    assert "  to be main it lacks clean\n" in refusal.err
    assert "--no-check goes on with an unchecked config, as for main" in refusal.err
    assert done.code == 0, done.err
    assert "unchecked: the schema of this prime-rl is not known, and taken for that of main" in done.err
    assert "not found" not in done.err
    launch = json.loads((work / "run/configs/launch/launch.json").read_text())
    assert (launch["checked"], launch["fields"]["shape"]) == (False, "main")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("#!/bin/bash\n{{ partitoin }}\n", "'partitoin' is undefined"),
        ("#!/bin/bash\n{% if %}\n", "template mine.j2, line 2"),
        ("#!/bin/bash\ncd\n#SBATCH --mem=1\n", "stands after the first command"),
        ("echo\n", "a batch script starts with #!"),
    ],
)
def test_a_template_that_makes_no_good_script(
    refused: Callable[..., str], work: Path, text: str, message: str
) -> None:
    (work / "mine.j2").write_text(text, newline="")

    said = refused(
        "rl", *LAUNCH, "--template-path", "mine.j2", "--dry-run", hint=message.startswith(("'", "stands"))
    )

    assert message in said


def test_shell_lines_with_dos_line_ends(refused: Callable[..., str]) -> None:
    assert "DOS line ends" in refused("rl", *LAUNCH, "--setup", "a\r\nb", "--dry-run", hint=False)


def test_inference_has_no_trainer(refused: Callable[..., str]) -> None:
    argv = ("--backend", "slurm", "--vllm.model", "m", "--output-dir", "run", "--dry-run")

    assert "--train-gpus does not apply" in refused("inference", *argv, "--train-gpus", "1", hint=False)
    assert "drop --single-gpu" in refused("inference", *argv, "--single-gpu", hint=False)
    assert "3 cannot be split into engines" in refused(
        "inference", *argv, "--gpus", "3", "--vllm.tensor-parallel-size", "2"
    )


def test_a_process_ends_with_2_and_no_traceback(cli: Callable[..., object], work: Path) -> None:
    result = cli("rl", *LAUNCH, "--time", "soon")

    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: --time: SLURM cannot read 'soon' as a time")
    assert not (work / "run").exists()


# The four cases that leave the files.


@pytest.fixture
def kept(here: Callable[..., object], slurm: Slurm, work: Path, checkout: Path) -> Callable[..., str]:
    """Submit what SLURM will refuse; the files must stay, and the message must say so."""

    def run(*argv: str) -> str:
        result = here("rl", *LAUNCH, "--prime-rl-dir", str(checkout), *argv)

        assert (result.code, result.out) == (2, "")
        assert "Traceback" not in result.err
        assert f"the files of the run are kept: {work / 'run' / 'rl.sbatch'}" in result.err
        assert "\nhint: " in result.err
        assert (work / "run" / "rl.sbatch").is_file()
        assert not (work / "run" / "configs" / "launch" / "submission.json").exists()
        return result.err

    return run


def test_sbatch_is_missing(kept: Callable[..., str], slurm: Slurm) -> None:
    slurm.remove()

    assert "sbatch was not found on this machine" in kept()


def test_the_controller_does_not_answer(kept: Callable[..., str], slurm: Slurm) -> None:
    slurm.set(up=False)

    assert "Unable to contact slurm controller" in kept()


def test_an_unknown_partition(kept: Callable[..., str]) -> None:
    said = kept("--partition", "gqu", "--no-preflight")

    assert "invalid partition specified: gqu" in said
    assert "the partitions here are: gpu, debug" in said


def test_refused_resources_and_a_second_try(
    kept: Callable[..., str], here: Callable[..., object], slurm: Slurm, checkout: Path
) -> None:
    slurm.answer("sbatch", stderr="sbatch: error: Requested node configuration is not available", code=1)
    assert "no node has this much" in kept("--gpu-type", "h900", "--no-preflight")

    slurm.set(answers={})
    again = here("rl", *LAUNCH, "--prime-rl-dir", str(checkout))

    assert again.code == 0


def test_a_folder_that_cannot_be_entered_is_an_error(refused: Callable[..., str], work: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may enter everywhere")
    (work / "closed").mkdir(mode=0)

    assert "closed" in refused("rl", *LAUNCH[:-1], "closed/run", "--dry-run")
