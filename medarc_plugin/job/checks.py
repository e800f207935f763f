"""The checks of the allocation, each a small function, and the order they are shown in.

All of them run, and all are shown: a job that waited in the queue for hours should say everything
that is wrong at once.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .config import asked_to_resume
from .environment import MEND, is_executable, is_folder
from .memory import MIB, MemoryShareError, gpu_mib, share_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from .allocation import Device
    from .launch import Launch
    from .node import Node
    from .primerl import PrimeRl

OK, FAIL, WARN, SKIP = "ok", "FAIL", "warn", "skip"

# Set where GPUs are made up on purpose, as in a SLURM for trying things out.
STAND_IN_GPUS = "MEDARC_STANDIN_GPUS"

# What prime-rl gives each of its processes, unless the config's env_vars say otherwise
# (`DEFAULT_COMMON_ENV_VARS` in its `utils/process.py`).
PRIME_RL_THREADS = "1"

# The tables of a config that set a component's variables, and what is called by their names.
COMPONENTS = {
    "rl": ("trainer", "orchestrator", "inference"),
    "sft": ("trainer", "inference"),
    "inference": ("inference",),
}

PRIME_RL_HINT = "set PRIME_RL_DIR or give --prime-rl-dir, and submit again"


@dataclass(frozen=True)
class Check:
    """What one check found.

    Attributes:
        name: What was looked at.
        status: `ok`; `FAIL`, which makes a launch impossible; `warn`, which does not; or `skip`.
        text: What was found.
        hint: The way out, for a failure.
    """

    name: str
    status: str
    text: str
    hint: str = ""

    def __str__(self) -> str:
        mark = f"[{self.status.center(4)}]"
        line = f"{mark} {self.name}: " + self.text.replace("\n", "\n         ")
        return f"{line}\n         hint: {self.hint}" if self.hint else line


@dataclass(frozen=True)
class Subject:
    """What the checks look at.

    Attributes:
        launch: The plan.
        node: The facts of the allocation.
        gpus: Ids of the allocated GPUs; `None` when they cannot be used.
        gpu_problem: Why they cannot be used, and the hint.
        config: The config as prime-rl will read it, merged over all files; `None` if it cannot.
        config_problem: Why it cannot be read.
        prime_rl: What prime-rl's interpreter said; `None` when it was not asked.
    """

    launch: Launch
    node: Node
    gpus: tuple[int, ...] | None
    gpu_problem: tuple[str, str]
    config: Mapping[str, Any] | None
    config_problem: str
    prime_rl: PrimeRl | None


def check_gpus(subject: Subject) -> Iterator[Check]:
    """As many GPUs as wanted, all of them this job's."""
    wanted = subject.launch.gpus
    if subject.gpus is None:
        yield Check("GPUs", FAIL, *subject.gpu_problem)
        return
    names = {device.index: device for device in subject.node.driver.devices or ()}
    known = [_words(names[i]) for i in subject.gpus if i in names]
    sliced = any(names[i].slices for i in subject.gpus if i in names)
    if sliced and max(wanted.trainer, wanted.inference) > 1:
        yield Check(
            "GPUs",
            FAIL,
            f"{wanted.trainer} wanted for the trainer and {wanted.inference} for vLLM, but these are slices "
            "of GPUs (MIG), of which a program can use one alone",
            "ask for whole GPUs, or for one slice for each component",
        )
        return
    ids = ",".join(map(str, subject.gpus)) or "none"
    kinds = "; ".join(dict.fromkeys(known))
    text = f"{len(subject.gpus)} of {wanted.count} wanted: {ids}"
    yield Check("GPUs", OK, f"{text}: {kinds}" if kinds else text)


def _words(device: Device) -> str:
    if device.slices:
        return f"{device.name}, slice {device.slices[0].profile}"
    return f"{device.name} ({device.memory})"


def check_shared_gpu(subject: Subject) -> Iterator[Check]:
    """Trainer and vLLM fit on the GPU that they share."""
    memory = subject.launch.memory
    if memory is None or subject.gpus is None:
        return
    mib = gpu_mib(subject.node.driver.devices, subject.gpus)
    try:
        share = share_for(memory, mib)
    except MemoryShareError as error:
        yield Check("GPU memory", FAIL, str(error), error.hint)
        return
    source = ", as the config says" if memory.get("fixed") else ""
    text = f"vLLM's share is {share:g}{source}"
    if mib is None:
        text = f"the GPU's size is not known, so nobody looked whether trainer and vLLM fit; {text}"
        yield Check("GPU memory", SKIP, text)
    else:
        yield Check("GPU memory", OK, f"a GPU of {mib / 1024:.1f} GiB for trainer and vLLM; {text}")


def check_driver(subject: Subject) -> Iterator[Check]:
    """An NVIDIA driver that answers."""
    driver = subject.node.driver
    if driver.devices is not None:
        yield Check("NVIDIA driver", OK, f"nvidia-smi lists {len(driver.devices)} GPU(s)")
    elif subject.launch.gpus.count == 0:
        yield Check("NVIDIA driver", SKIP, "the run uses no GPU")
    elif _stand_in_gpus(subject):
        yield Check("NVIDIA driver", SKIP, f"{driver.problem} ({STAND_IN_GPUS} is set)")
    else:
        yield Check(
            "NVIDIA driver",
            FAIL,
            driver.problem,
            "the run needs a node with NVIDIA GPUs: another partition or --constraint",
        )


def _stand_in_gpus(subject: Subject) -> bool:
    return subject.node.variables.get(STAND_IN_GPUS) == "1"


def check_cpus(subject: Subject) -> Iterator[Check]:
    """At least the CPUs that were planned with; fewer only make the run slow."""
    available, wanted = _cpus(subject.node), subject.launch.cpus
    text = f"{available} of {wanted} wanted" if wanted else f"{available}, none in particular wanted"
    if available < wanted:
        hint = "the run starts, and may wait for data: ask for more with --cpus-per-gpu"
        yield Check("CPUs", WARN, text, hint)
    else:
        yield Check("CPUs", OK, text)


def _cpus(node: Node) -> int:
    return min(node.affinity, node.cpus or node.affinity)


def check_threads(subject: Subject) -> Iterator[Check]:
    """OMP_NUM_THREADS as each component will have it, against the CPUs of the allocation."""
    available = _cpus(subject.node)
    held = _threads(subject.launch.entrypoint, subject.config or {})
    text = ", ".join(f"{value} for {name}" for name, value in held.items())
    if len(set(held.values())) == 1:
        text = f"{next(iter(held.values()))} for each of prime-rl's processes"
    given = subject.node.variables.get("OMP_NUM_THREADS")
    if given is not None and given not in held.values():
        text += f" (the job's own {given} does not reach them: prime-rl sets it anew)"
    numbers = [int(value) for value in held.values() if value.isdigit()]
    if max(numbers, default=0) > available:
        hint = "lower OMP_NUM_THREADS in the config's env_vars, or ask for more CPUs with --cpus-per-gpu"
        yield Check("OMP_NUM_THREADS", WARN, f"{text}; the job has {available} CPU(s)", hint)
    else:
        yield Check("OMP_NUM_THREADS", OK, text)


def _threads(entrypoint: str, config: Mapping[str, Any]) -> dict[str, str]:
    """OMP_NUM_THREADS by component: prime-rl's own, the config's for all, the config's for one."""
    held = {}
    for name in COMPONENTS.get(entrypoint, ()):
        own = config.get(name)
        if name == "inference" and entrypoint != "inference" and not isinstance(own, dict):
            continue
        tables = [config, own if isinstance(own, dict) else {}]
        said = [table["env_vars"] for table in tables if isinstance(table.get("env_vars"), dict)]
        found = [str(each["OMP_NUM_THREADS"]) for each in said if "OMP_NUM_THREADS" in each]
        held[name] = found[-1] if found else PRIME_RL_THREADS
    return held


def check_memory(subject: Subject) -> Iterator[Check]:
    """At least the memory that was asked for."""
    wanted, granted = subject.launch.memory_mib, subject.node.memory_mib
    if granted is None:
        yield Check("memory", OK, "not limited")
    elif wanted is not None and granted < wanted:
        hint = "the run may be killed for memory: see --mem, and how the script was submitted"
        yield Check("memory", WARN, f"{granted} of {wanted} MiB wanted", hint)
    else:
        yield Check("memory", OK, f"{granted} MiB")


def check_disk(subject: Subject) -> Iterator[Check]:
    """As much free disk as was asked for, where the run and where its temporary files go."""
    wanted = subject.launch.min_free_disk_mib
    variables = subject.node.variables
    temporary = next((variables[name] for name in ("TMPDIR", "TEMP", "TMP") if variables.get(name)), "/tmp")  # noqa: S108
    for name, folder in (("run directory", str(subject.launch.run_dir)), ("temporary directory", temporary)):
        try:
            system = os.statvfs(folder)
        except OSError as error:
            status = WARN if wanted is None else FAIL
            yield Check("free disk", status, f"cannot look at the {name}, {folder}: {error.strerror}")
            continue
        # What an ordinary user may still write; a quota may allow less.
        free = system.f_bavail * system.f_frsize // MIB
        text = f"{free / 1024:.1f} GiB in the {name}, {folder}"
        if wanted is not None and free < wanted:
            hint = "make room there, name another node or directory, or lower --min-free-disk"
            yield Check("free disk", FAIL, f"{text}; {wanted / 1024:.1f} GiB wanted", hint)
        else:
            yield Check("free disk", OK, text)


def check_run_directory(subject: Subject) -> Iterator[Check]:
    """The run directory can be written, tried in `configs/`: prime-rl wants the rest untouched."""
    run_dir = subject.launch.run_dir
    trial = subject.launch.folder / f".trial-{os.getpid()}"
    try:
        trial.touch()
        trial.unlink()
    except OSError as error:
        hint = "see its permissions and quota, and that this node has its file system"
        yield Check("run directory", FAIL, f"{run_dir}: {error.strerror}", hint)
        return
    if not os.access(run_dir, os.W_OK | os.X_OK):
        hint = "see its permissions"
        yield Check("run directory", FAIL, f"{run_dir} cannot be written", hint)
    else:
        yield Check("run directory", OK, str(run_dir))


def check_working_directory(subject: Subject) -> Iterator[Check]:
    """prime-rl can be started where the run was submitted from."""
    folder = subject.launch.working_directory
    if is_folder(folder):
        yield Check("working directory", OK, str(folder))
    else:
        hint = "submit from a directory on a file system that the nodes share"
        yield Check("working directory", FAIL, f"{folder} is no directory on this node", hint)


def check_config(subject: Subject) -> Iterator[Check]:
    """The config can be read, and does not delete the directory that it lies in."""
    files = ", ".join(map(str, subject.launch.config_files)) or "none: arguments alone"
    clean = subject.launch.fields.clean
    if subject.config is None:
        yield Check("config", FAIL, subject.config_problem, "submit the run again")
    elif subject.config.get(clean) is True and asked_to_resume(subject.config, subject.launch.fields) is None:
        yield Check(
            "config",
            FAIL,
            f"{clean} = true would delete this run directory, with this job's files and log",
            f"take `{clean}` out of the config, and submit again with --clean",
        )
    else:
        yield Check("config", OK, files)
    if not subject.launch.checked:
        yield Check("validation", SKIP, "prime-rl has not seen this config yet: it may refuse it")


def check_prime_rl(subject: Subject) -> Iterator[Check]:
    """prime-rl's interpreter runs, and finds prime-rl."""
    launch, said = subject.launch, subject.prime_rl
    if launch.python is None:
        yield Check("prime-rl", FAIL, "none was found at submission", PRIME_RL_HINT)
    elif not is_executable(launch.python):
        what = "is not there" if not launch.python.exists() else "cannot be run"
        hint = "it must lie on a file system that the nodes share; " + PRIME_RL_HINT
        yield Check("prime-rl", FAIL, f"its interpreter {launch.python} {what}", hint)
    elif said is None:
        yield Check("prime-rl", SKIP, "not asked: there is no working directory to ask from")
    elif said.problem:
        hint = f"see that the environment is whole: `{MEND}` in prime-rl's checkout"
        if said.killed:
            hint = "submit again, with more memory (--mem) when it happens again"
        yield Check("prime-rl", FAIL, said.problem, hint)
    elif not said.module:
        hint = "this is another environment, or not a whole one; " + PRIME_RL_HINT
        yield Check("prime-rl", FAIL, f"{launch.python} finds no {launch.module}", hint)
    else:
        yield Check("prime-rl", OK, f"{launch.module} by {launch.python} (Python {said.version})")


def check_environments(subject: Subject) -> Iterator[Check]:
    """prime-rl's interpreter finds the environments that the config names."""
    names = subject.launch.environments
    if not names:
        return
    found = subject.prime_rl.environments if subject.prime_rl else None
    if found is None:
        yield Check("environments", SKIP, f"not asked, without prime-rl: {', '.join(names)}")
        return
    missing = [name for name, there in found.items() if not there]
    if missing:
        yield Check(
            "environments",
            FAIL,
            f"prime-rl's interpreter finds no {', '.join(missing)}",
            f"`{MEND}` in prime-rl's checkout installs those it ships; another one: "
            f"`uv pip install --no-deps --python {subject.launch.python} FOLDER`",
        )
    else:
        yield Check("environments", OK, ", ".join(found))


def check_variables(subject: Subject) -> Iterator[Check]:
    """The variables that the submission promised are there; their values are never shown."""
    promised = subject.launch.expected_variables
    if not promised:
        return
    missing = [name for name in promised if not subject.node.variables.get(name)]
    if missing:
        hint = "a job submitted by hand takes them from its shell: export them, then sbatch"
        yield Check("variables", WARN, f"not passed to the job: {', '.join(missing)}", hint)
    else:
        yield Check("variables", OK, ", ".join(promised))


CHECKS: tuple[Callable[[Subject], Iterator[Check]], ...] = (
    check_gpus,
    check_driver,
    check_shared_gpu,
    check_cpus,
    check_threads,
    check_memory,
    check_disk,
    check_run_directory,
    check_working_directory,
    check_config,
    check_prime_rl,
    check_environments,
    check_variables,
)


def read_config(files: tuple[Path, ...]) -> dict[str, Any]:
    """Read config files; of a block that two of them have, the later one's wins.

    Raises:
        ValueError: One cannot be read, and why.
    """
    merged: dict[str, Any] = {}
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
            document = _parse(text, path)
        except OSError as error:
            raise ValueError(f"cannot read {path}: {error.strerror}") from error
        except ValueError as error:
            raise ValueError(f"{path} cannot be parsed: {error}") from error
        if not isinstance(document, dict):
            raise ValueError(f"{path} holds no table")  # noqa: TRY004 - one kind for the caller
        merged.update(document)
    return merged


def _parse(text: str, path: Path) -> object:
    if path.suffix != ".toml":
        return json.loads(text)
    try:
        import tomllib
    except ImportError:
        return {}
    return tomllib.loads(text)
