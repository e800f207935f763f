"""The use case: one process that owns the run, from the allocation's check to the attempt's end."""

from __future__ import annotations

import os
import shlex
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import record
from .allocation import AllocationError, allocated_gpus
from .checks import CHECKS, FAIL, Check, Subject, read_config
from .child import StoppedError, end_rest, hold_signals, left_behind, pending_stop, send, start, wait
from .environment import is_executable, prime_rl_environment
from .launch import Launch, LaunchError, read_launch
from .log import Log
from .node import Node, look_around
from .ports import Lease, NoPortsError, rewritten, take
from .primerl import address_in_use, ask_prime_rl, trained

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CHECKS_FAILED = 3
CANNOT_START = 127
SIGNALLED = 128

RESUMABLE = ("rl", "sft")

# The first, and again on other ports at most three times.
MOST_LAUNCHES = 4


class ConfigError(Exception):
    """The config that an attempt is to launch with cannot be written."""


@dataclass
class Attempt:
    """How this attempt goes; becomes its line in `attempts.jsonl`."""

    launch: Launch
    number: int = 0
    node: Node | None = None
    gpus: tuple[int, ...] | None = None
    ports: tuple[int, int] | None = None
    started: str = field(default_factory=record.now)
    reason: str = ""
    signals: list[str] = field(default_factory=list)
    failed: list[Check] = field(default_factory=list)

    def beginning(self) -> dict[str, Any]:
        """What is known of this attempt from its start."""
        variables = os.environ
        return {
            "attempt": self.number,
            "job_id": variables.get("SLURM_JOB_ID", ""),
            "restart_count": restart_count(variables),
            "host": self.node.host if self.node else os.uname().nodename,
            "gpus": list(self.gpus or ()),
            "started": self.started,
        }

    def line(self, exit_code: int, log: Log) -> dict[str, Any]:
        """The record of this attempt."""
        return {
            **self.beginning(),
            "ports": list(self.ports or ()),
            "ended": record.now(),
            "exit_code": exit_code,
            "reason": self.reason,
            "signals": self.signals,
            "failed": [log.redact(f"{check.name}: {check.text}") for check in self.failed],
        }


def main(arguments: Sequence[str]) -> int:
    """Run one attempt and return its exit code: prime-rl's, or 3 when it could not be started."""
    hold_signals()
    try:
        (path,) = arguments
        launch = read_launch(Path(path))
    except LaunchError as error:
        Log().say(f"{error}\nhint: {error.hint}")
        return CHECKS_FAILED
    except ValueError:
        Log().say("usage: PYTHON FOLDER LAUNCH_JSON\nhint: the batch script's last line is right")
        return CHECKS_FAILED
    log = Log(os.environ.get(name, "") for name in launch.expected_variables)
    attempt = Attempt(launch)
    try:
        exit_code = run(attempt, log)
    except StoppedError as stopped:
        attempt.reason = "signalled"
        attempt.signals.append(str(stopped))
        exit_code = SIGNALLED + stopped.number
        log.say(f"{stopped} arrived before prime-rl was started: ending")
    try:
        record.append_attempt(launch.folder, attempt.line(exit_code, log))
    except OSError as error:
        log.say(f"cannot record this attempt: {error}")
    return exit_code


def run(attempt: Attempt, log: Log) -> int:
    """Check, and start prime-rl unless something is missing or this is a rehearsal."""
    launch, given = attempt.launch, dict(os.environ)
    restarts = restart_count(given)
    attempt.number = record.claim_attempt(launch.run_dir, restarts)
    job = f"job {given['SLURM_JOB_ID']}" if given.get("SLURM_JOB_ID") else "outside SLURM"
    log.say(f"{launch.name}: {launch.entrypoint}, attempt {attempt.number}, {job}")
    attempt.node = look_around(given)
    introduce(attempt.node, log)

    gpus, gpu_problem = find_gpus(launch, attempt.node)
    attempt.gpus = gpus
    keep(attempt, "started", {**attempt.beginning(), "token": launch.token}, log)
    run_id = record.stable_run_id(launch.folder)
    variables = prime_rl_environment(launch, given, gpus, run_id)
    subject = examine(launch, attempt.node, gpus, gpu_problem, variables)
    found = [check for examine_one in CHECKS for check in examine_one(subject)]
    for check in found:
        log.say(str(check))
    attempt.failed = [check for check in found if check.status == FAIL]
    if attempt.failed:
        return refuse(attempt, log)

    config = subject.config or {}
    if launch.rehearse:
        attempt.reason = "rehearsed"
        log.say("rehearsal: every check passed; the real run would start with")
        log.say(f"  {shlex.join(with_resume(launch, launch.command(), config, restarts > 0))}")
        return 0
    return launch_prime_rl(attempt, config, variables, restarts, log)


def keep(attempt: Attempt, name: str, document: Mapping[str, Any], log: Log) -> None:
    """Write a record of this attempt; the run goes on without it."""
    try:
        record.write_attempt(attempt.launch.run_dir, attempt.number, name, document)
    except OSError as error:
        log.say(f"cannot record how attempt {attempt.number} {name}: {error}")


def restart_count(variables: Mapping[str, str]) -> int:
    """How often SLURM has restarted this job; it does not say so for the first time."""
    text = variables.get("SLURM_RESTART_COUNT", "")
    return int(text) if text.isdigit() else 0


def introduce(node: Node, log: Log) -> None:
    """Say where the job runs and what SLURM and CUDA say about it."""
    again = f", restarted {node.restart_count} time(s)" if node.restart_count else ""
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
) -> Subject:
    """Read the config and ask prime-rl's interpreter: all that the checks look at."""
    config, config_problem = None, ""
    try:
        config = read_config(launch.config_files)
    except ValueError as error:
        config_problem = str(error)
    usable = launch.python is not None and is_executable(launch.python) and launch.working_directory.is_dir()
    prime_rl = ask_prime_rl(launch, variables) if usable else None
    return Subject(launch, node, gpus, gpu_problem, config, config_problem, prime_rl)


def refuse(attempt: Attempt, log: Log) -> int:
    """Say in one line what is missing."""
    attempt.reason = "checks-failed"
    what = "the real run would not start" if attempt.launch.rehearse else "prime-rl is not started"
    texts = (f"{check.name} ({check.text.splitlines()[0]})" for check in attempt.failed)
    log.say(f"{what}; missing: {'; '.join(texts)}")
    return CHECKS_FAILED


def with_resume(
    launch: Launch, command: Sequence[str], config: Mapping[str, Any], again: bool
) -> tuple[str, ...]:
    """The command, with `--resume` when this run has been started before.

    A bare `--resume` passes prime-rl's guard against a used run directory, and starts from the
    beginning where there is no checkpoint yet. A resume that the config or the arguments ask for
    is left as it is.
    """
    own = config.get("resume") is not None or any(
        argument == "--resume" or argument.startswith("--resume.") for argument in launch.arguments
    )
    if again and launch.entrypoint in RESUMABLE and not own:
        return (*command, "--resume")
    return tuple(command)


def launch_prime_rl(
    attempt: Attempt, config: Mapping[str, Any], variables: Mapping[str, str], restarts: int, log: Log
) -> int:
    """Start prime-rl on leased ports; once more on others when a service found its port taken.

    A port of the lease can still be lost between the lease and the service, to a program that asks
    for no lease. Once the trainer has made a step, nothing is started again here.
    """
    launch = attempt.launch
    for count in range(1, MOST_LAUNCHES + 1):
        try:
            lease, path = lease_ports(attempt, config)
        except (NoPortsError, OSError) as error:
            attempt.reason = "failed"
            log.say(f"no ports for this run: {error}")
            return CHECKS_FAILED
        except ConfigError as error:
            attempt.reason = "failed"
            log.say(f"{error}\nhint: see that configs/attempts is a folder, its permissions and quota")
            return CHECKS_FAILED
        if lease is not None:
            log.say(f"ports {lease.first + 1} to {lease.first + lease.size - 1} are this run's own")
        command = with_resume(launch, launch.command(path), config, restarts > 0 or count > 1)
        try:
            code = start_prime_rl(attempt, command, variables, log)
        finally:
            if lease is not None:
                lease.release()
        witness = address_in_use(launch.run_dir) if code and lease and not attempt.signals else None
        if witness is None or count == MOST_LAUNCHES or trained(launch.run_dir):
            return code
        log.say(f"a service found its port taken ({witness}): starting again on other ports")
    raise AssertionError("the last launch returns")


def lease_ports(attempt: Attempt, config: Mapping[str, Any]) -> tuple[Lease | None, Path | None]:
    """Lease ports, and write this attempt's config with them.

    Returns:
        The lease and the config's path; nothing for a run whose ports are left alone.

    Raises:
        NoPortsError: None are free.
        OSError: They cannot be leased.
        ConfigError: The config cannot be written.
    """
    launch = attempt.launch
    if launch.ports is None:
        return None, None
    lease = take(int(launch.ports["size"]), launch.ports["above"])
    attempt.ports = (lease.first, lease.size)
    document = rewritten(config, launch.ports["slots"], lease)
    try:
        path = record.write_attempt(launch.run_dir, attempt.number, launch.entrypoint, document)
    except OSError as error:
        lease.release()
        raise ConfigError(f"cannot write the config of this attempt: {error}") from error
    return lease, path


def start_prime_rl(attempt: Attempt, command: Sequence[str], variables: Mapping[str, str], log: Log) -> int:
    """Start prime-rl, pass signals on, wait for its end, and end what it leaves behind."""
    launch = attempt.launch
    launched = {
        "command": list(command),
        "working_directory": str(launch.working_directory),
        "gpus": list(attempt.gpus or ()),
        "environment": {
            "CUDA_VISIBLE_DEVICES": variables.get("CUDA_VISIBLE_DEVICES", ""),
            "PRL_RUN_ID": variables["PRL_RUN_ID"],
        },
    }
    keep(attempt, "launched", launched, log)
    early = pending_stop()
    if early is not None:
        raise StoppedError(early)
    log.say(f"starting {shlex.join(command)}")
    began = time.monotonic()
    try:
        process = start(command, variables, launch.working_directory)
    except OSError as error:
        attempt.reason = "failed"
        log.say(f"prime-rl cannot be started: {error}")
        return CANNOT_START

    def pass_on(number: int) -> None:
        name = signal.Signals(number).name
        attempt.signals.append(name)
        send(process, number)
        log.say(f"{name} passed on to prime-rl")
        try:
            record.append_signal(launch.run_dir, attempt.number, name)
        except OSError as error:
            log.say(f"cannot record {name}: {error}")

    code = wait(process, pass_on)
    if code is None:
        raise AssertionError("an unbounded wait came back without an exit code")
    seconds = time.monotonic() - began
    if code < 0:
        name = signal.Signals(-code).name
        log.say(f"prime-rl was killed by {name} after {seconds:.1f} s")
        code = SIGNALLED - code
    else:
        log.say(f"prime-rl ended with exit code {code} after {seconds:.1f} s")
    rest = left_behind(process)
    if rest:
        log.say(f"ending {len(rest)} process(es) that prime-rl left behind")
        end_rest(process, pass_on)
    attempt.reason = "finished" if code == 0 else "signalled" if attempt.signals else "failed"
    return code
