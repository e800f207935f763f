"""The launch as it was planned: `launch.json`, read strictly."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = 2


class LaunchError(Exception):
    """`launch.json` cannot be used; carries what to do about it.

    Args:
        message: What is wrong, with the file's path.
        hint: The way out.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Gpus:
    """GPUs that the plan asked for.

    Attributes:
        count: GPUs of the allocation.
        shared: Trainer and vLLM use the same GPU.
        trainer: GPUs of the trainer.
        inference: GPUs of vLLM.
    """

    count: int
    shared: bool
    trainer: int
    inference: int


@dataclass(frozen=True)
class Survive:
    """How the run goes on after an end that is not its own.

    Attributes:
        requeue: Give the job back to the queue at a time limit, a preemption, a failure after progress.
        max_requeues: How often at most it is started again.
        signal_seconds: How long before its end SLURM warns the job.
        grace_seconds: Between SIGTERM and SIGKILL.
        beat_seconds: Between two heartbeats.
    """

    requeue: bool
    max_requeues: int
    signal_seconds: int
    grace_seconds: float
    beat_seconds: float


@dataclass(frozen=True)
class CacheWishes:
    """What was said about caches.

    Attributes:
        warm: Seed compile caches from the user's warm copy, and give back to it.
        most_mib: What all warm copies may take together, in MiB.
        kept: Variables that were set for this run on purpose.
    """

    warm: bool
    most_mib: int
    kept: tuple[str, ...]


@dataclass(frozen=True)
class Fields:
    """What is to be known of the fields and files of the prime-rl at hand.

    Attributes:
        shape: Name of its shape: how it words things is in `formats`.
        clean: The switch that deletes what an earlier run left.
        resume_paths: Fields that say where the run goes on, the first of them for prime-rl's launcher.
        resume_by_step: Whether they hold a step, and not a table with `step` and `dir`.
        orchestrator_folder: Folder below the run directory with the orchestrator's own files; empty for
            the run directory itself.
        run_id: Variables that name the run for Weights & Biases; `{}` in a value is the run's id.
        rehearsal: What a rehearsal looks at, as `for_rehearsal` of the host's fields tells.
    """

    shape: str
    clean: str
    resume_paths: tuple[str, ...]
    resume_by_step: bool
    orchestrator_folder: str
    run_id: Mapping[str, str]
    rehearsal: Mapping[str, Any]


@dataclass(frozen=True)
class Launch:
    """What to check, and what to start.

    Attributes:
        name: Name of the run.
        entrypoint: `rl`, `sft` or `inference`.
        run_dir: The run directory.
        token: What tells this submission from others; empty when there is none.
        python: prime-rl's interpreter; `None` when none was found at submission.
        prime_rl_dir: prime-rl's checkout, when it is one.
        module: Module to run with `python -m`.
        arguments: Its arguments.
        working_directory: Where it runs.
        gpus: GPUs by component.
        cpus: CPUs that the plan asked for.
        memory_mib: Memory that the plan asked for, in MiB; `None` for the cluster's default.
        memory: Needs of trainer and vLLM on a shared GPU, as `memory.share_for` takes them; `None`
            when they share none.
        min_free_disk_mib: Free disk that the node must have, in MiB; `None` asks for none.
        ports: How many ports the run needs, and which fields hold them; `None` leaves them alone.
        fields: What is to be known of prime-rl's other fields.
        idle_timeout: Seconds for which the run may be still; `None` for ever.
        caches: What was said about caches.
        expected_variables: Names that the submission promised to pass.
        environments: Modules of the environments that the config names.
        checked: Whether prime-rl validated the config.
        rehearse: Run every check, launch nothing.
        mark: What the submitting host left for a rehearsal: `host`, its name, and `file`, the mark in its
            cache of the hub, where it could leave one.
        export: Write the last checkpoint's weights when the run has ended well.
        survive: How the run goes on after an end that is not its own.
    """

    name: str
    entrypoint: str
    run_dir: Path
    token: str
    python: Path | None
    prime_rl_dir: Path | None
    module: str
    arguments: tuple[str, ...]
    working_directory: Path
    gpus: Gpus
    cpus: int
    memory_mib: int | None
    memory: Mapping[str, Any] | None
    min_free_disk_mib: int | None
    ports: Mapping[str, Any] | None
    fields: Fields
    idle_timeout: int | None
    caches: CacheWishes
    expected_variables: tuple[str, ...]
    environments: tuple[str, ...]
    checked: bool
    rehearse: bool
    mark: Mapping[str, Any]
    export: bool
    survive: Survive

    @property
    def folder(self) -> Path:
        """Where the launch's own files are."""
        return self.run_dir / "configs" / "launch"

    @property
    def config_files(self) -> tuple[Path, ...]:
        """The config files among the arguments (`@ FILE`), as prime-rl will open them."""
        following = zip(self.arguments, self.arguments[1:])  # noqa: B905 - not in Python 3.9
        names = [name for sign, name in following if sign == "@"]
        return tuple(self.working_directory / name for name in names)

    def command(self, config: Path | None = None) -> tuple[str, ...]:
        """What starts prime-rl, without what a restart adds.

        Args:
            config: The config to use in place of the one that was resolved at submission.
        """
        arguments = list(self.arguments)
        if config is not None and "@" in arguments:
            arguments[arguments.index("@") + 1] = str(config)
        return (str(self.python), "-m", self.module, *arguments)

    def held_command(self, config: Path | None) -> tuple[str, ...]:
        """What imports prime-rl and starts it at a sign on standard input (`begin.py`).

        Args:
            config: As for `command`.
        """
        python, _, *module_and_arguments = self.command(config)
        return (python, str(Path(__file__).with_name("begin.py")), *module_and_arguments)

    def server_command(self, config: Path) -> tuple[str, ...]:
        """What starts the inference server alone.

        Args:
            config: Its config.
        """
        return (str(self.python), "-m", "prime_rl.entrypoints.inference", "@", str(config))


def read_launch(path: Path) -> Launch:
    """Read `launch.json`.

    Raises:
        LaunchError: It is missing, torn, of another format, or lacks a field.
    """
    again = "submit the run again: the file is written at submission"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LaunchError(f"cannot read {path}: {error.strerror}", again) from error
    except ValueError as error:
        raise LaunchError(f"{path} is not whole: {error}", again) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else None
        raise LaunchError(
            f"{path} has format {found!r}; this job code reads format {FORMAT}",
            "the job code lies beside the file: do not mix two submissions' files",
        )
    try:
        return _launch(document)
    except KeyError as error:
        raise LaunchError(f"{path} lacks the field {error.args[0]!r}", again) from error
    except (AttributeError, TypeError, ValueError) as error:
        raise LaunchError(f"{path} holds a value of a wrong kind: {error}", again) from error


def _launch(document: Mapping[str, Any]) -> Launch:
    gpus, survive = document["gpus"], document["survive"]
    caches = document.get("caches") or {}
    return Launch(
        name=str(document["name"]),
        entrypoint=str(document["entrypoint"]),
        run_dir=Path(document["run_dir"]),
        token=str(document.get("token") or ""),
        python=_path(document["python"]),
        prime_rl_dir=_path(document["prime_rl_dir"]),
        module=str(document["module"]),
        arguments=tuple(map(str, document["arguments"])),
        working_directory=Path(document["working_directory"]),
        gpus=Gpus(
            count=int(gpus["count"]),
            shared=bool(gpus["shared"]),
            trainer=int(gpus["trainer"]),
            inference=int(gpus["inference"]),
        ),
        cpus=int(document["cpus"]),
        memory_mib=_count(document.get("memory_mib")),
        memory=document.get("memory"),
        min_free_disk_mib=_count(document.get("min_free_disk_mib")),
        ports=document.get("ports"),
        fields=fields_of(document["fields"]),
        idle_timeout=_count(document.get("idle_timeout")),
        caches=CacheWishes(
            warm=bool(caches.get("warm", False)),
            most_mib=int(caches.get("most_mib", 0)),
            kept=tuple(map(str, caches.get("kept", ()))),
        ),
        expected_variables=tuple(map(str, document["expected_variables"])),
        environments=tuple(map(str, document["environments"])),
        checked=bool(document["checked"]),
        rehearse=bool(document["rehearse"]),
        mark=dict(document.get("mark") or {}),
        export=bool(document.get("export", True)),
        survive=Survive(
            requeue=bool(survive["requeue"]),
            max_requeues=int(survive["max_requeues"]),
            signal_seconds=int(survive["signal_seconds"]),
            grace_seconds=float(survive["grace_seconds"]),
            beat_seconds=float(survive["beat_seconds"]),
        ),
    )


def fields_of(document: Mapping[str, Any]) -> Fields:
    """Read what `host.fields.for_job` says of prime-rl's fields."""
    resume = document["resume"]
    return Fields(
        shape=str(document["shape"]),
        clean=str(document["clean"]),
        resume_paths=tuple(map(str, resume["paths"])),
        resume_by_step=bool(resume["by_step"]),
        orchestrator_folder=str(document["orchestrator_folder"]),
        run_id={str(name): str(value) for name, value in document["run_id"].items()},
        rehearsal=dict(document.get("rehearsal") or {}),
    )


def _count(value: float | str | None) -> int | None:
    return None if value is None else int(value)


def _path(value: str | None) -> Path | None:
    return None if value is None else Path(value)
