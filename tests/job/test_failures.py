"""Naming the component that failed, from logs as the real programs write them."""

# ruff: noqa: E501, ISC004, W291 - logs stand here as they are printed

from pathlib import Path

import pytest

from medarc_plugin.job.failures import Failure, describe, read_line
from medarc_plugin.job.formats import LAUNCHER

TORCHRUN = """\
W0821 10:11:10.784000 26863 torch/distributed/elastic/multiprocessing/api.py:1012] Sending process 26865 closing signal SIGTERM
E0821 10:11:10.885000 26863 torch/distributed/elastic/multiprocessing/api.py:986] failed (exitcode: {code}) local_rank: {rank} (pid: 26866) of binary: /opt/prime-rl/.venv/bin/python3
Traceback (most recent call last):
  File "/opt/prime-rl/.venv/bin/torchrun", line 10, in <module>
    sys.exit(main())
             ^^^^^^
  File "/opt/prime-rl/.venv/lib/python3.12/site-packages/torch/distributed/launcher/api.py", line 317, in launch_agent
    raise ChildFailedError(
torch.distributed.elastic.multiprocessing.errors.ChildFailedError: 
============================================================
prime_rl.trainer.rl.train FAILED
------------------------------------------------------------
Failures:
[1]:
  time      : 2026-08-21_10:11:10
  host      : node1
  rank      : 0 (local_rank: 0)
  exitcode  : -15 (pid: 26865)
  error_file: <N/A>
  traceback : Signal 15 (SIGTERM) received by PID 26865
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-08-21_10:11:10
  host      : node1
  rank      : {rank} (local_rank: {rank})
  exitcode  : {code} (pid: 26866)
  error_file: <N/A>
  traceback : {message}
============================================================
"""

TO_ENABLE = "To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html"

STEP = (
    "\x1b[2m10:11:08\x1b[0m \x1b[32m\x1b[1mSUCCESS\x1b[0m \x1b[32m\x1b[1m\x1b[22mStep 7 |    8.3s | Loss 0.1234 | "
    "Entropy 0.5012 | LR 1.00e-06 | Throughput 12345 tokens/s | MFU 1.2% | Peak Mem. 22.1 GiB\x1b[0m\x1b[0m\n"
)

OUT_OF_MEMORY = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity "
    "of 139.81 GiB of which 1.19 GiB is free."
)

RANK_TRACEBACK = f"""\
[rank1]: Traceback (most recent call last):
[rank1]:   File "<frozen runpy>", line 198, in _run_module_as_main
[rank1]:   File "/opt/prime-rl/src/prime_rl/trainer/rl/train.py", line 749, in main
[rank1]:     train(cli(TrainerConfig))
[rank1]:   File "/opt/prime-rl/src/prime_rl/trainer/model.py", line 1520, in forward
[rank1]:     return model(input_ids)
[rank1]:            ^^^^^^^^^^^^^^^^
[rank1]: {OUT_OF_MEMORY}
"""

ORCHESTRATOR = """\
\x1b[2m19:04:32\x1b[0m \x1b[32m\x1b[1mSUCCESS\x1b[0m \x1b[32m\x1b[1m\x1b[22mStep 1 |    9.2s | Reward 0.1070\x1b[0m\x1b[0m
\x1b[2m19:04:33\x1b[0m \x1b[31m\x1b[1m  ERROR\x1b[0m \x1b[31m\x1b[1m\x1b[22mFatal error in run_orchestrator\x1b[0m\x1b[0m
\x1b[33m\x1b[1mTraceback (most recent call last):\x1b[0m

> File "/opt/prime-rl/src/prime_rl/utils/utils.py", line 58, in async_wrapper
    ret = await func(*args, **kwargs)
                \x1b[36m│\x1b[0m     └ (OrchestratorConfig(...),)

  File "/opt/prime-rl/src/prime_rl/orchestrator/orchestrator.py", line 649, in finalize_train_batch

\x1b[31m\x1b[1mRuntimeError\x1b[0m:\x1b[1m 5 consecutive empty train batches — check algorithm credit and task difficulty.\x1b[0m
"""

VLLM = """\
(EngineCore_DP0 pid=4243) ERROR 08-21 10:00:00 [core.py:930] EngineCore failed to start.
(EngineCore_DP0 pid=4243) ERROR 08-21 10:00:00 [core.py:930] Traceback (most recent call last):
(EngineCore_DP0 pid=4243) ERROR 08-21 10:00:00 [core.py:930]   File "/opt/vllm/v1/engine/core.py", line 921, in run_engine_core
(EngineCore_DP0 pid=4243) ERROR 08-21 10:00:00 [core.py:930]     engine_core = EngineCoreProc(*args, **kwargs)
(EngineCore_DP0 pid=4243) ERROR 08-21 10:00:00 [core.py:930] ValueError: Free memory on device cuda:0 (12.1/139.81 GiB) on startup is less than desired GPU memory utilization (0.9, 125.83 GiB).
(APIServer pid=4200) Traceback (most recent call last):
(APIServer pid=4200)   File "/opt/prime-rl/.venv/bin/inference", line 10, in <module>
(APIServer pid=4200)     sys.exit(main())
(APIServer pid=4200) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """The newest launch's logs, behind the link that prime-rl makes."""
    folder = tmp_path / "logs" / "attempt_2"
    folder.mkdir(parents=True)
    (tmp_path / "logs" / "latest").symlink_to("attempt_2")
    return folder


def rank_log(logs: Path, rank: int, name: str, text: str) -> Path:
    path = logs / "trainer" / "torchrun" / "0c1f_6vs65gm2" / "attempt_0" / str(rank) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# The launcher's word


@pytest.mark.parametrize(
    ("line", "failed"),
    [
        ("10:11:12   ERROR Error: Trainer failed with exit code 1", ("trainer", 1)),
        (
            "\x1b[2m10:11:12\x1b[0m \x1b[31m\x1b[1m  ERROR\x1b[0m \x1b[31m\x1b[1m\x1b[22mOrchestrator failed "
            "with exit code -9\x1b[0m\x1b[0m\n",
            ("orchestrator", -9),
        ),
        (
            "10:11:12   ERROR Error: Train env server reverse-text failed with exit code 1",
            ("train env server reverse-text", 1),
        ),
        ("10:11:12   ERROR Error: Env/eval/a b failed with exit code 2", ("eval env server a b", 2)),
        ("10:11:12   ERROR Error: Inference failed with exit code 1 [rl.py::382]", ("inference", 1)),
        (
            '{"timestamp": "2026-08-21T10:11:12+00:00", "level": "ERROR", "message": '
            '"Error: Evals failed with exit code 1", "module": "sft", "function": "sft_local", "line": 1}',
            ("evals", 1),
        ),
        ("10:11:12   ERROR Terminating all processes...", None),
        ("10:11:12   ERROR Program failed with exit code 1", None),
        ("10:11:12 WARNING Rollout 3: Error: Trainer failed with exit code 1 was its answer", None),
        ("", None),
    ],
)
def test_the_launcher_names_the_component(line: str, failed: tuple[str, int] | None) -> None:
    assert read_line(line) == failed


# The last error line


def test_a_trainer_says_its_own_error_and_not_torchruns(tmp_path: Path, logs: Path) -> None:
    path = rank_log(logs, 1, "stderr.log", RANK_TRACEBACK)
    rank_log(logs, 0, "stderr.log", "")
    text = STEP + TORCHRUN.format(code=1, rank=1, message=TO_ENABLE)
    (logs / "trainer.log").write_text(text)

    failure = describe(tmp_path, "trainer", 1)

    assert failure == Failure("trainer", 1, None, OUT_OF_MEMORY, path)


def test_the_trainers_log_has_it_where_torchrun_has_no_files(tmp_path: Path, logs: Path) -> None:
    mixed = "".join(f"[trainer0]:{line}\n" for line in RANK_TRACEBACK.replace("rank1", "rank0").splitlines())
    (logs / "trainer.log").write_text(STEP + mixed + TORCHRUN.format(code=1, rank=0, message=TO_ENABLE))

    failure = describe(tmp_path, "trainer", 1)

    assert (failure.error, failure.log) == (OUT_OF_MEMORY, logs / "trainer.log")


def test_a_killed_process_of_the_trainer_is_named_by_its_signal(tmp_path: Path, logs: Path) -> None:
    path = rank_log(logs, 1, "stdout.log", STEP)
    message = "Signal 9 (SIGKILL) received by PID 26866"
    (logs / "trainer.log").write_text(STEP + TORCHRUN.format(code=-9, rank=1, message=message))

    failure = describe(tmp_path, "trainer", 1)

    assert (failure.code, failure.signal, failure.log) == (None, "SIGKILL", path)
    assert str(failure).startswith(
        "trainer was killed by SIGKILL (the memory of the node or of the job may have run out: see --mem): "
        "last line: Step 7 |    8.3s | Loss 0.1234"
    )
    assert str(failure).endswith(f"; its log: {path}")


def test_loguru_frames_are_no_errors(tmp_path: Path, logs: Path) -> None:
    (logs / "orchestrator.log").write_text(ORCHESTRATOR)

    failure = describe(tmp_path, "orchestrator", 1)

    assert str(failure) == (
        "orchestrator ended with exit code 1: RuntimeError: 5 consecutive empty train batches — check algorithm "
        f"credit and task difficulty; its log: {logs / 'orchestrator.log'}"
    )


def test_vllms_cause_counts_and_not_its_echo(tmp_path: Path, logs: Path) -> None:
    (logs / "inference.log").write_text(VLLM)

    assert describe(tmp_path, "inference", 1).error.startswith("ValueError: Free memory on device cuda:0")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "ERROR:    [Errno 98] error while attempting to bind on address ('0.0.0.0', 8000): address already in "
            "use\nINFO:     Waiting for application shutdown.\n",
            "ERROR:    [Errno 98] error while attempting to bind on address ('0.0.0.0', 8000): address already in use",
        ),
        (
            'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\n    import torch\n'
            "zmq.error.ZMQError: Address already in use (addr='tcp://*:5000')\n",
            "zmq.error.ZMQError: Address already in use (addr='tcp://*:5000')",
        ),
        (
            "Traceback (most recent call last):\n  File \"a.py\", line 1, in f\nKeyError: 'a'\n\nDuring handling "
            "of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n"
            '  File "a.py", line 3, in g\n    raise\nValueError: no environment named a\n',
            "ValueError: no environment named a",
        ),
        (
            '  + Exception Group Traceback (most recent call last):\n  |   File "a.py", line 1, in <module>\n'
            "  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)\n"
            "  +-+---------------- 1 ----------------\n    | Traceback (most recent call last):\n"
            '    |   File "a.py", line 9, in serve\n    | OSError: [Errno 28] No space left on device\n'
            "    +------------------------------------\n",
            "OSError: [Errno 28] No space left on device",
        ),
        (
            '{"timestamp": "t", "level": "ERROR", "message": "Fatal error in run_server", "exception": '
            '"Traceback (most recent call last):\\n  File \\"a.py\\", line 1\\nValueError: bad\\n"}\n',
            "ValueError: bad",
        ),
        (
            "[rank0]:[E821 10:11:12.123 ProcessGroupNCCL.cpp:629] [Rank 0] Watchdog caught collective operation "
            "timeout: WorkNCCL(SeqNum=12) ran for 600000 milliseconds before timing out.\n",
            "[E821 10:11:12.123 ProcessGroupNCCL.cpp:629] [Rank 0] Watchdog caught collective operation timeout: "
            "WorkNCCL(SeqNum=12) ran for 600000 milliseconds before timing out.",
        ),
        (
            "10:11:12 WARNING Inference server was not reached after 10 seconds\n"
            "10:11:22   ERROR Inference server is not ready after 1800 (>1800) seconds. Aborting...\nbye\n",
            "Inference server is not ready after 1800 (>1800) seconds. Aborting...",
        ),
        ("10:11:12    INFO Loading taskset\n10:11:13    INFO Serving\n", "last line: Serving"),
        ("10:11:12 WARNING CUDA out of memory is near\nready\n", "last line: ready"),
    ],
)
def test_the_last_error_line(text: str, error: str, tmp_path: Path, logs: Path) -> None:
    (logs / "orchestrator.log").write_text(text)

    assert describe(tmp_path, "orchestrator", 1).error == error


def test_an_error_from_before_a_kill_is_not_its_cause(tmp_path: Path, logs: Path) -> None:
    (logs / "orchestrator.log").write_text(ORCHESTRATOR + "10:11:12    INFO Resuming dispatcher\n")

    assert describe(tmp_path, "orchestrator", -9).error == "last line: Resuming dispatcher"


def test_a_kill_for_memory_is_said_where_it_was_seen(tmp_path: Path, logs: Path) -> None:
    said = "slurmstepd: error: Detected 1 oom_kill event in StepId=17.batch."
    (logs / "inference.log").write_text(f"{said}\nresource_tracker: process died\n")

    assert describe(tmp_path, "inference", 137).error == f"last line: {said}"


@pytest.mark.parametrize(
    ("code", "signal"),
    [(-9, "SIGKILL"), (137, "SIGKILL"), (-11, "SIGSEGV"), (134, "SIGABRT"), (1, None), (255, None)],
)
def test_codes_that_stand_for_signals(code: int, signal: str | None, tmp_path: Path) -> None:
    failure = describe(tmp_path, "evals", code)

    assert (failure.signal, failure.code) == (signal, None if signal else code)


# Logs of any kind


def test_an_environment_servers_log_is_found_whatever_its_case(tmp_path: Path, logs: Path) -> None:
    path = logs / "envs" / "train" / "Reverse-Text.log"
    path.parent.mkdir(parents=True)
    path.write_text("ModuleNotFoundError: No module named 'reverse_text'\n")

    failure = describe(tmp_path, "train env server reverse-text", 1)

    assert failure.log == path
    assert failure.error == "ModuleNotFoundError: No module named 'reverse_text'"


def test_a_missing_log_is_said(tmp_path: Path) -> None:
    assert str(describe(tmp_path, "trainer", 1)) == "trainer ended with exit code 1; it has no log"
    assert (
        str(describe(tmp_path, "eval env server x", 1))
        == "eval env server x ended with exit code 1; it has no log"
    )
    assert str(describe(tmp_path, "anything", 1)) == "anything ended with exit code 1; it has no log"


def test_an_empty_log_is_said(tmp_path: Path, logs: Path) -> None:
    (logs / "evals.log").write_text("")

    text = str(describe(tmp_path, "evals", 2))

    assert text == f"evals ended with exit code 2, and its log says nothing; its log: {logs / 'evals.log'}"


def test_a_huge_log_with_garbage_is_read_from_its_end(tmp_path: Path, logs: Path) -> None:
    with (logs / "inference.log").open("wb") as file:
        file.write(b"ValueError: long ago\n")
        file.seek(3 * 2**30)
        file.write(
            b"\xff\xfe\x00\n\x80ValueError\x00: \x1b[31mnow\x1b[0m\nRuntimeError: " + b"x" * 2000 + b"\n"
        )

    failure = describe(tmp_path, "inference", 1)

    assert failure.error == "RuntimeError: " + "x" * 383 + "..."


def test_the_log_stays_the_attempts_own(tmp_path: Path, logs: Path) -> None:
    (logs / "evals.log").write_text("ValueError: x\n")

    failure = describe(tmp_path, "evals", 1)

    assert failure.log == logs / "evals.log"
    assert "latest" not in str(failure)


def test_the_launchers_own_end_is_in_the_jobs_log(tmp_path: Path) -> None:
    path = tmp_path / "job_17.log"
    path.write_text(
        "Traceback (most recent call last):\nValueError: of the attempt before\n"
        "medarc | starting /opt/python -m prime_rl.entrypoints.rl\n"
        "Traceback (most recent call last):\n"
        '  File "/opt/prime-rl/src/prime_rl/utils/pathing.py", line 230, in validate_run_dir\n'
        "FileExistsError: Run directory 'runs/a' already contains artifacts from a previous run.\n"
        "medarc | prime-rl ended with exit code 1 after 12.3 s: ValueError: x\n"
    )

    failure = describe(tmp_path, LAUNCHER, 1)

    assert str(failure) == (
        "prime-rl's launcher ended with exit code 1: FileExistsError: Run directory 'runs/a' already contains "
        f"artifacts from a previous run; its log: {path}"
    )
