"""What a shape of prime-rl's schema is described by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Engine:
    """Where an inference server's own fields are, below its block.

    Attributes:
        model: The model's name.
        tensor: GPUs of one engine.
        data: Number of engines.
        share: vLLM's share of its GPU's memory.
        rpc_port: vLLM's port for its data-parallel engines.
        tables: Where settings that vLLM alone knows are looked up, first match wins; empty for the block
            itself.
    """

    model: str
    tensor: str
    data: str
    share: str
    rpc_port: str
    tables: tuple[str, ...]


@dataclass(frozen=True)
class Resume:
    """How a run is told to go on.

    Attributes:
        path: The field that says so.
        copies: Where a resolved config holds it once more.
        by_step: Whether the field is the step itself, -1 for the newest, and not a table with `step` and
            `dir`.
    """

    path: str
    copies: tuple[str, ...]
    by_step: bool


@dataclass(frozen=True)
class Shape:
    """One schema of prime-rl: the fields that are set or read, and where each of them is.

    Attributes:
        name: Its name, after the release that it came with.
        paths: Every field path that is set or read, by entry point: what a prime-rl of this shape must
            have. `memory.py` reads more where they are.
        spellings: Further keys and tables that a config of this shape may have, and one of another may not,
            by entry point: what tells for which release it was written.
        examples: This project's example of an entry point, in its repository.
        run_dir: The field for the run directory's name below `output_dir`; `None` where `output_dir` is
            the run directory itself.
        clean: The switch that deletes what an earlier run left.
        train_gpus: The trainer's GPUs, by entry point.
        infer_gpus: vLLM's GPUs, by entry point; none where an entry point starts no server.
        engine: An inference server's fields.
        wandb: The table that switches Weights & Biases on.
        sources: Where a config lists its environments, by entry point.
        environments: Fields of such a source that name an environment's module.
        client: The table with the addresses of the server, by entry point.
        base_url: The address in it; `[*]` is every element of a list.
        transport_ports: Ports in a row that rollouts take over ZMQ, from `rollout_transport.port` on.
        resume: How a run is told to go on.
        orchestrator_folder: Folder below the run directory with the orchestrator's own files; empty for
            the run directory itself.
        run_id: Variables that name a run for Weights & Biases, by entry point: their values, where `{}`
            is the run's id.
    """

    name: str
    paths: Mapping[str, tuple[str, ...]]
    spellings: Mapping[str, tuple[str, ...]]
    examples: Mapping[str, str]
    run_dir: str | None
    clean: str
    train_gpus: Mapping[str, str]
    infer_gpus: Mapping[str, str]
    engine: Engine
    wandb: str
    sources: Mapping[str, tuple[str, ...]]
    environments: tuple[str, ...]
    client: Mapping[str, str]
    base_url: str
    transport_ports: int
    resume: Resume
    orchestrator_folder: str
    run_id: Mapping[str, Mapping[str, str]]

    @property
    def launcher_fields(self) -> tuple[str, ...]:
        """Fields that a resolved config leaves out, as prime-rl's own launcher does."""
        return ("slurm", "dry_run", self.clean)

    @property
    def share_path(self) -> str:
        """The field for vLLM's share of a GPU, in a run that starts its own server."""
        return f"inference.{self.engine.share}"
