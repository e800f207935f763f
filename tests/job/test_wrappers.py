"""Programs that come first on prime-rl's PATH, see to one thing, and become the real ones."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from medarc_plugin.job.wrappers import prompt_router

ROUTER = """#!/bin/sh
case "$1" in
--help) echo "usage: vllm-router [--port PORT] {options}"; exit 0 ;;
esac
printf '%s ' "$@"
printf '%s' "$RUST_LOG" >&2
"""
INTERVAL = "--worker-startup-check-interval"


def install(folder: Path, options: str = "") -> None:
    """Put a router that knows some options into a folder, which is there."""
    program = folder / "vllm-router"
    program.write_text(ROUTER.format(options=options))
    program.chmod(0o755)


@pytest.fixture
def route(tmp_path: Path) -> Any:
    """Starts a router of some options by its name, as prime-rl does; gives what it was started with."""

    def route(*arguments: str, options: str = f"[{INTERVAL} SECONDS]") -> list[str]:
        binaries = tmp_path / "bin of prime-rl"
        binaries.mkdir()
        install(binaries, options)
        variables = prompt_router({"PATH": f"{binaries}:{os.defpath}"}, tmp_path / "first")
        command = ["/usr/bin/env", "vllm-router", *arguments]
        return subprocess.run(
            command, env=variables, capture_output=True, text=True, check=True
        ).stdout.split()

    return route


def test_the_router_looks_for_vllm_every_second(route: Any) -> None:
    assert route("--request-id-headers", "x-session-id", "--port", "8000") == [
        *("--request-id-headers", "x-session-id", "--port", "8000"),
        *(INTERVAL, "1"),
    ]


@pytest.mark.parametrize("given", [(INTERVAL, "5"), (f"{INTERVAL}=5",)])
def test_a_router_that_was_told_how_often_is_left_alone(route: Any, given: tuple[str, ...]) -> None:
    assert route(*given, "--port", "8000") == [*given, "--port", "8000"]


def test_a_router_that_knows_no_such_option_is_started_as_it_is(route: Any) -> None:
    assert route("--port", "8000", options="") == ["--port", "8000"]


@pytest.mark.parametrize(
    ("variables", "level"),
    [
        ({}, "vllm_router_rs=info,vllm_router_rs::policies=warn"),
        ({"RUST_LOG": "debug"}, "debug"),
        ({"RUST_LOG": ""}, ""),
    ],
)
def test_the_router_does_not_log_every_request_unless_it_is_asked_to(
    tmp_path: Path, variables: dict[str, str], level: str
) -> None:
    install(tmp_path)
    found = prompt_router({"PATH": f"{tmp_path}:{os.defpath}", **variables}, tmp_path / "first")

    command = ["/usr/bin/env", "vllm-router"]
    done = subprocess.run(command, env=found, capture_output=True, text=True, check=True)

    assert done.stderr == level


@pytest.mark.network
def test_the_real_router_finds_vllm_at_once_and_logs_no_request() -> None:
    checkout = Path(__file__).parents[2]
    uv = ["uv", "run", "--quiet", "--no-project", "--with-editable", ".", "--with", "vllm-router==0.1.17"]
    command = [*uv, "python", "benchmarks/router.py", "--late", "4"]

    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True)

    _, alone, ours, logged, less = (
        float(cell.strip("+ sB\n")) for cell in done.stdout.splitlines()[-1].split("|")
    )
    assert alone > ours
    assert logged > 0
    assert less == 0


def test_nothing_is_written_where_there_is_no_router(tmp_path: Path) -> None:
    variables = {"PATH": str(tmp_path)}

    assert prompt_router(variables, tmp_path / "first") == variables
    assert not (tmp_path / "first").exists()


def test_prime_rl_finds_the_router_that_looks_often_and_its_own_programs_behind_it(
    run: Any, report: Any
) -> None:
    binaries = run.checkout / ".venv" / "bin"
    install(binaries)

    finished = run.attempt()

    assert finished.code == 0, finished.log
    first, second, *_ = report()["environment"]["PATH"].split(os.pathsep)
    assert (Path(first).name, second) == ("programs", str(binaries))
    assert not Path(first).exists()  # gone with the run's caches


def test_a_run_starts_all_the_same_where_the_router_cannot_be_told(run: Any) -> None:
    binaries = run.checkout / ".venv" / "bin"
    install(binaries)
    code = run.folder / "job" / "wrappers.py"
    code.write_text(
        code.read_text().replace("folder.mkdir(parents=True, exist_ok=True)", 'raise OSError("full")')
    )

    finished = run.attempt()

    assert finished.code == 0, finished.log
    assert finished.lines("every 30 s") == ["vLLM's router will look for vLLM every 30 s only: full"]
