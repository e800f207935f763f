"""The config of `sft`, with the inference server of its online evaluations."""

import uuid
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlparse

from prime_rl.configs.inference import InferenceConfig, fill_replicas
from prime_rl.configs.orchestrator import RENDERED, OnlineEvalConfig, RendererConfig
from prime_rl.configs.shared import (
    EnvVars,
    FileSystemWeightBroadcastConfig,
    MonitorsConfig,
    NCCLWeightBroadcastConfig,
    ResumeConfig,
    RunConfig,
    SlurmConfig,
    TokenizerConfig,
    TrainerLogConfig,
    WeightBroadcastConfig,
)
from prime_rl.configs.trainer import (
    AdamWConfig,
    CheckpointConfig,
    ConstantSchedulerConfig,
    ModelConfig,
    OptimizerConfig,
    SchedulerConfig,
    inherit_tokenizer,
)
from prime_rl.utils.config import BaseConfig
from pydantic import AliasChoices, Field, model_validator


class Batches(BaseConfig):
    batch_size: int = Field(128, ge=1)
    seq_len: int = Field(128, ge=1)
    micro_batch_size: int = Field(1, ge=1)
    num_workers: int = Field(1, ge=1)

    @model_validator(mode="after")
    def divides(self) -> Self:
        if self.batch_size % self.micro_batch_size != 0:
            raise ValueError("Batch size must be divisible by micro batch size")
        return self


class FakeDataConfig(Batches):
    type: Literal["fake"] = "fake"
    length: Literal["fixed", "variable"] = "fixed"
    seed: int = 0


class SFTDataConfig(Batches):
    type: Literal["sft"] = "sft"
    name: str = "PrimeIntellect/Reverse-Text-SFT"
    subsets: list[str] | None = None
    splits: list[str] | None = None
    shuffle: bool = True
    seed: int = 0


DataConfig = Annotated[FakeDataConfig | SFTDataConfig, Field(discriminator="type")]


class SFTValConfig(BaseConfig):
    interval: int = Field(50, ge=1)
    eval_on_start: bool = False
    data: SFTDataConfig


class SingleNodeDeploymentConfig(BaseConfig):
    type: Literal["single_node"] = "single_node"
    gpus_per_node: int = 8
    num_train_gpus: int = 1
    num_infer_gpus: int = Field(1, validation_alias=AliasChoices("num_infer_gpus", "num_eval_gpus"))

    @model_validator(mode="after")
    def fits_on_the_node(self) -> Self:
        if self.num_train_gpus > self.gpus_per_node:
            raise ValueError(
                f"num_train_gpus ({self.num_train_gpus}) exceeds gpus_per_node ({self.gpus_per_node})."
            )
        return self


class MultiNodeDeploymentConfig(BaseConfig):
    type: Literal["multi_node"] = "multi_node"
    gpus_per_node: int = 8
    num_train_nodes: int = Field(2, ge=1)
    num_infer_nodes: int = Field(0, ge=0, validation_alias=AliasChoices("num_infer_nodes", "num_eval_nodes"))


DeploymentConfig = Annotated[
    SingleNodeDeploymentConfig | MultiNodeDeploymentConfig, Field(discriminator="type")
]


class SFTConfig(BaseConfig):
    model: ModelConfig = ModelConfig()
    env_vars: EnvVars = Field(default_factory=dict)
    tokenizer: TokenizerConfig = TokenizerConfig()
    renderer: RendererConfig = RendererConfig()
    data: DataConfig = SFTDataConfig()
    val: SFTValConfig | None = None
    eval: OnlineEvalConfig | None = None
    inference: InferenceConfig | None = None
    weight_broadcast: WeightBroadcastConfig | None = None
    optim: OptimizerConfig = AdamWConfig()
    scheduler: SchedulerConfig = ConstantSchedulerConfig()
    ckpt: CheckpointConfig | None = None
    resume: ResumeConfig | None = None
    log: TrainerLogConfig = TrainerLogConfig()
    monitors: MonitorsConfig = MonitorsConfig()
    run: RunConfig = Field(default_factory=RunConfig)
    output_dir: Path = Path("outputs")
    clean: bool = False
    max_steps: int | None = None
    dist_timeout_seconds: int = 3600
    deployment: DeploymentConfig = SingleNodeDeploymentConfig()
    slurm: SlurmConfig | None = None
    dry_run: bool = False

    @property
    def run_dir(self) -> Path:
        return self.output_dir / str(self.run.dir)

    @model_validator(mode="before")
    @classmethod
    def normalize(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        deployment = data.get("deployment")
        if isinstance(deployment, dict) and deployment.get("type") == "multi_node":
            deployment.pop("num_train_gpus", None)
            deployment.pop("num_infer_gpus", None)
        model, inference = data.get("model"), data.get("inference")
        name = model.get("name") if isinstance(model, dict) else None
        if name and isinstance(inference, dict):
            vllm = inference.setdefault("vllm", {})
            if isinstance(vllm, dict):
                vllm.setdefault("model", name)
        return data

    @model_validator(mode="after")
    def settle_run(self) -> Self:
        if self.run.name is None:
            data = str(getattr(self.data, "name", "")).split("/")[-1]
            parts = [part for part in (data, self.model.name.split("/")[-1]) if part]
            self.run.name = "--".join([*parts, uuid.uuid4().hex[:8]]).lower()
        self.run.dir = self.run.dir or self.run.name
        if self.monitors.wandb is not None and self.monitors.wandb.name is None:
            self.monitors.wandb.name = self.run.name
        return self

    @model_validator(mode="after")
    def nodes_need_slurm(self) -> Self:
        if self.deployment.type == "multi_node" and self.slurm is None:
            raise ValueError("Must use SLURM for multi-node deployment.")
        return self

    @model_validator(mode="after")
    def settle_evaluation(self) -> Self:
        if self.eval is None:
            if self.inference is not None:
                raise ValueError(
                    "[inference] is only used for online evals — add an [eval] block or remove it."
                )
            return self
        if self.weight_broadcast is None:
            over_files = self.model.lora is not None or self.inference is None
            self.weight_broadcast = (
                FileSystemWeightBroadcastConfig() if over_files else NCCLWeightBroadcastConfig()
            )
        if self.weight_broadcast.type == "nixl":
            raise ValueError("NIXL weight broadcast is not supported for SFT online evals.")
        if self.weight_broadcast.type == "nccl" and self.model.lora is not None:
            raise ValueError(
                "LoRA training is not yet supported with in-memory weight broadcast. "
                "Set weight_broadcast.type = 'filesystem'."
            )
        if self.inference is not None and self.deployment.type == "single_node":
            self.settle_inference(self.inference, self.eval)
        return self

    def settle_inference(self, inference: InferenceConfig, evaluation: OnlineEvalConfig) -> None:
        if self.model.lora is not None:
            inference.vllm.enable_lora = True
            inference.vllm.max_lora_rank = self.model.lora.rank
        train, infer = self.deployment.num_train_gpus, self.deployment.num_infer_gpus
        if train + infer > self.deployment.gpus_per_node:
            raise ValueError(
                f"Total GPU count ({train + infer} = {train} train + {infer} infer) exceeds "
                f"gpus_per_node ({self.deployment.gpus_per_node})."
            )
        vllm = inference.vllm
        if vllm.model != self.model.name:
            raise ValueError(
                f"inference.vllm.model ({vllm.model}) does not match model.name "
                f"({self.model.name}). Remove inference.vllm.model to inherit it."
            )
        if infer % vllm.tensor_parallel_size != 0:
            raise ValueError(
                f"deployment.num_infer_gpus ({infer}) must be divisible by "
                f"inference.vllm.tensor_parallel_size ({vllm.tensor_parallel_size})."
            )
        fill_replicas(vllm, infer)
        if self.weight_broadcast.type == "nccl":
            self.weight_broadcast.inference_world_size = vllm.data_parallel_size * vllm.tensor_parallel_size
        inference.weight_broadcast.type = self.weight_broadcast.type
        client, host = evaluation.client, inference.server.host or "localhost"
        if "base_url" not in client.model_fields_set:
            client.base_url = f"http://{host}:{inference.server.port}/v1"
        elif urlparse(client.base_url).port != inference.server.port:
            raise ValueError(
                f"eval.client.base_url port ({urlparse(client.base_url).port}) does not match "
                f"inference.server.port ({inference.server.port})."
            )
        if inference.router is not None and "admin_base_url" not in client.model_fields_set:
            client.admin_base_url = [f"http://{host}:{inference.backend_port}/v1"]

    @model_validator(mode="after")
    def renderer_is_typed(self) -> Self:
        model = self.tokenizer.name or self.model.name
        if self.data.type == "fake" and self.val is None:
            return self
        if self.renderer.name == "default":
            reason = "renderer.name='default' selects DefaultRenderer"
        elif self.renderer.name == "auto" and model not in RENDERED:
            reason = f"no typed renderer is registered for {model!r}"
        else:
            return self
        raise ValueError(
            "SFT requires a typed renderer with sampled-token and content attribution, but "
            f"{reason}. Implement and register the renderer in the renderers package, or "
            "explicitly select an existing typed renderer only when its template is verified to "
            "match."
        )

    @model_validator(mode="after")
    def tokenizer_of_the_model(self) -> Self:
        inherit_tokenizer(self)
        return self
