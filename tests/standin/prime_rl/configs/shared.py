"""Blocks that several of prime-rl's configs share."""

import os
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from prime_rl.utils.config import BaseConfig
from pydantic import AfterValidator, Field, model_validator

PROTECTED = {
    "CUDA_VISIBLE_DEVICES",
    "PRL_RUN_ID",
    "PRL_RUN_NAME",
    "WANDB_RUN_ID",
    "WANDB_SHARED_FINISHER",
    "WANDB_SHARED_LABEL",
    "WANDB_SHARED_MODE",
    "WANDB_SHARED_PRIMARY",
}


def refuse_protected(variables: dict[str, str]) -> dict[str, str]:
    taken = sorted(PROTECTED & variables.keys())
    if taken:
        raise ValueError(
            f"env_vars cannot set launcher-managed vars {taken} — set by the launcher, not overridable"
        )
    return variables


EnvVars = Annotated[dict[str, str], AfterValidator(refuse_protected)]


def log_level() -> str:
    return os.environ.get("PRIME_LOG_LEVEL", "info")


class RunConfig(BaseConfig):
    name: str | None = None
    dir: str | None = None


class ResumeConfig(BaseConfig):
    step: int | None = Field(None, ge=1)
    dir: Path | None = None

    @model_validator(mode="after")
    def one_source(self) -> Self:
        if self.step is not None and self.dir is not None:
            raise ValueError(
                "resume.step and resume.dir are mutually exclusive — the step is taken from the "
                "directory name"
            )
        if self.dir is not None and not re.fullmatch(r"step_\d+", self.dir.name):
            raise ValueError(
                f"resume.dir must point at a checkpoint step directory (`.../step_<N>`), got '{self.dir}'"
            )
        return self


class SlurmConfig(BaseConfig):
    job_name: str = "prime-rl"
    project_dir: Path = Path()
    template_path: Path | None = None
    partition: str = "cluster"
    nodelist: str | None = None
    exclude: str | None = None
    account: str | None = None
    time: str | None = None
    pre_run_command: str | None = None
    cleanup_grace_period: int = Field(3600, ge=0)
    shared_fs: bool = True

    @model_validator(mode="after")
    def absolute_project(self) -> Self:
        self.project_dir = self.project_dir.resolve()
        return self


class BaseModelConfig(BaseConfig):
    name: str = "Qwen/Qwen3-0.6B"
    trust_remote_code: bool = False


class TokenizerConfig(BaseConfig):
    name: str | None = None
    trust_remote_code: bool | None = None
    chat_template: str | None = None


class ClientConfig(BaseConfig):
    wait_for_ready_timeout: int = 1800
    base_url: str = "http://localhost:8000/v1"
    api_key_var: str = "VLLM_API_KEY"
    headers: dict[str, str] = Field(default_factory=dict)
    skip_model_check: bool = False
    admin_base_url: list[str] | None = None


class LogConfig(BaseConfig):
    level: str = Field(default_factory=log_level)
    json_logging: bool = False
    interval: float = Field(10.0, gt=0)


class TrainerLogConfig(LogConfig):
    ranks_filter: list[int] = Field(default_factory=lambda: [0])


class FileSystemTransportConfig(BaseConfig):
    type: Literal["filesystem"] = "filesystem"


class ZMQTransportConfig(BaseConfig):
    type: Literal["zmq"] = "zmq"
    host: str = "localhost"
    port: int = 5555
    hwm: int = 10


TransportConfig = Annotated[FileSystemTransportConfig | ZMQTransportConfig, Field(discriminator="type")]


class FileSystemWeightBroadcastConfig(BaseConfig):
    type: Literal["filesystem"] = "filesystem"


class NCCLWeightBroadcastConfig(BaseConfig):
    type: Literal["nccl"] = "nccl"
    host: str = "localhost"
    port: int = 29501
    timeout: int = 1200
    inference_world_size: int = 1
    quantize_in_weight_transfer: bool = False


class NIXLWeightBroadcastConfig(BaseConfig):
    type: Literal["nixl"] = "nixl"
    host: str = "localhost"
    port: int = 8001
    timeout: int = 1200
    inference_world_size: int = 1
    session_id: str = "default"


WeightBroadcastConfig = Annotated[
    FileSystemWeightBroadcastConfig | NCCLWeightBroadcastConfig | NIXLWeightBroadcastConfig,
    Field(discriminator="type"),
]


class WandbMonitorConfig(BaseConfig):
    project: str = "prime-rl"
    entity: str | None = None
    name: str | None = None
    group: str | None = None
    tags: list[str] | None = None
    offline: bool = False


class FileMonitorConfig(BaseConfig):
    path: Path = Path("metrics.jsonl")


class PrimeMonitorConfig(BaseConfig):
    name: str | None = None


class MonitorsConfig(BaseConfig):
    wandb: WandbMonitorConfig | None = None
    file: FileMonitorConfig | None = FileMonitorConfig()


class OrchestratorMonitorsConfig(MonitorsConfig):
    prime: PrimeMonitorConfig | None = None
