"""The sandbox itself: it starts, runs jobs, survives crashes, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from medarc_plugin.errors import SandboxError
from medarc_plugin.sandbox import Sandbox, SandboxSpec
from medarc_plugin.sandbox.controller import client_environment
from medarc_plugin.sandbox.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slurm

SPEC = SandboxSpec(gpu_kind="standin")
DAEMONS = ("munged", "slurmctld", "slurmd-node1")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Sandbox]:
    """A sandbox for this test alone, in a folder that only its owner can enter."""
    sandbox = Sandbox(tmp_path / "own")
    yield sandbox
    sandbox.down()


def submit(sandbox: Sandbox, script: str, *options: str) -> str:
    done = subprocess.run(
        ["sbatch", "--parsable", "--output=/dev/null", *options],
        input=f"#!/bin/bash\n{script}\n",
        env=client_environment(sandbox.environment()["SLURM_CONF"]),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def wait_for(file: Path, seconds: float = 30) -> str:
    assert wait_until(lambda: file.exists() and file.stat().st_size > 0, seconds), file
    return file.read_text().strip()


def short_path(sandbox: Sandbox) -> Path:
    return Path(json.loads((sandbox.directory / "sandbox.json").read_text())["short"])


def about(*paths: Path) -> list[str]:
    """Processes whose arguments, working directory or open files name one of the paths."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or entry.name == str(os.getpid()):
            continue
        try:
            texts = [(entry / "cmdline").read_bytes().decode(errors="replace")]
            texts += [str(link.readlink()) for link in (entry / "fd").iterdir()]
            texts.append(str((entry / "cwd").readlink()))
        except OSError:
            continue
        if any(str(path) in text for path in paths for text in texts):
            found.append(f"{entry.name} {texts[0]}")
    return found


def test_a_job_gets_the_gpus_that_it_asked_for(
    sandbox: Sandbox,
    slurm_env: dict[str, str],
    wait_for_job: Callable[..., dict[str, str]],
    tmp_path: Path,
) -> None:
    answer = tmp_path / "answer"
    job = submit(sandbox, f'echo "$CUDA_VISIBLE_DEVICES $SLURM_CPUS_ON_NODE" > {answer}', "--gres=gpu:h100:2")
    end = wait_for_job(job)

    assert (end["JobState"], end["ExitCode"]) == ("COMPLETED", "0:0")
    assert answer.read_text() == "0,1 1\n"
    assert "SLURM_JOB_ID" not in slurm_env


def test_a_failing_job_keeps_its_exit_code(
    sandbox: Sandbox, wait_for_job: Callable[..., dict[str, str]]
) -> None:
    end = wait_for_job(submit(sandbox, "exit 7"))

    assert (end["JobState"], end["ExitCode"]) == ("FAILED", "7:0")


def test_status_tells_what_there_is(own: Sandbox) -> None:
    assert own.status().state == "down"
    up = own.up(SPEC)

    assert up.state == "up"
    assert up.started == DAEMONS
    assert [daemon.name for daemon in up.daemons] == list(DAEMONS)
    assert [(node.name, node.state, node.cpus, node.gres) for node in up.nodes] == [
        ("node1", "idle", 64, "gpu:h100:8")
    ]
    assert (up.gpus, up.gpu_type, up.real_gpus, up.queue_length) == (8, "h100", False, 0)

    submit(own, "true", "--hold")

    assert own.status().queue_length == 1


def test_up_is_quick_and_a_second_up_starts_nothing(own: Sandbox) -> None:
    start = time.monotonic()
    own.up(SPEC)
    seconds = time.monotonic() - start

    # 0.1 s to 1.2 s on two cores; the limit only tells seconds from half minutes.
    assert seconds < 15
    assert own.up().started == ()
    assert own.up(SPEC).started == ()


@pytest.mark.parametrize("daemon", DAEMONS)
def test_up_brings_a_killed_daemon_back(
    own: Sandbox, daemon: str, tmp_path: Path, wait_for_end_of: Callable[..., dict[str, str]]
) -> None:
    own.up(SPEC)
    own.kill(daemon)

    assert own.status().state == "partly"

    again = own.up()

    assert (again.state, again.started) == ("up", (daemon,))
    job = submit(own, f"echo done > {tmp_path}/answer")
    environment = client_environment(own.environment()["SLURM_CONF"])
    assert wait_for_end_of(job, environment)["JobState"] == "COMPLETED"


def test_a_job_outlives_the_death_of_every_daemon(
    own: Sandbox, tmp_path: Path, wait_for_end_of: Callable[..., dict[str, str]]
) -> None:
    own.up(SPEC)
    script = f"echo up > {tmp_path}/begun; until [ -e {tmp_path}/go ]; do sleep 0.05; done"
    job = submit(own, script)
    wait_for(tmp_path / "begun")
    time.sleep(6)  # slurmctld saves its state every 5 s, and what it has not saved is lost
    for daemon in DAEMONS:
        own.kill(daemon)
    own.up()
    (tmp_path / "go").touch()

    environment = client_environment(own.environment()["SLURM_CONF"])
    assert wait_for_end_of(job, environment)["JobState"] == "COMPLETED"


def test_down_leaves_neither_processes_nor_files(own: Sandbox, tmp_path: Path) -> None:
    own.up(SPEC)
    short = short_path(own)
    # One ignores SIGTERM, the other leaves the job's process tree.
    stubborn = (
        f"trap '' TERM; setsid sleep 600 & echo $! > {tmp_path}/escaped; "
        f"echo $$ > {tmp_path}/begun; while :; do sleep 0.1; done"
    )
    submit(own, stubborn)
    submit(own, "true", "--begin=now+1hour")
    pids = [int(wait_for(tmp_path / name)) for name in ("begun", "escaped")]

    own.down()

    assert not own.directory.exists()
    assert not short.exists()
    assert about(short, own.directory) == []
    assert [pid for pid in pids if is_running(pid)] == []
    assert own.status().state == "down"
    own.down()


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def test_down_after_every_daemon_was_killed(own: Sandbox, tmp_path: Path) -> None:
    own.up(SPEC)
    short = short_path(own)
    submit(own, f"echo $$ > {tmp_path}/begun; sleep 600")
    pid = int(wait_for(tmp_path / "begun"))
    for daemon in DAEMONS:
        own.kill(daemon)
    own.down()

    assert about(short, own.directory) == []
    assert not is_running(pid)


def test_a_long_path_with_spaces_and_worse(
    tmp_path: Path, wait_for_end_of: Callable[..., dict[str, str]]
) -> None:
    folder = tmp_path / ("long" * 40) / 'it\'s $(id) "a" 100% #1 ü'
    sandbox = Sandbox(folder / ".slurm-sandbox")
    sandbox.up(SPEC)
    try:
        job = submit(sandbox, f"echo $SLURM_JOB_ID > {tmp_path}/answer; srun true")
        environment = client_environment(sandbox.environment()["SLURM_CONF"])

        assert wait_for_end_of(job, environment)["JobState"] == "COMPLETED"
        assert wait_for(tmp_path / "answer") == job
    finally:
        sandbox.down()

    assert list(folder.iterdir()) == []


def test_two_ups_at_once_make_one_sandbox(own: Sandbox) -> None:
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda _: Sandbox(own.directory).up(SPEC), range(4)))

    assert sorted(len(result.started) for result in results) == [0, 0, 0, 3]
    assert {result.state for result in results} == {"up"}
    assert len({result.daemons for result in results}) == 1


def test_up_and_down_at_once_end_in_one_or_the_other(own: Sandbox) -> None:
    own.up(SPEC)
    with ThreadPoolExecutor() as pool:
        tasks = [pool.submit(Sandbox(own.directory).down)]
        tasks.append(pool.submit(Sandbox(own.directory).up, SPEC))
        for task in tasks:
            task.result()

    assert own.status().state in {"up", "down"}


def test_another_spec_needs_down_first(own: Sandbox) -> None:
    own.up(SPEC)
    with pytest.raises(SandboxError, match=r"running with cpus 64 \(asked for: 8\)") as caught:
        own.up(SandboxSpec(gpu_kind="standin", cpus=8))

    assert "sandbox down" in (caught.value.hint or "")

    own.down()

    assert own.up(SandboxSpec(gpu_kind="standin", cpus=8)).nodes[0].cpus == 8


def test_several_nodes_and_own_partitions(
    own: Sandbox, tmp_path: Path, wait_for_end_of: Callable[..., dict[str, str]]
) -> None:
    lines = (
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
        "PartitionName=low Nodes=node1 PriorityTier=1 Default=YES MaxTime=10",
        "PartitionName=high Nodes=node1,node2 PriorityTier=10",
    )
    spec = SandboxSpec(nodes=2, gpus=2, gpu_kind="standin", partition=None, extra_lines=lines)
    status = own.up(spec)
    environment = client_environment(own.environment()["SLURM_CONF"])
    partitions = subprocess.run(
        ["sinfo", "-h", "-o", "%P %l %D"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert [(node.name, node.state) for node in status.nodes] == [
        ("node1", "idle"),
        ("node2", "idle"),
    ]
    assert partitions.split("\n")[:2] == ["low* 10:00 1", "high infinite 2"]

    job = submit(own, f"srun hostname > {tmp_path}/answer", "-p", "high", "-N2", "--gpus-per-node=1")

    assert wait_for_end_of(job, environment)["JobState"] == "COMPLETED"
    assert len((tmp_path / "answer").read_text().splitlines()) == 2


def test_a_requeued_job_starts_again_within_seconds(
    own: Sandbox, tmp_path: Path, wait_for_end_of: Callable[..., dict[str, str]]
) -> None:
    own.up(SPEC)
    environment = client_environment(own.environment()["SLURM_CONF"])
    job = submit(
        own,
        f'[ -n "$SLURM_RESTART_COUNT" ] && exit 0; echo up > {tmp_path}/begun; sleep 600',
        "--requeue",
    )
    wait_for(tmp_path / "begun")
    subprocess.run(["scontrol", "requeue", job], env=environment, check=True)
    end = wait_for_end_of(job, environment, seconds=40)

    assert (end["JobState"], end["Restarts"]) == ("COMPLETED", "1")


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    for act in (Sandbox(tmp_path).up, Sandbox(tmp_path).down, Sandbox(tmp_path).status):
        with pytest.raises(SandboxError, match=r"holds something else than a sandbox: thesis.tex"):
            act()

    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_down_ends_a_sandbox_whose_folder_was_deleted(own: Sandbox, tmp_path: Path) -> None:
    own.up(SPEC)
    short = short_path(own)
    submit(own, f"echo $$ > {tmp_path}/begun; sleep 600")
    pid = int(wait_for(tmp_path / "begun"))
    # The daemons may be writing into it.
    wait_until(lambda: shutil.rmtree(own.directory, ignore_errors=True) or not own.directory.exists(), 10)

    own.down()

    assert not short.exists()
    assert about(short, own.directory) == []
    assert not is_running(pid)
    assert not own.directory.exists()


def test_down_ends_what_a_deleted_folder_left_after_a_new_start(own: Sandbox) -> None:
    own.up(SPEC)
    short = short_path(own)
    wait_until(lambda: shutil.rmtree(own.directory, ignore_errors=True) or not own.directory.exists(), 10)
    own.up(SPEC)

    own.down()

    assert not short.exists()
    assert about(short, own.directory) == []


def test_down_at_the_old_path_leaves_a_moved_sandbox_alone(own: Sandbox, tmp_path: Path) -> None:
    own.up(SPEC)
    moved = Sandbox(own.directory.rename(tmp_path / "moved"))
    with pytest.raises(SandboxError, match=f"was moved to {moved.directory}") as caught:
        own.down()

    assert f"--dir {moved.directory}" in (caught.value.hint or "")
    assert moved.up().state == "up"

    moved.down()


def test_down_keeps_files_of_others(own: Sandbox) -> None:
    own.up(SPEC)
    (own.directory / "notes.txt").write_text("mine")
    with pytest.raises(SandboxError, match=r"still holds notes\.txt"):
        own.down()

    assert [entry.name for entry in own.directory.iterdir()] == ["notes.txt"]
    assert about(own.directory) == []

    (own.directory / "notes.txt").unlink()


def test_after_a_reboot_pids_and_tmp_are_no_longer_ours(own: Sandbox) -> None:
    own.up(SPEC)
    short = short_path(own)
    for daemon in DAEMONS:
        own.kill(daemon)
    shutil.rmtree(short)
    with subprocess.Popen(["sleep", "600"]) as stranger:
        for file in (own.directory / "run").glob("*.pid"):
            file.write_text(f"{stranger.pid}\n")
        status = own.status()
        up = own.up()
        alive = stranger.poll() is None
        stranger.kill()

    assert status.state == "down"
    assert (up.state, up.started) == ("up", DAEMONS)
    assert alive
    assert short_path(own) == short


def test_a_damaged_record_is_told_and_down_clears_it(own: Sandbox) -> None:
    own.up(SPEC)
    short = short_path(own)
    (own.directory / "sandbox.json").write_text("")
    with pytest.raises(SandboxError, match=r"sandbox\.json is damaged") as caught:
        own.up()

    assert "sandbox down" in (caught.value.hint or "")

    own.down()

    assert not own.directory.exists()
    assert not short.exists()
    assert about(short, own.directory) == []


def test_a_record_of_another_slurm(own: Sandbox) -> None:
    own.up(SPEC)
    record = own.directory / "sandbox.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"version": [20, 2]}))
    with pytest.raises(SandboxError, match=r"runs SLURM 20\.02, and \d+\.\d+ is installed now"):
        own.up()
    for daemon in DAEMONS:
        own.kill(daemon)

    assert own.up().state == "up"


def test_a_moved_folder_is_still_the_same_sandbox(own: Sandbox, tmp_path: Path) -> None:
    pids = own.up(SPEC).daemons
    moved = Sandbox(own.directory.rename(tmp_path / "moved"))

    assert moved.up().daemons == pids

    submit(moved, "true")
    moved.down()

    assert about(tmp_path) == []


def test_a_copied_folder_is_a_sandbox_of_its_own(own: Sandbox, tmp_path: Path) -> None:
    first = own.up(SPEC)
    copy = Sandbox(Path(shutil.copytree(own.directory, tmp_path / "copy", symlinks=True)))

    assert copy.status().state == "down"

    second = copy.up()
    copy.down()

    assert not {one.pid for one in first.daemons} & {one.pid for one in second.daemons}
    assert own.status().state == "up"


def test_a_daemon_that_does_not_start_is_quoted_and_leaves_no_process(own: Sandbox) -> None:
    bad = SandboxSpec(gpu_kind="standin", extra_lines=("SelectType=select/nonsense",))
    with pytest.raises(SandboxError, match=r"(?s)did not start.*select/nonsense"):
        own.up(bad)

    assert own.status().state == "down"
    assert about(own.directory, short_path(own)) == []
    assert own.up(SPEC).state == "up"


def test_a_host_whose_name_is_not_loopback(
    own: Sandbox, monkeypatch: pytest.MonkeyPatch, wait_for_end_of: Callable[..., dict[str, str]]
) -> None:
    monkeypatch.setattr("socket.gethostbyname_ex", lambda name: (name, [], ["127.0.1.1"]))
    own.up(SPEC)
    environment = client_environment(own.environment()["SLURM_CONF"])

    assert "CommunicationParameters" not in (own.directory / "slurm.conf").read_text()
    assert wait_for_end_of(submit(own, "srun true"), environment)["JobState"] == "COMPLETED"


def test_more_real_gpus_than_there_are(own: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    from medarc_plugin.sandbox import service
    from medarc_plugin.sandbox.gpus import RealGpu

    monkeypatch.setattr(service, "detect", lambda: (RealGpu("/dev/null", "l4"),))
    with pytest.raises(SandboxError, match="2 GPUs were asked for and this machine has 1"):
        own.up(SandboxSpec(gpus=2))

    assert not own.directory.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="this run is an ordinary user's already")
def test_an_ordinary_user_needs_no_root() -> None:
    nobody = pwd.getpwnam("nobody")
    folder = Path(tempfile.mkdtemp())
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    report = folder / "report"
    # A child of this process: the interpreter's own folder may be closed to other users.
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(nobody.pw_gid)
            os.setuid(nobody.pw_uid)
            os.chdir(folder)
            sandbox = Sandbox(folder / "own")
            state = sandbox.up(SPEC).state
            submit(sandbox, f"echo $CUDA_VISIBLE_DEVICES > {folder}/answer", "--gres=gpu:2")
            answer = wait_for(folder / "answer")
            sandbox.down()
            report.write_text(f"{state} {answer} {sandbox.directory.exists()}")
        except BaseException:
            report.write_text(traceback.format_exc())
        os._exit(0)
    os.waitpid(child, 0)
    text = report.read_text()
    shutil.rmtree(folder)

    assert text == "up 0,1 False"
