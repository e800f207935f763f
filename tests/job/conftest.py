"""A run directory with the job code frozen into it, and a node to run it on."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from standin import install_gpu_packages, make_checkout

import medarc_plugin.job
from medarc_plugin.host import fields

JOB_CODE = Path(medarc_plugin.job.__file__).parent

# What nvidia-smi prints for the one query that the job makes; it refuses every other.
NVIDIA_SMI = """#!/bin/sh
if [ "$*" != "--query-gpu=index,uuid,name,memory.total --format=csv,noheader" ]; then
    echo "Invalid combination of input arguments. Please run 'nvidia-smi -h' for help." >&2
    exit 1
fi
cat <<'END'
{lines}
END
exit {code}
"""

# What scontrol prints, as far as the job reads it; `requeue` ends the job, as SLURM does.
SCONTROL = """#!/bin/sh
echo "$*" >> {asked}
case "$*" in
"-o show job 17")
    echo "JobId=17 JobName=reverse-rl Priority=1 {fields}" ;;
"requeue 17")
    {requeue} ;;
*)
    echo "invalid keyword: $*" >&2
    exit 1 ;;
esac
"""

RUNNING = "JobState=RUNNING Reason=None Requeue=1 Restarts=0 EndTime=Unknown PreemptTime=None"

UUIDS = {index: f"GPU-{index}c1f2b7e-5a3d-4f6e-9b1a-0d2c4e6f8a1{index}" for index in range(8)}


def gpu_lines(indices: range) -> str:
    return "\n".join(f"{i}, {UUIDS[i]}, NVIDIA H200, 143771 MiB" for i in indices)


@dataclass
class Finished:
    """An attempt that ended."""

    code: int
    log: str

    def lines(self, mark: str) -> list[str]:
        """The log's lines that hold the mark, without the prefix."""
        return [line[9:] for line in self.log.splitlines() if mark in line]


@dataclass
class Run:
    """A run directory as a submission leaves it, on a node of its own."""

    run_dir: Path
    checkout: Path
    programs: Path
    document: dict[str, Any]
    variables: dict[str, str]
    interpreter: str = os.environ.get("MEDARC_JOB_PYTHON", sys.executable)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.run_dir / "configs" / "launch"

    def set_gpus(self, indices: range = range(8), code: int = 0) -> None:
        self.set_program("nvidia-smi", NVIDIA_SMI.format(lines=gpu_lines(indices), code=code))

    def set_slurm(self, fields: str = RUNNING, requeue: str = "kill -TERM $PPID") -> None:
        """Say what the controller knows of this job, and what comes of giving it back."""
        text = SCONTROL.format(asked=self.asked, fields=fields, requeue=requeue)
        self.set_program("scontrol", text)

    @property
    def asked(self) -> Path:
        """A line for each call of scontrol."""
        return self.run_dir.parent / "asked"

    @property
    def requeued(self) -> bool:
        return self.asked.exists() and "requeue 17" in self.asked.read_text().splitlines()

    def set_program(self, name: str, text: str) -> Path:
        path = self.programs / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def set_config(self, **values: Any) -> None:
        path = Path(self.document["arguments"][1])
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    def write(self) -> None:
        (self.folder / "launch.json").write_text(json.dumps(self.document))

    def start(self, **variables: str) -> subprocess.Popen[str]:
        """Start an attempt, as the last line of the batch script does."""
        self.write()
        process = subprocess.Popen(
            [self.interpreter, self.folder / "job", self.folder / "launch.json"],
            env={**self.variables, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.started.append(process)
        return process

    def finish(self, process: subprocess.Popen[str]) -> Finished:
        log, _ = process.communicate(timeout=60)
        return Finished(process.returncode, log)

    def attempt(self, **variables: str) -> Finished:
        return self.finish(self.start(**variables))

    def attempts(self) -> list[dict[str, Any]]:
        path = self.folder / "attempts.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def outside_configs(self) -> set[str]:
        return {path.name for path in self.run_dir.iterdir()} - {"configs"}


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkout(tmp_path_factory.mktemp("host") / "prime-rl")


def build_run(run_dir: Path, checkout: Path, programs: Path) -> Run:
    folder = run_dir / "configs" / "launch"
    (folder / "job").mkdir(parents=True)
    for path in JOB_CODE.glob("*.py"):
        shutil.copy(path, folder / "job")
    config = run_dir / "configs" / "rl.json"
    config.write_text(
        json.dumps(
            {
                "trainer": {},
                "orchestrator": {},
                "inference": {},
                "ckpt": {},
                "max_steps": 2,
                "resume": None,
                "output_dir": str(run_dir.parent),
                "run": {"name": "reverse-rl", "dir": run_dir.name},
            }
        )
    )
    project = run_dir.parent / "project"
    project.mkdir()
    programs.mkdir()
    document = {
        "format": 2,
        "name": "reverse-rl",
        "entrypoint": "rl",
        "backend": "slurm",
        "run_dir": str(run_dir),
        "token": "3f2a",
        "python": str(checkout / ".venv" / "bin" / "python"),
        "prime_rl_dir": str(checkout),
        "module": "prime_rl.entrypoints.rl",
        "arguments": ["@", str(config)],
        "working_directory": str(project),
        "gpus": {"count": 2, "shared": False, "trainer": 1, "inference": 1},
        "cpus": 1,
        "memory_mib": None,
        "expected_variables": [],
        "environments": ["reverse_text"],
        "fields": fields.for_job("rl", fields.MAIN),
        "checked": True,
        "rehearse": False,
        "export": False,
        "survive": {
            "requeue": True,
            "max_requeues": 10,
            "signal_seconds": 120,
            "grace_seconds": 2,
            "beat_seconds": 1,
        },
    }
    variables = {
        "PATH": f"{programs}:/usr/bin:/bin",
        "HOME": str(run_dir.parent),
        "SLURM_JOB_ID": "17",
        "SLURM_JOB_GPUS": "2,5",
        "CUDA_VISIBLE_DEVICES": "2,5",
        "STANDIN_REPORT": str(run_dir.parent / "report.json"),
    }
    run = Run(run_dir, checkout, programs, document, variables)
    run.set_gpus()
    run.set_slurm()
    return run


@pytest.fixture
def run(tmp_path: Path, checkout: Path) -> Iterator[Run]:
    made = build_run(tmp_path / "runs" / "reverse-rl", checkout, tmp_path / "programs")
    yield made
    for process in made.started:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture(scope="session")
def gpu_checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prime-rl whose environment has what a run on GPUs imports."""
    made = make_checkout(tmp_path_factory.mktemp("gpu-host") / "prime-rl")
    install_gpu_packages(made)
    return made


@pytest.fixture
def rehearsal(run: Run, gpu_checkout: Path) -> Run:
    """A run that is to be rehearsed, and that would start."""
    run.document["python"] = str(gpu_checkout / ".venv" / "bin" / "python")
    run.document["rehearse"] = True
    run.variables |= {"HF_HUB_OFFLINE": "1", "TMPDIR": str(run.run_dir.parent)}
    return run


@pytest.fixture
def make_run() -> Any:
    """Make a run of one's own."""
    return build_run


@pytest.fixture
def report(run: Run) -> Any:
    """Read what the stand-in wrote about how it was started."""
    return lambda: json.loads(Path(run.variables["STANDIN_REPORT"]).read_text())


@pytest.fixture
def until() -> Any:
    """Wait for a condition that another process brings about."""
    import time

    def wait(condition: Any) -> None:
        end = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < end, "nothing happened for 30 s"
            time.sleep(0.01)

    return wait
