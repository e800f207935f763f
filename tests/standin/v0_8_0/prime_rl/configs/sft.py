"""The SFT config, as far as a launch touches it; the rest is taken as it is."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from prime_rl.configs.shared import EnvVars, SlurmConfig
from prime_rl.utils.config import BaseConfig
from pydantic import ConfigDict, Field, model_validator


class Loose(BaseConfig):
    model_config = ConfigDict(extra="allow")


class FileMonitorConfig(BaseConfig):
    filename: str = "metrics.jsonl"


class CheckpointConfig(BaseConfig):
    output_dir: Path | None = None
    interval: int | None = Field(None, ge=1)
    resume_step: int | None = Field(None, ge=-1)
    keep_last: int | None = Field(None, ge=1)
    keep_interval: int | None = Field(None, ge=1)


class ModelConfig(Loose):
    name: str = "Qwen/Qwen3-0.6B"
    seq_len: int = 2048


class SingleNodeConfig(BaseConfig):
    type: Literal["single_node"] = "single_node"
    gpus_per_node: int = 8
    num_gpus: int = 1

    @model_validator(mode="after")
    def fits(self) -> Self:
        if self.num_gpus > self.gpus_per_node:
            raise ValueError(f"num_gpus ({self.num_gpus}) exceeds gpus_per_node ({self.gpus_per_node}).")
        return self


class MultiNodeConfig(BaseConfig):
    type: Literal["multi_node"] = "multi_node"
    gpus_per_node: int = 8
    num_nodes: int = 2


DeploymentConfig = Annotated[SingleNodeConfig | MultiNodeConfig, Field(discriminator="type")]


class SFTConfig(BaseConfig):
    model: ModelConfig = ModelConfig()
    env_vars: EnvVars = Field(default_factory=dict)
    renderer: Loose = Loose()
    data: Loose = Loose()
    optim: Loose = Loose()
    ckpt: CheckpointConfig | None = None
    wandb: Loose | None = None
    file_monitor: FileMonitorConfig | None = None
    output_dir: Path = Path("outputs")
    clean_output_dir: bool = False
    max_steps: int | None = None
    deployment: DeploymentConfig = SingleNodeConfig()
    slurm: SlurmConfig | None = None
    dry_run: bool = False


def table(data: dict[str, Any], path: str) -> Any:
    """What stands at a dotted path, `None` where a part of it is missing."""
    found: Any = data
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found
