"""What only a rehearsal checks: all that a launch finds out by itself a moment later, up to that moment.

Whatever needs prime-rl's interpreter is asked of one process there (`probe.py`). Nothing outside `configs/`
is touched, and nothing that a later launch goes by.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import hub, needs, record
from .checks import FAIL, OK, SKIP, STAND_IN_GPUS, WARN, Check
from .child import ask
from .config import attempt_config, split_server
from .environment import is_folder
from .memory import MemoryShareError, gpu_mib, share_for
from .ports import NoPortsError, is_free, take
from .probe import PARTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from .checks import Subject
    from .ports import Lease

SECONDS = 200.0
"""For all that is asked of prime-rl's interpreter; each part has less (`probe.PARTS`)."""

LAST_SECONDS = 15.0
"""Before the allocation's end, in which a rehearsal says what it found."""

SECONDS_VARIABLE = "MEDARC_REHEARSAL_SECONDS"

LAST_LINES = 5


@dataclass(frozen=True)
class Stage:
    """Where a rehearsal plays.

    Attributes:
        subject: What the other checks looked at.
        variables: prime-rl's environment.
        attempt: The attempt's number.
        meanwhile: Called every second while something is asked.
    """

    subject: Subject
    variables: Mapping[str, str]
    attempt: int
    meanwhile: Callable[[], object]


def rehearse(stage: Stage) -> Iterator[Check]:
    """Make the checks, one after the other."""
    yield check_shared_folders(stage)
    lease, check = lease_ports(stage)
    try:
        if check is not None:
            yield check
        yield from check_in_prime_rl(stage, lease)
    finally:
        if lease is not None:
            lease.release()


def check_shared_folders(stage: Stage) -> Check:
    """The hub's cache can be written, and is the one that the submitting host has.

    The host leaves a mark in its own. That the run directory is shared needs none: this job reads its plan
    there.
    """
    name, mark = "hub cache", stage.subject.launch.mark
    home = hub.hub_home(stage.variables)
    host = str(mark.get("host") or "the submitting host")
    above = next((folder for folder in (home, *home.parents) if folder.exists()), home)
    if not os.access(above, os.W_OK | os.X_OK):
        hint = "--hf-cache-dir names another; what is in it already can be used"
        return Check(name, WARN, f"{home} cannot be written on this node", hint)
    file = str(mark.get("file") or "")
    if not file:
        return Check(name, OK, f"{home} can be written; {host} left no mark to tell whether it is shared")
    if not (home / Path(file).name).exists():
        hint = "what was fetched there is not here, and each node fetches for itself: --hf-cache-dir DIR"
        return Check(name, WARN, f"{home} is not the folder that {host} has as {Path(file).parent}", hint)
    return Check(name, OK, f"{home} can be written, and is shared with {host}")


def lease_ports(stage: Stage) -> tuple[Lease | None, Check | None]:
    """Lease ports as a launch does, or look at the one that people address."""
    launch = stage.subject.launch
    if launch.ports is not None:
        try:
            lease = take(int(launch.ports["size"]), launch.ports["above"])
        except (NoPortsError, OSError) as error:
            return None, Check("ports", FAIL, str(error), "another node, or wait until others have ended")
        first, last = lease.first + 1, lease.first + lease.size - 1
        return lease, Check("ports", OK, f"{first} to {last} are free, and would be this run's own")
    path = launch.fields.rehearsal.get("server_port")
    ports = needs.values(stage.subject.config or {}, str(path)) if path else []
    if not ports or not isinstance(ports[0], int):
        return None, None
    if is_free(ports[0]):
        return None, Check("ports", OK, f"{ports[0]}, the server's, is free")
    return None, Check("ports", FAIL, f"{ports[0]}, the server's, is taken on this node", f"set {path}")


def check_in_prime_rl(stage: Stage, lease: Lease | None) -> Iterator[Check]:
    """Ask prime-rl's interpreter."""
    launch, said = stage.subject.launch, stage.subject.prime_rl
    if said is None or said.problem:
        names = ", ".join(part for part, _, _ in PARTS)
        yield Check("in prime-rl", SKIP, f"not asked, without its interpreter: {names}")
        return
    question, skipped = make_question(stage, lease)
    for part, why in skipped.items():
        yield Check(part, SKIP, why)
    folder = launch.working_directory
    command = (str(launch.python), str(Path(__file__).parent), "probe", json.dumps(question))
    seconds = _patience(stage.variables)
    try:
        answer = ask(
            command,
            stage.variables,
            folder if is_folder(folder) else Path("/"),
            seconds,
            meanwhile=stage.meanwhile,
        )
    except OSError as error:
        yield Check("prime-rl", FAIL, f"{launch.python} cannot be started: {error}")
        return
    how = f"gave up after {seconds:g} s" if answer.code is None else f"ended with exit code {answer.code}"
    yield from read_answer(question["parts"], str(question["mark"]), answer.output, how)


def _patience(variables: Mapping[str, str]) -> float:
    """Seconds to wait: what is left of the allocation at most, with time to say what was found."""
    try:
        seconds = float(variables.get(SECONDS_VARIABLE) or SECONDS)
    except ValueError:
        seconds = SECONDS
    # https://slurm.schedmd.com/sbatch.html#OPT_SLURM_JOB_END_TIME
    end = variables.get("SLURM_JOB_END_TIME", "")
    if end.isascii() and end.isdigit():
        seconds = min(seconds, max(float(end) - time.time() - LAST_SECONDS, LAST_SECONDS))
    return seconds


def read_answer(parts: Sequence[str], mark: str, output: str, how: str) -> Iterator[Check]:
    """Turn what the probe printed into checks.

    Args:
        parts: What was asked.
        mark: The word that its own lines begin with.
        output: All that was printed.
        how: How the probe ended, for a part that it did not end.
    """
    begun: list[str] = []
    found: dict[str, list[Any]] = {}
    noise = []
    for line in output.splitlines():
        if not line.startswith(f"{mark} "):
            noise.append(line)
            continue
        said = json.loads(line[len(mark) + 1 :])
        if said["kind"] == "begin":
            begun.append(said["part"])
        elif said["kind"] == "found":
            found[said["part"]] = said["findings"]
    broke = next((part for part in begun if part not in found), None)
    for part in [*begun, *(part for part in parts if part not in begun)]:
        if part in found:
            for status, *words in found[part]:
                yield Check(part, status, *words)
        elif part == broke:
            last = "\n".join([line for line in noise if line.strip()][-LAST_LINES:])
            yield Check(part, FAIL, f"prime-rl's interpreter {how} here" + (f":\n{last}" if last else ""))
        else:
            stopper = broke or (begun[-1] if begun else "the start")
            yield Check(part, FAIL if not begun else SKIP, f"not reached: {stopper} ended the interpreter")


def make_question(stage: Stage, lease: Lease | None) -> tuple[dict[str, Any], dict[str, str]]:
    """Put together what is asked, and say of each part that is not why."""
    wanted: dict[str, Mapping[str, Any]] = {}
    skipped: dict[str, str] = {}
    for part, wish in _wishes(stage, lease):
        if isinstance(wish, str):
            skipped[part] = wish
        else:
            wanted[part] = wish
    question = {name: value for table in wanted.values() for name, value in table.items()}
    return {**question, "mark": f"medarc-{os.urandom(8).hex()}", "parts": list(wanted)}, skipped


def _wishes(stage: Stage, lease: Lease | None) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
    """What there is to be known for each part; or why nothing is to be asked."""
    subject, launch = stage.subject, stage.subject.launch
    config, fields = subject.config or {}, launch.fields.rehearsal
    variables = {**needs.wandb_settings(launch.working_directory, stage.variables), **stage.variables}
    yield "model and data", needs.files(config, fields) or "the config names none"
    yield "W&B", needs.without_wandb(config, fields, variables) or {}
    configs, problem = _write_configs(stage, lease)
    yield "config by prime-rl", problem or {"configs": configs}
    stand_in = subject.node.variables.get(STAND_IN_GPUS) == "1"
    gpus = {"gpus": launch.gpus.count, "stand_in": stand_in}
    yield "GPUs in torch", gpus if launch.gpus.count else "the run uses no GPU"
    attention = needs.names(config, [fields["attention"]] if fields.get("attention") else [])
    yield "attention", {"attention": attention[0]} if attention else "the config names none"
    environments = {"environments": list(launch.environments)}
    yield "imports", environments if launch.environments else "the config names no environment"
    yield "vLLM", {} if launch.gpus.inference else "the run starts none"


def _write_configs(stage: Stage, lease: Lease | None) -> tuple[list[Any], str]:
    """Write the config of this attempt as a launch would, and say which class reads which arguments."""
    launch, config = stage.subject.launch, stage.subject.config
    classes = launch.fields.rehearsal.get("classes", {})
    if config is None or launch.entrypoint not in classes:
        return [], "there is no config to give it"
    if launch.entrypoint == "inference":
        return [(classes["inference"], list(launch.command()[3:]))], ""
    share = None
    if launch.memory is not None:
        try:
            share = share_for(launch.memory, gpu_mib(stage.subject.node.driver.devices, stage.subject.gpus))
        except MemoryShareError as error:
            return [], f"there is no share of the GPU to give vLLM: {error}"
    attempt = attempt_config(launch, config, lease, None, share)
    configs = []
    try:
        if launch.gpus.shared and isinstance(attempt.get("inference"), dict):
            server, attempt = split_server(attempt)
            path = record.write_attempt(launch.run_dir, stage.attempt, "inference", server)
            configs.append((classes["inference"], ["@", str(path)]))
        path = record.write_attempt(launch.run_dir, stage.attempt, launch.entrypoint, attempt)
    except OSError as error:
        return [], f"the config of this attempt cannot be written: {error}"
    return [*configs, (classes[launch.entrypoint], list(launch.command(path)[3:]))], ""
