"""A user's shell on a login node: what the tests of the SLURM ring type, and what they get."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from standin import make_checkout

EXAMPLES = Path(__file__).parents[2] / "examples" / "reverse_text"
SCRIPTS = Path(sys.executable).parent

NVIDIA_SMI = """#!/bin/sh
case "$*" in
"--query-gpu=index,uuid,name,memory.total --format=csv,noheader")
    for index in 0 1 2 3 4 5 6 7; do echo "$index, GPU-$index, NVIDIA H100, 81559 MiB"; done ;;
"--id="*" --query-gpu=index,memory.used,memory.total,utilization.gpu --format=csv,noheader,nounits")
    ids=${1#--id=}
    for index in $(echo "$ids" | tr , ' '); do echo "$index, 4096, 81559, 97"; done ;;
*)
    exit 2 ;;
esac
"""


@dataclass
class Submitted:
    """What a submission printed."""

    job: str
    run: Path
    script: Path
    log: Path

    @property
    def attempts(self):
        text = (self.run / "configs" / "launch" / "attempts.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]


@dataclass
class Cluster:
    """A user's shell on the sandbox's login node."""

    folder: Path
    env: dict

    def run(self, *argv, **variables):
        env = {**self.env, **variables}
        return subprocess.run(
            list(map(str, argv)), cwd=self.folder, env=env, capture_output=True, text=True, check=False
        )

    def submit(self, entrypoint, *argv, **variables):
        config = EXAMPLES / f"{entrypoint}.toml"
        done = self.run(SCRIPTS / entrypoint, "--backend", "slurm", "@", config, *argv, **variables)

        assert done.returncode == 0, done.stderr
        found = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
        return Submitted(found["job"], *(Path(found[name]) for name in ("run", "script", "log")))

    def report(self):
        return json.loads((self.folder / "report.json").read_text())

    def squeue(self, job, what):
        return self.run("squeue", "-h", "-j", job, "-o", what).stdout.removesuffix("\n")


def log_in(folder, environment):
    """Make a project's folder, a node's programs and a prime-rl, and return the shell.

    Args:
        folder: Where everything goes.
        environment: In which SLURM's commands speak to their cluster.
    """
    programs = folder / "bin"
    programs.mkdir()
    smi = programs / "nvidia-smi"
    smi.write_text(NVIDIA_SMI)
    smi.chmod(0o755)
    project = folder / "project"
    project.mkdir()
    checkout = make_checkout(folder / "prime-rl")
    env = {
        **environment,
        "PATH": f"{programs}:{environment['PATH']}",
        "HOME": str(folder),
        "PRIME_RL_DIR": str(checkout),
        "STANDIN_REPORT": str(project / "report.json"),
    }
    for name in ("HF_TOKEN", "WANDB_API_KEY", "PRIME_RL_PYTHON", "MEDARC_BACKEND", "PYTHONPATH"):
        env.pop(name, None)
    return Cluster(project, env)


def eventually(holds, seconds=60):
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, "it has not happened in time"
        time.sleep(0.05)
    return found
