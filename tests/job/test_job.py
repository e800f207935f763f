"""The job code as it runs: a process in a node's environment, with a stand-in prime-rl."""

import ast
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import medarc_plugin.job
from medarc_plugin.host import fields

ATTEMPT = {
    "attempt": 1,
    "job_id": "17",
    "restart_count": 0,
    "host": socket.gethostname(),
    "gpus": [2, 5],
    "token": "3f2a",
    "ports": [],
    "exit_code": 0,
    "reason": "finished",
    "signals": [],
    "failed": [],
    "hints": [],
    "failure": "",
    "resumed_from": None,
    "checkpoint": 2,
    "steps": 2,
    "step": 2,
    "requeued": False,
    "unexported": "",
}


def without_times(attempt: Any) -> dict[str, Any]:
    times = attempt.pop("started"), attempt.pop("ended")
    assert all(time.endswith("+00:00") for time in times)
    return attempt


# What is started, and with what


def test_prime_rl_is_started_with_the_allocated_gpus(run: Any, report: Any) -> None:
    finished = run.attempt()

    assert finished.code == 0, finished.log
    said = report()
    assert said["argv"] == ["@", str(run.run_dir / "configs" / "attempts" / "1" / "rl.json")]
    assert said["gpus"] == [2, 5]
    assert said["working_directory"] == run.document["working_directory"]
    binaries = run.checkout / ".venv" / "bin"
    assert said["environment"]["PATH"] == f"{binaries}:{run.variables['PATH']}"
    assert said["environment"]["VIRTUAL_ENV"] == str(binaries.parent)
    assert set(said["commands"].values()) == {
        str(binaries / name) for name in ("inference", "env-server", "orchestrator", "torchrun")
    }
    assert finished.log.splitlines()[-1].startswith("medarc | prime-rl ended with exit code 0 after ")
    assert [without_times(attempt) for attempt in run.attempts()] == [ATTEMPT]


def test_every_check_is_shown_as_passed(run: Any) -> None:
    finished = run.attempt()

    python = run.document["python"]
    version = ".".join(map(str, sys.version_info[:3]))
    shown = finished.lines("[ ok ]")
    memory = next(line for line in shown if "memory" in line)
    cpus = next(line for line in shown if "CPUs" in line)
    disks = [line for line in shown if "free disk" in line]
    assert shown == [
        "[ ok ] GPUs: 2 of 2 wanted: 2,5: NVIDIA H200 (143771 MiB)",
        "[ ok ] NVIDIA driver: nvidia-smi lists 8 GPU(s)",
        cpus,
        "[ ok ] OMP_NUM_THREADS: 1 for each of prime-rl's processes",
        memory,
        *disks,
        f"[ ok ] run directory: {run.run_dir}",
        f"[ ok ] working directory: {run.document['working_directory']}",
        f"[ ok ] config: {run.document['arguments'][1]}",
        f"[ ok ] prime-rl: prime_rl.entrypoints.rl by {python} (Python {version})",
        "[ ok ] environments: reverse_text",
    ]
    assert len(disks) == 2
    ours, _, _ = finished.log.partition("medarc | starting")
    assert all(line.startswith("medarc | ") for line in ours.splitlines())


def test_uuids_become_numbers(run: Any, report: Any) -> None:
    finished = run.attempt(CUDA_VISIBLE_DEVICES="GPU-5c1f2b7e,GPU-2c1f2b7e")

    assert finished.code == 0, finished.log
    assert report()["gpus"] == [5, 2]


def test_what_would_mislead_prime_rl_is_dropped(run: Any, report: Any) -> None:
    names = "MEDARC_BACKEND,PYTHONHOME,PYTHONPATH,PYTHONUNBUFFERED"
    # The job's own interpreter would not survive a wrong PYTHONHOME: it is told to ignore it.
    process = subprocess.run(
        [sys.executable, "-E", run.folder / "job", write(run)],
        env={
            **run.variables,
            "MEDARC_BACKEND": "slurm",
            "PYTHONHOME": "/nowhere",
            "PYTHONPATH": "/submitters/modules",
            "VIRTUAL_ENV": "/submitters/environment",
            "STANDIN_REPORT_NAMES": names,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert process.returncode == 0, process.stdout + process.stderr
    environment = report()["environment"]
    assert [environment[name] for name in names.split(",")] == [
        None,
        None,
        "/submitters/modules",
        "1",
    ]
    assert environment["VIRTUAL_ENV"] == str(run.checkout / ".venv")
    assert "medarc | PYTHONPATH=/submitters/modules is passed on" in process.stdout
    assert "medarc | PYTHONHOME is set: not passed on" in process.stdout


def write(run: Any) -> Path:
    run.write()
    return run.folder / "launch.json"


def test_what_was_launched_is_written_down(run: Any, report: Any) -> None:
    run.attempt()

    launched = json.loads((run.run_dir / "configs/attempts/1/launched.json").read_text())
    run_id = (run.folder / "run_id").read_text().strip()
    environment = launched.pop("environment")
    assert launched == {
        "command": [
            *(run.document["python"], "-m", "prime_rl.entrypoints.rl"),
            *("@", str(run.run_dir / "configs/attempts/1/rl.json")),
        ],
        "server_command": None,
        "working_directory": run.document["working_directory"],
        "gpus": [2, 5],
    }
    assert environment["PRL_RUN_ID"] == run_id
    assert environment["TMPDIR"].startswith(environment["TRITON_CACHE_DIR"].partition("/c/")[0])
    # Only what the job changed.
    assert "HOME" not in environment


@pytest.mark.parametrize("name", ["it's a run", 'with "quotes"', "$(touch x) `y`", "-ünï\u20ac", "a\\b"])
def test_paths_of_any_kind(tmp_path: Path, checkout: Path, make_run: Any, name: str) -> None:
    run = make_run(tmp_path / name / name, checkout, tmp_path / "programs")

    finished = run.attempt()

    assert finished.code == 0, finished.log
    assert (run.run_dir / "metrics.jsonl").exists()


def test_a_checkout_of_any_kind(run: Any, tmp_path: Path) -> None:
    from standin import make_checkout

    checkout = make_checkout(tmp_path / 'it\'s "prime" rl')
    run.document["python"] = str(checkout / ".venv/bin/python")

    finished = run.attempt()

    assert finished.code == 0, finished.log
    assert shlex.quote(run.document["python"]) in finished.log


# Restarts


def test_a_restarted_job_resumes_and_keeps_its_run_id(run: Any, report: Any) -> None:
    first = run.attempt(STANDIN_STEPS="1")
    run_id = report()["environment"]["PRL_RUN_ID"]

    second = run.attempt(SLURM_RESTART_COUNT="1")

    assert (first.code, second.code) == (0, 0), second.log
    written = json.loads((run.run_dir / "configs" / "attempts" / "2" / "rl.json").read_text())
    assert written["resume"] == {"step": 1, "dir": None}
    assert report()["environment"]["PRL_RUN_ID"] == run_id
    assert "Resuming from step 1" in second.log
    metrics = (run.run_dir / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in metrics if "loss/mean" in line] == [1, 2]
    assert [(a["attempt"], a["restart_count"], a["resumed_from"]) for a in run.attempts()] == [
        (1, 0, None),
        (2, 1, 1),
    ]


def test_a_script_that_is_submitted_again_goes_on(run: Any) -> None:
    run.attempt(STANDIN_STEPS="1")

    second = run.attempt(SLURM_JOB_ID="18")

    assert second.code == 0, second.log
    assert "Resuming from step 1" in second.log


def test_another_submission_does_not_go_on_unasked(run: Any) -> None:
    run.attempt(STANDIN_STEPS="1")
    run.document["token"] = "77aa"

    second = run.attempt()

    assert second.code == 1
    assert "already contains artifacts" in second.log


def test_a_restart_before_any_checkpoint_starts_again(run: Any) -> None:
    run.attempt(STANDIN_KILL="KILL")

    second = run.attempt(SLURM_RESTART_COUNT="1")

    assert second.code == 0, second.log
    assert "Starting from scratch" in second.log


def test_the_first_attempt_takes_the_checkpoint_that_the_config_names(run: Any) -> None:
    run.attempt(STANDIN_STEPS="1")
    run.document["token"] = "77aa"
    other = run.run_dir / "checkpoints" / "step_1"
    run.set_config(resume={"step": None, "dir": str(other)})

    run.attempt()

    written = json.loads((run.run_dir / "configs" / "attempts" / "2" / "rl.json").read_text())
    assert written["resume"] == {"step": None, "dir": str(other)}


def test_a_later_attempt_prefers_its_own_checkpoint(run: Any) -> None:
    other = run.run_dir.parent / "other" / "step_7"
    other.mkdir(parents=True)
    run.set_config(max_steps=9, resume={"step": None, "dir": str(other)})
    run.attempt(STANDIN_STEPS="8")

    second = run.attempt(SLURM_RESTART_COUNT="1")

    assert "Resuming from step 8" in second.log, second.log


def test_an_inference_server_is_never_resumed(rehearsal: Any) -> None:
    run = rehearsal
    run.document |= {"entrypoint": "inference", "fields": fields.for_job("inference", fields.MAIN)}
    Path(run.document["arguments"][1]).write_text("{}")

    finished = run.attempt(SLURM_RESTART_COUNT="2")

    assert finished.code == 0, finished.log
    assert finished.log.split("-m prime_rl.entrypoints.rl ")[1].split() == [
        shlex.quote(word) for word in run.document["arguments"]
    ]


def test_an_inference_server_whose_port_is_taken_is_started_again(run: Any, until: Any) -> None:
    config = run.run_dir / "configs" / "inference.json"
    log = run.run_dir / "configs" / "attempts" / "1" / "prime_rl.log"
    run.document |= {
        "entrypoint": "inference",
        "module": "prime_rl.entrypoints.inference",
        "arguments": ["@", str(config)],
        "gpus": {"count": 2, "shared": False, "trainer": 0, "inference": 2},
    }
    with socket.socket() as neighbour:
        neighbour.bind(("127.0.0.1", 0))
        neighbour.listen()
        config.write_text(json.dumps({"server": {"port": neighbour.getsockname()[1]}}))
        process = run.start()
        until(lambda: log.exists() and "Address already in use" in log.read_text())
    until(lambda: "serving" in log.read_text())
    process.terminate()
    finished = run.finish(process)

    assert finished.lines("a service found its port taken (prime_rl.log): starting again in 5 s")


# Ends


@pytest.mark.parametrize("code", [1, 7, 139])
def test_the_exit_code_is_passed_on(run: Any, code: int) -> None:
    finished = run.attempt(STANDIN_EXIT_CODE=str(code))

    assert finished.code == code
    assert f"prime-rl ended with exit code {code} after" in finished.log
    assert (run.attempts()[0]["exit_code"], run.attempts()[0]["reason"]) == (code, "failed")


@pytest.mark.parametrize("name", ["KILL", "SEGV"])
def test_a_death_by_signal_is_128_and_its_number(run: Any, name: str) -> None:
    number = getattr(signal, f"SIG{name}")

    finished = run.attempt(STANDIN_KILL=name)

    assert finished.code == 128 + number
    assert f"prime-rl was killed by SIG{name} after" in finished.log
    assert run.attempts()[0]["reason"] == "failed"


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("SIGTERM", ["SIGTERM"]),
        ("SIGUSR2", ["SIGTERM"]),
        ("SIGINT", ["SIGINT"]),
        ("SIGHUP", ["SIGHUP", "SIGTERM"]),
    ],
)
def test_signals_end_the_run_in_order(
    run: Any, until: Any, tmp_path: Path, name: str, seen: list[str]
) -> None:
    signals, gate = tmp_path / "signals", tmp_path / "gate"
    run.document["survive"]["requeue"] = False
    process = run.start(STANDIN_SIGNALS=str(signals), STANDIN_WAIT_FOR=str(gate))
    until(Path(run.variables["STANDIN_REPORT"]).exists)

    process.send_signal(getattr(signal, name))

    finished = run.finish(process)
    assert finished.code == 1, finished.log
    assert signals.read_text().split() == seen
    assert f"medarc | {name}: " in finished.log
    (attempt,) = run.attempts()
    assert attempt["signals"] == [name]
    assert attempt["reason"] == ("asked" if name == "SIGUSR2" else "signalled")


def test_what_is_no_order_to_end_is_passed_on(run: Any, until: Any, tmp_path: Path) -> None:
    signals, gate = tmp_path / "signals", tmp_path / "gate"
    process = run.start(STANDIN_SIGNALS=str(signals), STANDIN_WAIT_FOR=str(gate))
    until(Path(run.variables["STANDIN_REPORT"]).exists)

    process.send_signal(signal.SIGUSR1)

    until(signals.exists)
    gate.touch()
    finished = run.finish(process)
    assert finished.code == 0, finished.log
    assert signals.read_text() == "SIGUSR1\n"
    assert "medarc | SIGUSR1: passed on to prime-rl" in finished.log
    assert run.attempts()[0]["reason"] == "finished"


def test_signals_reach_the_whole_process_group(run: Any, until: Any, tmp_path: Path) -> None:
    run.document["python"] = str(
        run.set_program(
            "python",
            f'#!/bin/sh\n[ "$1" = -c ] && exec {shlex.quote(run.document["python"])} "$@"\n'
            f"trap 'exit 9' TERM\n"
            f'sh -c \'trap "echo grandchild > {tmp_path}/seen; exit" TERM; '
            f"touch {tmp_path}/ready; while :; do sleep 0.01; done' &\n"
            "wait\nwait\n",
        )
    )
    process = run.start()
    until((tmp_path / "ready").exists)

    process.terminate()

    finished = run.finish(process)
    until((tmp_path / "seen").exists)
    assert finished.code == 9, finished.log


def test_a_run_that_ignores_the_signal_is_killed_after_the_grace(
    run: Any, until: Any, tmp_path: Path
) -> None:
    gate, signals = tmp_path / "gate", tmp_path / "signals"
    run.document["survive"]["grace_seconds"] = 0.3
    process = run.start(STANDIN_WAIT_FOR=str(gate), STANDIN_SIGNALS=str(signals), STANDIN_ON_SIGTERM="ignore")
    until(Path(run.variables["STANDIN_REPORT"]).exists)

    process.terminate()

    finished = run.finish(process)
    assert finished.code == 128 + signal.SIGKILL, finished.log
    assert signals.read_text() == "SIGTERM\n"
    assert run.attempts()[0]["reason"] == "signalled"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR2"])
def test_a_signal_during_the_checks_ends_the_job(run: Any, until: Any, tmp_path: Path, name: str) -> None:
    asked = tmp_path / "asked"
    run.set_program("nvidia-smi", f"#!/bin/sh\ntouch {asked}\nexec sleep 600\n")
    process = run.start()
    until(asked.exists)

    process.send_signal(getattr(signal, name))

    finished = run.finish(process)
    assert finished.code == 128 + getattr(signal, name)
    assert f"{name} arrived while prime-rl was not running" in finished.log
    assert run.attempts()[0]["reason"] == ("signalled" if name == "SIGTERM" else "asked")
    # Nothing is lost by another attempt when SLURM only announced the end.
    assert run.requeued == (name == "SIGUSR2")
    assert not Path(run.variables["STANDIN_REPORT"]).exists()


LEADER = """#!/bin/sh
[ "$1" = -c ] && exec {python} "$@"
sh -c '{child}' >{folder}/out 2>&1 &
until [ -e {folder}/ready ]; do sleep 0.01; done
exit 7
"""


def lead(run: Any, folder: Path, child: str) -> None:
    """Make prime-rl a process that ends and leaves a child, which writes its id to `ready`."""
    text = LEADER.format(python=shlex.quote(run.document["python"]), folder=folder, child=child)
    run.document["python"] = str(run.set_program("python", text))


def runs(pid: str) -> bool:
    stat = Path("/proc", pid, "stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] not in "ZX"


@pytest.mark.parametrize("trap", ["", 'trap "" TERM;'])
def test_what_prime_rl_leaves_behind_is_ended(run: Any, tmp_path: Path, trap: str) -> None:
    loop = "while :; do sleep 0.01; done"
    lead(run, tmp_path, f"{trap} echo $$ > {tmp_path}/pid; touch {tmp_path}/ready; {loop}")

    finished = run.attempt()

    # The loop's own `sleep` may be there or not.
    assert re.search(r"ending [12] process\(es\) that prime-rl's launcher left behind", finished.log)
    assert finished.code == 7
    assert run.attempts()[0]["reason"] == "failed"
    assert not runs((tmp_path / "pid").read_text().strip())


def test_what_prime_rl_leaves_behind_may_clean_up(run: Any, tmp_path: Path) -> None:
    clean_up = f'trap "sleep 0.3; touch {tmp_path}/clean; exit" TERM'
    lead(run, tmp_path, f"{clean_up}; touch {tmp_path}/ready; while :; do sleep 0.01; done")

    finished = run.attempt()

    assert (tmp_path / "clean").exists(), finished.log


def test_a_signal_while_the_rest_is_ended_is_kept(run: Any, until: Any, tmp_path: Path) -> None:
    note = f'trap "touch {tmp_path}/told" TERM'
    lead(run, tmp_path, f"{note}; touch {tmp_path}/ready; while :; do sleep 0.01; done")
    process = run.start()
    until((tmp_path / "told").exists)

    process.terminate()

    finished = run.finish(process)
    assert (finished.code, run.attempts()[0]["signals"]) == (7, ["SIGTERM"]), finished.log


def test_an_attempt_that_is_killed_leaves_a_trace(run: Any, until: Any, tmp_path: Path) -> None:
    run.document["token"] = "a1b2"
    process = run.start(STANDIN_WAIT_FOR=str(tmp_path / "gate"), STANDIN_ON_SIGTERM="ignore")
    until(Path(run.variables["STANDIN_REPORT"]).exists)
    trace = run.run_dir / "configs" / "attempts" / "1"

    process.terminate()
    until((trace / "signals.jsonl").exists)
    process.kill()
    (tmp_path / "gate").touch()
    run.finish(process)

    started = json.loads((trace / "started.json").read_text())
    assert started.pop("started").endswith("+00:00")
    assert started == {
        "attempt": 1,
        "job_id": "17",
        "restart_count": 0,
        "host": socket.gethostname(),
        "gpus": [2, 5],
        "token": "a1b2",
    }
    (line,) = (trace / "signals.jsonl").read_text().splitlines()
    assert json.loads(line)["signal"] == "SIGTERM"
    until((run.folder / "attempts.jsonl").exists)
    (attempt,) = run.attempts()
    assert (attempt["reason"], attempt["exit_code"], attempt["token"]) == ("killed", 137, "a1b2")


# Records that cannot be written


def test_a_run_goes_on_without_the_records_of_its_attempt(run: Any) -> None:
    (run.run_dir / "configs" / "attempts").touch()

    finished = run.attempt()

    assert finished.code == 0, finished.log
    assert "Traceback" not in finished.log
    assert [line.partition(":")[0] for line in finished.lines("cannot record")] == [
        "cannot record how attempt 1 started",
        "cannot record the config of attempt 1",
        "cannot record how attempt 1 launched",
    ]


def test_a_config_with_ports_that_cannot_be_written_ends_the_job(run: Any) -> None:
    run.document["ports"] = {"size": 6, "above": [], "slots": []}
    (run.run_dir / "configs" / "attempts").touch()

    finished = run.attempt()

    assert finished.code == 3, finished.log
    assert "Traceback" not in finished.log
    assert "medarc | cannot write the config of this attempt: [Errno 20]" in finished.log
    assert "medarc | hint: see that configs/attempts is a folder" in finished.log
    assert run.attempts()[0]["reason"] == "failed"
    assert not Path(run.variables["STANDIN_REPORT"]).exists()


# Checks that fail


def failures(finished: Any) -> list[str]:
    return [line.removeprefix("[FAIL] ") for line in finished.lines("[FAIL]")]


def test_without_prime_rl_and_a_gpu_all_checks_run_and_the_rest_is_said(run: Any) -> None:
    run.document["python"] = None
    (run.programs / "nvidia-smi").unlink()

    finished = run.attempt()

    assert finished.code == 3
    assert failures(finished) == [
        "NVIDIA driver: no NVIDIA driver on this node: nvidia-smi was not found",
        "prime-rl: none was found at submission",
    ]
    assert "hint: set PRIME_RL_DIR or give --prime-rl-dir, and submit again" in finished.log
    assert finished.lines("[skip]") == ["[skip] environments: not asked, without prime-rl: reverse_text"]
    assert finished.log.splitlines()[-1] == (
        "medarc | prime-rl is not started; missing: NVIDIA driver, prime-rl"
    )
    (attempt,) = run.attempts()
    assert (attempt["exit_code"], attempt["reason"]) == (3, "checks-failed")
    assert attempt["failed"] == [
        "NVIDIA driver: no NVIDIA driver on this node: nvidia-smi was not found",
        "prime-rl: none was found at submission",
    ]
    assert attempt["hints"][1] == "set PRIME_RL_DIR or give --prime-rl-dir, and submit again"


def test_nothing_is_written_outside_configs(run: Any) -> None:
    run.document["python"] = None

    run.attempt()

    assert run.outside_configs() == set()
    assert {path.name for path in run.folder.iterdir()} == {
        "attempts.jsonl",
        "job",
        "launch.json",
        "run_id",
        "state.json",
    }


def test_prime_rls_guard_passes_in_a_fresh_run_directory(run: Any) -> None:
    (run.run_dir / "rl.sbatch").touch()
    (run.run_dir / "job_17.log").touch()

    finished = run.attempt()

    assert finished.code == 0, finished.log


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"CUDA_VISIBLE_DEVICES": ""}, "2 wanted, none allocated: CUDA_VISIBLE_DEVICES is ''"),
        ({"CUDA_VISIBLE_DEVICES": "2"}, "2 wanted, 1 allocated: CUDA_VISIBLE_DEVICES=2"),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, "GPU 0,1 is outside the allocation, which is GPU 2,5"),
    ],
)
def test_a_wrong_allocation_ends_the_job(run: Any, variables: dict[str, str], text: str) -> None:
    finished = run.attempt(**variables)

    assert finished.code == 3
    assert failures(finished) == [f"GPUs: {text}"]
    assert not Path(run.variables["STANDIN_REPORT"]).exists()


def test_a_driver_that_fails_is_quoted(run: Any) -> None:
    run.set_program("nvidia-smi", "#!/bin/sh\necho Failed to initialize NVML: Unknown Error\nexit 255\n")

    finished = run.attempt()

    assert failures(finished) == [
        "NVIDIA driver: nvidia-smi failed: Failed to initialize NVML: Unknown Error"
    ]


def test_made_up_gpus_may_be_allowed(run: Any) -> None:
    (run.programs / "nvidia-smi").unlink()

    finished = run.attempt(MEDARC_STANDIN_GPUS="1")

    assert finished.code == 0, finished.log
    assert finished.lines("[skip]") == [
        (
            "[skip] NVIDIA driver: no NVIDIA driver on this node: nvidia-smi was not found "
            "(MEDARC_STANDIN_GPUS is set)"
        )
    ]


def test_an_interpreter_that_is_gone(run: Any, tmp_path: Path) -> None:
    run.document["python"] = str(tmp_path / "gone" / "python")

    finished = run.attempt()

    assert finished.code == 3
    assert failures(finished) == [f"prime-rl: its interpreter {tmp_path}/gone/python is not there"]


def test_an_interpreter_that_hangs_is_given_up(run: Any, until: Any, tmp_path: Path) -> None:
    hung = run.set_program("python", f"#!/bin/sh\nsleep 600 & echo $! > {tmp_path}/pid\nwait\n")
    run.document["python"] = str(hung)

    finished = run.attempt(MEDARC_PROBE_SECONDS="0.5")

    assert finished.code == 3
    assert failures(finished) == [f"prime-rl: {hung} did not answer within 0.5 s"]
    left = Path("/proc", (tmp_path / "pid").read_text().strip(), "stat")
    until(lambda: not left.exists() or ") Z " in left.read_text())


def test_an_interpreter_that_breaks_is_quoted(run: Any) -> None:
    broken = run.set_program("python", "#!/bin/sh\necho libpython3.12.so: not found >&2\nexit 127\n")
    run.document["python"] = str(broken)

    finished = run.attempt()

    assert failures(finished) == [f"prime-rl: {broken} ended with exit code 127:"]
    assert "libpython3.12.so: not found" in finished.log


def test_an_interpreter_that_is_killed_is_not_called_broken(run: Any) -> None:
    killed = run.set_program("python", "#!/bin/sh\nkill -9 $$\n")
    run.document["python"] = str(killed)

    finished = run.attempt()

    assert failures(finished) == [f"prime-rl: {killed} was killed by SIGKILL (out of memory?)"]
    assert "hint: submit again, with more memory (--mem)" in finished.log


def test_an_interpreter_that_is_something_else(run: Any) -> None:
    run.document["python"] = "/bin/echo"

    finished = run.attempt()

    assert finished.code == 3
    assert "prime-rl: /bin/echo is no Python that answers" in failures(finished)[0]


def test_an_interpreter_without_prime_rl_and_the_environment(run: Any) -> None:
    run.document["module"] = "prime_rl.entrypoints.other"
    run.document["environments"] = ["reverse_text", "no-such"]

    finished = run.attempt()

    assert finished.code == 3
    assert failures(finished) == [
        f"prime-rl: {run.document['python']} finds no prime_rl.entrypoints.other",
        "environments: prime-rl's interpreter finds no no_such",
    ]


def test_a_config_that_is_torn(run: Any) -> None:
    path = Path(run.document["arguments"][1])
    path.write_text('{"trainer": ')

    finished = run.attempt()

    assert finished.code == 3
    assert failures(finished)[0].startswith(f"config: {path} cannot be parsed: Expecting value")


def test_a_config_that_is_gone(run: Any) -> None:
    path = Path(run.document["arguments"][1])
    path.unlink()

    finished = run.attempt()

    assert failures(finished) == [f"config: cannot read {path}: No such file or directory"]


def test_a_config_that_would_delete_the_run_directory(run: Any) -> None:
    run.set_config(clean=True)

    finished = run.attempt()

    assert finished.code == 3
    assert failures(finished) == [
        "config: clean = true would delete this run directory, with this job's files and log"
    ]


def test_a_working_directory_that_is_not_there(run: Any) -> None:
    run.document["working_directory"] = "/nowhere/at all"

    finished = run.attempt()

    assert finished.code == 3
    assert failures(finished) == ["working directory: /nowhere/at all is no directory on this node"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_run_directory_that_cannot_be_written(run: Any) -> None:
    run.write()
    run.folder.chmod(0o500)
    try:
        finished = run.attempt()
    finally:
        run.folder.chmod(0o700)

    assert finished.code == 3
    assert failures(finished) == [f"run directory: {run.run_dir}: Permission denied"]


def test_what_only_slows_the_run_does_not_stop_it(run: Any) -> None:
    run.document["cpus"] = 100_000
    run.document["memory_mib"] = 2**40

    finished = run.attempt(SLURM_MEM_PER_NODE="4096", SLURM_CPUS_ON_NODE="3")

    assert finished.code == 0, finished.log
    cpus, memory = finished.lines("[warn]")
    assert cpus.endswith("of 100000 wanted")
    assert memory.endswith("of 1099511627776 MiB wanted")


def test_an_unchecked_config_is_said_to_be_so(run: Any) -> None:
    run.document["checked"] = False

    finished = run.attempt()

    assert finished.lines("[skip]") == [
        "[skip] validation: prime-rl has not seen this config yet: it may refuse it"
    ]


# Secrets


def test_secrets_are_never_shown(run: Any) -> None:
    secret = "hf_0123456789secret"
    run.document["expected_variables"] = ["HF_TOKEN", "WANDB_API_KEY"]
    broken = run.set_program("python", '#!/bin/sh\necho "cannot log in as $HF_TOKEN"\nexit 1\n')
    run.document["python"] = str(broken)

    finished = run.attempt(HF_TOKEN=secret)

    assert "not passed to the job: WANDB_API_KEY" in finished.log
    assert "cannot log in as ***" in finished.log
    assert secret not in finished.log
    kept = [path for path in run.run_dir.rglob("*") if path.is_file()]
    assert [path for path in kept if secret.encode() in path.read_bytes()] == []


def test_promised_variables_that_came_are_named(run: Any) -> None:
    run.document["expected_variables"] = ["HF_TOKEN"]

    finished = run.attempt(HF_TOKEN="hf_0123456789secret")

    assert "[ ok ] variables: HF_TOKEN" in finished.log
    assert "hf_0123456789secret" not in finished.log


# launch.json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read"),
        ('{"format": 2, "na', "is not whole"),
        ("[]", "has format None; this job code reads format 2"),
        ('{"format": 3}', "has format 3; this job code reads format 2"),
        ('{"format": 2}', "lacks the field 'gpus'"),
        ('{"format": 2, "gpus": {}, "survive": {}, "name": 1}', "lacks the field 'entrypoint'"),
        (
            '{"format": 2, "gpus": {}, "survive": {}, "run_dir": 7, "name": "", "entrypoint": ""}',
            "holds a value of a wrong kind",
        ),
    ],
)
def test_a_plan_that_cannot_be_used(run: Any, text: str, message: str) -> None:
    process = subprocess.run(
        [sys.executable, run.folder / "job", run.folder / "other.json"]
        if text is None
        else [sys.executable, run.folder / "job", put(run.folder / "other.json", text)],
        env=run.variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert process.returncode == 3
    assert message in process.stdout
    assert "medarc | hint: " in process.stdout
    assert process.stderr == ""


def put(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_torn_line_of_an_earlier_attempt_swallows_nothing(run: Any) -> None:
    run.document["python"] = None
    (run.folder / "attempts.jsonl").write_text('{"attempt": 1, "jo')

    run.attempt()

    lines = (run.folder / "attempts.jsonl").read_text().splitlines()
    assert lines[0] == '{"attempt": 1, "jo'
    assert json.loads(lines[1])["reason"] == "checks-failed"


# What the frozen code may need


def test_the_job_code_needs_the_standard_library_alone() -> None:
    folder = Path(medarc_plugin.job.__file__).parent
    imported = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(), feature_version=(3, 9))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(node.module.split(".")[0])

    assert imported <= sys.stdlib_module_names


def test_its_own_start_is_quick(run: Any) -> None:
    run.document["python"] = None
    run.write()
    script = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss)\n"
    )

    seconds, kibibytes = map(
        float,
        subprocess.run(
            [sys.executable, "-c", script, sys.executable, run.folder / "job", write(run)],
            env=run.variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout.split(),
    )

    assert seconds < 0.5
    assert kibibytes < 40 * 1024


PORTS = {
    "size": 6,
    "above": [21000],
    "slots": [
        {"offset": 1, "paths": ["inference.server.port", "orchestrator.model.client.base_url"]},
        {"offset": 2, "paths": ["inference.backend_port", "orchestrator.model.client.admin_base_url[*]"]},
        {"offset": 3, "paths": ["weight_broadcast.port"]},
        {"offset": 4, "paths": ["orchestrator.env_server_base_port"]},
    ],
}


def test_an_attempt_launches_with_ports_of_its_own(run: Any, report: Any) -> None:
    run.document["ports"] = PORTS
    client = {"base_url": "http://localhost:8000/v1", "admin_base_url": ["http://localhost:8100/v1"]}
    run.set_config(
        inference={"server": {"port": 8000}, "backend_port": 8100},
        orchestrator={"model": {"client": client}, "env_server_base_port": 5000},
        weight_broadcast={"type": "nccl", "port": 29501},
    )
    before = json.loads(Path(run.document["arguments"][1]).read_text())

    finished = run.attempt()

    (attempt,) = run.attempts()
    first, last = attempt["ports"]
    written = json.loads((run.run_dir / "configs/attempts/1/rl.json").read_text())
    assert finished.code == 0, finished.log
    assert last - first >= PORTS["size"]
    assert report()["argv"][:2] == ["@", str(run.run_dir / "configs/attempts/1/rl.json")]
    assert written["inference"]["server"]["port"] == first
    assert written["orchestrator"]["model"]["client"]["base_url"] == f"http://localhost:{first}/v1"
    assert written["orchestrator"]["model"]["client"]["admin_base_url"] == [
        f"http://localhost:{first + 1}/v1"
    ]
    assert written["weight_broadcast"]["port"] == first + 2
    assert json.loads(Path(run.document["arguments"][1]).read_text()) == before


def test_a_service_that_finds_its_port_taken_starts_again_on_others(run: Any) -> None:
    # The stranger has the port that the config keeps for one service, whatever the lease is: no lease helps,
    # and after three more launches the job ends as prime-rl ended.
    slots = [slot for slot in PORTS["slots"] if slot["offset"] != 3]
    run.document["ports"] = {**PORTS, "slots": slots}
    with socket.create_server(("", 0)) as stranger:
        run.set_config(weight_broadcast={"type": "nccl", "port": stranger.getsockname()[1]})
        finished = run.attempt(STANDIN_BIND="1")

    assert finished.code == 1
    assert len(finished.lines("starting again on other ports")) == 3
    assert len(finished.lines("are this run's own")) == 4
    written = json.loads((run.run_dir / "configs/attempts/1/rl.json").read_text())
    assert written["resume"] == {}
    assert "(trainer.log)" in finished.lines("starting again")[0]


def test_services_that_find_their_ports_free_start_once(run: Any) -> None:
    run.document["ports"] = PORTS

    finished = run.attempt(STANDIN_BIND="1")

    assert finished.code == 0, finished.log
    assert finished.lines("starting again") == []
