"""One real SLURM for the whole ring, and the helpers that every test of the ring uses."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from medarc_plugin.errors import SandboxError
from medarc_plugin.sandbox import Sandbox, SandboxSpec
from medarc_plugin.sandbox.controller import client_environment
from medarc_plugin.sandbox.programs import locate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ENDED = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "TIMEOUT",
    }
)


@pytest.fixture(scope="session")
def slurm_programs() -> None:
    """Skip where SLURM or munge is missing; ask for `sandbox` to get a running one."""
    try:
        locate()
    except SandboxError as error:
        pytest.skip(f"{error.message} ({error.hint})".replace("\n", " "))


@pytest.fixture(autouse=True)
def _skip_without_slurm(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("slurm"):
        request.getfixturevalue("slurm_programs")


@pytest.fixture(scope="session")
def sandbox(slurm_programs: None) -> Iterator[Sandbox]:
    """One node, 64 CPUs, 8 stand-in GPUs of type h100; the same for every test of the session."""
    folder = Path(tempfile.mkdtemp(prefix="medarc-"))
    sandbox = Sandbox(folder / "slurm")
    sandbox.up(SandboxSpec(cpus=64, gpus=8, gpu_type="h100", gpu_kind="standin"))
    yield sandbox
    sandbox.down()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def slurm_env(sandbox: Sandbox) -> dict[str, str]:
    """The environment in which SLURM's commands speak to the session's sandbox."""
    return client_environment(sandbox.environment()["SLURM_CONF"])


@pytest.fixture(scope="session")
def job_fields(slurm_env: dict[str, str]) -> Callable[[str | int], dict[str, str]]:
    """Ask the session's sandbox about a job: `job_fields(17)["JobState"]`."""

    def ask(job_id: str | int) -> dict[str, str]:
        return show_job(job_id, slurm_env)

    return ask


@pytest.fixture(scope="session")
def wait_for_job(slurm_env: dict[str, str]) -> Callable[..., dict[str, str]]:
    """Wait for a job's end: `wait_for_job(17, seconds=60)["JobState"]`."""

    def wait(job_id: str | int, seconds: float = 60) -> dict[str, str]:
        return wait_for_end(job_id, slurm_env, seconds)

    return wait


@pytest.fixture(name="wait_for_end_of")
def _wait_for_end_of() -> Callable[..., dict[str, str]]:
    """The same for a sandbox of the test's own: `wait_for_end_of(17, environment)`."""
    return wait_for_end


def show_job(job_id: str | int, environment: dict[str, str]) -> dict[str, str]:
    done = subprocess.run(
        ["scontrol", "-o", "show", "job", str(job_id)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return dict(re.findall(r"(\S+?)=(.*?)(?=\s+\S+?=|\s*$)", done.stdout))


def wait_for_end(job_id: str | int, environment: dict[str, str], seconds: float = 60) -> dict[str, str]:
    deadline = time.monotonic() + seconds
    while True:
        fields = show_job(job_id, environment)
        if fields["JobState"] in ENDED:
            return fields
        if time.monotonic() > deadline:
            raise AssertionError(f"job {job_id} has not ended after {seconds} s: {fields}")
        time.sleep(0.05)
