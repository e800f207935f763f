"""What a job finds where it starts: its node, its GPUs, and all else that the checks look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .allocation import AllocationError, allocated_gpus
from .attempt import times
from .checks import Subject, read_config
from .environment import is_executable, is_folder
from .primerl import ask_prime_rl

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .launch import Launch
    from .log import Log
    from .node import Node


def introduce(node: Node, log: Log) -> None:
    """Say where the job runs and what SLURM and CUDA say about it."""
    again = f", restarted {times(node.restart_count)}" if node.restart_count else ""
    log.say(f"node {node.host}{again}")
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS"):
        if name in node.variables:
            log.say(f"{name}={node.variables[name]}")
    if node.variables.get("PYTHONHOME"):
        log.say("PYTHONHOME is set: not passed on, prime-rl's interpreter has its own")
    if node.variables.get("PYTHONPATH"):
        log.say(f"PYTHONPATH={node.variables['PYTHONPATH']} is passed on to prime-rl")


def find_gpus(launch: Launch, node: Node) -> tuple[tuple[int, ...] | None, tuple[str, str]]:
    """The allocated GPUs, or why they cannot be used."""
    try:
        ids = allocated_gpus(node.variables, launch.gpus.count, node.driver.devices)
    except AllocationError as error:
        return None, (str(error), error.hint)
    return ids, ("", "")


def examine(
    launch: Launch,
    node: Node,
    gpus: tuple[int, ...] | None,
    gpu_problem: tuple[str, str],
    variables: Mapping[str, str],
    meanwhile: Callable[[], object],
) -> Subject:
    """Read the config and ask prime-rl's interpreter: all that the checks look at."""
    config, config_problem = None, ""
    try:
        config = read_config(launch.config_files)
    except ValueError as error:
        config_problem = str(error)
    usable = (
        launch.python is not None and is_executable(launch.python) and is_folder(launch.working_directory)
    )
    prime_rl = ask_prime_rl(launch, variables, meanwhile) if usable else None
    return Subject(launch, node, gpus, gpu_problem, config, config_problem, prime_rl)
