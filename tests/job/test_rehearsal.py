"""A rehearsal: what it checks beyond a launch's own checks, how it ends, and that it leaves no trace."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from standin import install_gpu_packages, make_checkout

import medarc_plugin.job
from medarc_plugin.host import fields
from medarc_plugin.job.needs import values
from medarc_plugin.job.rehearsal import _patience, read_answer

JOB_CODE = Path(medarc_plugin.job.__file__).parent


def set_wandb(run: Any) -> None:
    run.set_config(monitors={"wandb": {"project": "p", "offline": False}})


@pytest.fixture
def own_checkout(tmp_path: Path, rehearsal: Any) -> Any:
    """Give the rehearsed run a prime-rl of its own, with other packages."""

    def make(**texts: str) -> Path:
        made = make_checkout(tmp_path / "own")
        install_gpu_packages(made, **texts)
        rehearsal.document["python"] = str(made / ".venv" / "bin" / "python")
        return made

    return make


# A rehearsal of what would start


def test_every_check_passes_and_nothing_is_started(rehearsal: Any) -> None:
    finished = rehearsal.attempt()

    assert finished.code == 0, finished.log
    assert "rehearsal: every check passed" in finished.log
    assert not Path(rehearsal.variables["STANDIN_REPORT"]).exists()
    assert rehearsal.attempts()[0]["reason"] == "rehearsed"


def test_a_line_a_check(rehearsal: Any) -> None:
    log = rehearsal.attempt().log

    path = rehearsal.run_dir / "configs/attempts/1/rl.json"
    h200 = "NVIDIA H200 (compute capability 9.0)"
    assert f"[ ok ] config by prime-rl: RLConfig takes @ {path}" in log
    assert f"[ ok ] GPUs in torch: torch 2.11.0 sees 2 of 2 wanted and computes on them: {h200}" in log
    assert "[ ok ] vLLM: vllm 0.26.0" in log
    assert "[ ok ] imports: reverse_text from " in log
    assert "[skip] W&B: the config does not use it" in log
    assert "[skip] model and data: the config names none" in log


def test_the_attention_that_auto_means_on_this_gpu_is_looked_for(rehearsal: Any) -> None:
    rehearsal.set_config(trainer={"model": {"attn": "auto"}})

    (line,) = rehearsal.attempt().lines("] attention")

    assert line == (
        "[ ok ] attention: flash_attention_3 (auto) on compute capability 9.0: flash_attn_interface 3.0.0"
    )


def test_nothing_of_it_is_in_the_way_of_the_run(rehearsal: Any, report: Any) -> None:
    rehearsal.document["token"] = "first"
    assert rehearsal.attempt().code == 0
    outside, left = rehearsal.outside_configs(), {path.name for path in rehearsal.folder.iterdir()}
    rehearsal.document |= {"rehearse": False, "token": "second"}

    finished = rehearsal.attempt()

    assert (outside, left & {"state.json", "lease.json"}) == (set(), set())
    assert finished.code == 0, finished.log
    assert [attempt["reason"] for attempt in rehearsal.attempts()] == ["rehearsed", "finished"]
    assert rehearsal.attempts()[1]["resumed_from"] is None
    assert json.loads(Path(report()["argv"][1]).read_text())["resume"] is None


def test_its_caches_are_gone_with_it(rehearsal: Any) -> None:
    log = rehearsal.attempt().log

    (line,) = [line for line in log.splitlines() if "caches:" in line]
    assert not Path(line.split()[5]).exists()


def test_a_launch_asks_for_none_of_it(rehearsal: Any) -> None:
    rehearsal.document["rehearse"] = False

    log = rehearsal.attempt().log

    assert "GPUs in torch" not in log
    assert "config by prime-rl" not in log


def test_a_launch_loads_none_of_its_code(rehearsal: Any) -> None:
    rehearsal.document["rehearse"] = False
    rehearsal.write()
    command = [sys.executable, "-X", "importtime", rehearsal.folder / "job", rehearsal.folder / "launch.json"]

    done = subprocess.run(
        command, env=rehearsal.variables, capture_output=True, text=True, timeout=60, check=True
    )

    assert "job.checks" in done.stderr
    assert [
        line for line in done.stderr.splitlines() if line.endswith((".rehearsal", ".probe", ".hub"))
    ] == []


# A rehearsal of what would not


def test_all_that_is_wrong_is_said_at_once(run: Any) -> None:
    run.document["rehearse"] = True
    run.variables["HF_HUB_OFFLINE"] = "1"
    run.set_gpus(code=9)

    finished = run.attempt()

    (end,) = finished.lines("the real run would not start")
    assert finished.code == 3
    assert "NVIDIA driver" in end
    assert "GPUs in torch" in end
    assert "vLLM" in end
    assert run.attempts()[0]["reason"] == "checks-failed"
    assert run.outside_configs() == set()
    assert not (run.folder / "state.json").exists()


def test_without_prime_rl_its_interpreter_is_not_asked(rehearsal: Any) -> None:
    rehearsal.document["python"] = None

    finished = rehearsal.attempt()

    assert finished.code == 3
    assert "the real run would not start; missing: prime-rl" in finished.log
    assert "[skip] in prime-rl: not asked, without its interpreter: " in finished.log


def test_a_missing_torch_is_named_with_the_interpreter(run: Any) -> None:
    run.document["rehearse"] = True

    finished = run.attempt()

    python = run.document["python"]
    assert finished.code == 3
    assert (
        f"[FAIL] GPUs in torch: {python} cannot import torch: ModuleNotFoundError: No module named 'torch'"
        in finished.log
    )


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (("len(list(", "0 * len(list("), "sees 0 of 2 GPU(s), and is built for CUDA 13.0"),
        (('cuda="13.0"', "cuda=None"), None),
        (("return 1.0", 'raise RuntimeError("no kernel image")'), "cannot compute on NVIDIA H200"),
    ],
)
def test_gpus_that_torch_cannot_use(
    rehearsal: Any, own_checkout: Any, change: tuple[str, str], text: str | None
) -> None:
    from standin.checkout import TORCH

    own_checkout(torch=TORCH.replace(*change))

    finished = rehearsal.attempt()

    assert finished.code == (0 if text is None else 3), finished.log
    assert text is None or text in finished.log


def test_gpus_that_are_made_up_need_no_cuda(rehearsal: Any, own_checkout: Any) -> None:
    own_checkout(torch='__version__ = "2.11.0"\n')

    finished = rehearsal.attempt(MEDARC_STANDIN_GPUS="1")

    assert finished.code == 0, finished.log
    assert "[skip] GPUs in torch: torch 2.11.0: the GPUs are made up" in finished.log


@pytest.mark.parametrize(
    ("wish", "text"),
    [
        ("flash_attention_2", "flash_attn cannot be imported: ModuleNotFoundError"),
        ("flash_attention_4", "flash_attn.cute cannot be imported"),
    ],
)
def test_attention_that_is_not_installed(rehearsal: Any, wish: str, text: str) -> None:
    rehearsal.set_config(trainer={"model": {"attn": wish}})

    finished = rehearsal.attempt()

    assert finished.code == 3
    assert f"[FAIL] attention: {wish} on compute capability 9.0: {text}" in finished.log


def test_attention_that_the_gpu_has_no_kernels_for(rehearsal: Any, own_checkout: Any) -> None:
    from standin.checkout import TORCH

    own_checkout(torch=TORCH.replace("(9, 0)", "(8, 0)"))
    rehearsal.set_config(trainer={"model": {"attn": "flash_attention_3"}})

    finished = rehearsal.attempt()

    assert finished.code == 3
    assert "flash_attention_3 on compute capability 8.0: this GPU has no such kernels" in finished.log
    assert "set attn = 'flash_attention_2'" in finished.log


def test_a_config_that_the_prime_rl_of_the_job_refuses(rehearsal: Any) -> None:
    rehearsal.set_config(max_steps="many")

    finished = rehearsal.attempt()

    assert finished.code == 3
    assert "[FAIL] config by prime-rl: RLConfig refuses it" in finished.log
    assert "--max-steps" in finished.log


def test_an_environment_that_cannot_be_imported_is_more_than_found(rehearsal: Any, own_checkout: Any) -> None:
    own_checkout(broken="import something_else\n")
    rehearsal.document["environments"] = ["broken"]

    finished = rehearsal.attempt()

    assert finished.code == 3
    assert "[ ok ] environments: broken" in finished.log
    assert "broken cannot be imported: ModuleNotFoundError: No module named 'something_else'" in finished.log
    assert "for something_else" in finished.log


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("import os\nprint('goodbye')\nos._exit(9)\n", "ended with exit code 9 here"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n", "ended with exit code -11 here"),
        ("import time\ntime.sleep(600)\n", "gave up after 3 s here"),
    ],
    ids=["exit", "crash", "hang"],
)
def test_an_import_that_takes_the_interpreter_with_it(
    rehearsal: Any, own_checkout: Any, text: str, how: str
) -> None:
    own_checkout(broken=text)
    rehearsal.document["environments"] = ["broken"]

    finished = rehearsal.attempt(MEDARC_REHEARSAL_SECONDS="3")

    assert finished.code == 3
    assert "[ ok ] GPUs in torch" in finished.log
    assert f"[FAIL] imports: prime-rl's interpreter {how}" in finished.log
    assert "[skip] vLLM: not reached: imports ended the interpreter" in finished.log


def test_a_server_whose_port_is_taken(rehearsal: Any) -> None:
    rehearsal.document |= {"entrypoint": "inference", "environments": []}
    rehearsal.document["fields"] = fields.for_job("inference", fields.MAIN)
    with socket.create_server(("", 0)) as stranger:
        port = stranger.getsockname()[1]
        rehearsal.set_config(server={"port": port})
        finished = rehearsal.attempt()

    assert finished.code == 3
    assert f"[FAIL] ports: {port}, the server's, is taken on this node" in finished.log


def test_no_place_for_caches(rehearsal: Any) -> None:
    finished = rehearsal.attempt(TMPDIR="/proc", SLURM_TMPDIR="/proc")

    assert ("[FAIL] caches: " in finished.log) == (finished.code == 3)
    assert "caches: " in finished.log


def test_a_rehearsal_that_is_ended_does_not_come_again(rehearsal: Any, own_checkout: Any, until: Any) -> None:
    begun = rehearsal.run_dir.parent / "begun"
    own_checkout(broken=f"open({str(begun)!r}, 'w').close()\nimport time\ntime.sleep(600)\n")
    rehearsal.document["environments"] = ["broken"]
    rehearsal.set_slurm("JobState=RUNNING Reason=TimeLimit Requeue=1 Restarts=0 EndTime=Unknown")
    began = time.monotonic()
    process = rehearsal.start()
    until(begun.exists)
    process.terminate()

    finished = rehearsal.finish(process)

    assert finished.code == 128 + 15
    assert time.monotonic() - began < 600
    assert "the rehearsal was cut short" in finished.log
    assert not rehearsal.requeued


# What is shared


def test_the_mark_of_the_submitting_host_is_looked_for(rehearsal: Any, tmp_path: Path) -> None:
    home = tmp_path / "hub"
    home.mkdir()
    mark = home / ".medarc-login1"
    rehearsal.document["mark"] = {"host": "login1", "file": str(mark)}

    without = rehearsal.attempt(HF_HOME=str(home))
    mark.touch()
    there = rehearsal.attempt(HF_HOME=str(home))

    assert (without.code, there.code) == (0, 0)
    assert f"[warn] hub cache: {home} is not the folder that login1 has as {home}" in without.log
    assert f"[ ok ] hub cache: {home} can be written, and is shared with login1" in there.log


def test_without_a_mark_nothing_is_said_about_sharing(rehearsal: Any, tmp_path: Path) -> None:
    (line,) = rehearsal.attempt(HF_HOME=str(tmp_path / "fresh")).lines("hub cache")

    assert line.startswith("[ ok ] hub cache: ")
    assert "left no mark" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_hub_cache_that_cannot_be_written_is_a_warning(rehearsal: Any, tmp_path: Path) -> None:
    home = tmp_path / "hub"
    home.mkdir(mode=0o500)

    finished = rehearsal.attempt(HF_HOME=str(home))

    assert finished.code == 0
    assert f"[warn] hub cache: {home} cannot be written" in finished.log


# Weights & Biases


def test_wandb_without_a_package_is_missing(rehearsal: Any) -> None:
    set_wandb(rehearsal)

    finished = rehearsal.attempt()

    assert finished.code == 3
    assert "[FAIL] W&B: " in finished.log
    assert "finds no wandb" in finished.log


def test_wandb_without_a_key_is_told_how_to_get_one(rehearsal: Any, own_checkout: Any) -> None:
    own_checkout(wandb="")
    set_wandb(rehearsal)

    finished = rehearsal.attempt()

    assert finished.code == 3
    assert "[FAIL] W&B: there is no key for api.wandb.ai" in finished.log
    assert "--auto-auth" in finished.log


@pytest.mark.parametrize("login", ["variable", "netrc"])
def test_wandb_with_a_key_is_asked_whether_it_answers(
    rehearsal: Any, own_checkout: Any, tmp_path: Path, login: str
) -> None:
    own_checkout(wandb="")
    set_wandb(rehearsal)
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password k3y-0123456789\n")
    netrc.chmod(0o600)
    key = {"NETRC": str(netrc)} if login == "netrc" else {"WANDB_API_KEY": "k3y-0123456789"}
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        answering = threading.Thread(target=answer_once, args=(server,))
        answering.start()
        there = rehearsal.attempt(WANDB_BASE_URL=address, **key)
        answering.join()
    gone = rehearsal.attempt(WANDB_BASE_URL=address, **key)

    assert there.code == 0, there.log
    assert "[ ok ] W&B: 127.0.0.1 answers, and there is a key for it" in there.log
    assert gone.code == 3
    assert "[FAIL] W&B: 127.0.0.1 cannot be reached" in gone.log
    assert "k3y-0123456789" not in there.log + gone.log


def answer_once(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({"WANDB_MODE": "offline"}, "WANDB_MODE=offline"),
        ({"WANDB_DISABLED": "true"}, "WANDB_DISABLED is set"),
    ],
)
def test_wandb_that_is_not_to_be_used_is_not_asked(
    rehearsal: Any, variables: dict[str, str], why: str
) -> None:
    set_wandb(rehearsal)

    finished = rehearsal.attempt(**variables)

    assert finished.code == 0, finished.log
    assert f"[skip] W&B: {why}" in finished.log


# Models and data


def test_models_and_data_sets_that_the_config_names(rehearsal: Any, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "model.safetensors"):
        (model / name).write_text("{}")
    source = {"env": {"taskset": {"id": "reverse-text", "dataset_name": "org/texts"}}}
    rehearsal.set_config(
        trainer={"model": {"name": str(model)}, "tokenizer": {"name": "org/tokenizer"}},
        orchestrator={"train": {"source": [source]}},
    )

    finished = rehearsal.attempt(HF_HOME=str(tmp_path / "hub"))

    assert finished.code == 3
    assert f"[ ok ] model and data: model {model}: a folder" in finished.log
    assert "[FAIL] model and data: tokenizer org/tokenizer: the cache" in finished.log
    # The environment may bring it along under a name of its own.
    assert "[warn] model and data: data set org/texts: the cache" in finished.log


# Its parts


def test_an_answer_is_waited_for_no_longer_than_the_allocation_lasts() -> None:
    now = int(time.time())

    assert _patience({}) == 200
    assert _patience({"MEDARC_REHEARSAL_SECONDS": "7", "SLURM_JOB_END_TIME": str(now + 3600)}) == 7
    assert _patience({"SLURM_JOB_END_TIME": str(now + 100)}) <= 85
    assert _patience({"MEDARC_REHEARSAL_SECONDS": "long", "SLURM_JOB_END_TIME": str(now - 9)}) == 15


def line(mark: str, **said: Any) -> str:
    return f"{mark} {json.dumps(said)}\n"


def test_what_libraries_print_is_told_from_an_answer() -> None:
    output = (
        line("m1", kind="begin", part="a")
        + "noise\nm2 {}\n"
        + line("m1", kind="found", part="a", findings=[["ok", "fine"], ["warn", "not so fine", "do it"]])
    )

    checks = list(read_answer(["a"], "m1", output, "ended"))

    assert [(check.name, check.status, check.text, check.hint) for check in checks] == [
        ("a", "ok", "fine", ""),
        ("a", "warn", "not so fine", "do it"),
    ]


def test_an_interpreter_that_says_nothing_at_all() -> None:
    checks = list(read_answer(["a", "b"], "m1", "Segmentation fault\n", "ended with exit code 1"))

    assert [(check.status, check.name) for check in checks] == [("FAIL", "a"), ("FAIL", "b")]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a.b", [1]),
        ("a.none", []),
        ("list[*].name", ["x", "y"]),
        ("list[*].other.deep", []),
        ("a.b.c", []),
    ],
)
def test_values_of_a_config_by_path(path: str, found: list[Any]) -> None:
    document = {"a": {"b": 1, "none": "None"}, "list": [{"name": "x"}, {"name": "y", "other": None}]}

    assert values(document, path) == found


# With real packages


def test_a_real_torch_without_a_gpu_sees_none() -> None:
    python = os.environ.get("MEDARC_TORCH_PYTHON")
    if python is None:
        pytest.skip("MEDARC_TORCH_PYTHON is not set: there is no torch to ask")
    question = {"mark": "m1", "parts": ["GPUs in torch", "attention"], "gpus": 1, "attention": "auto"}
    command = [python, str(JOB_CODE), "probe", json.dumps(question)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}

    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)

    torch, attention = read_answer(question["parts"], "m1", done.stdout, "ended")
    assert (torch.status, attention.status) == ("FAIL", "skip")
    assert "sees 0 of 1 GPU(s)" in torch.text
