"""The orchestrator's config, with the environments that it draws from."""

import importlib
from pathlib import Path
from typing import Any, Literal, Self

from prime_rl.configs.shared import (
    BaseModelConfig,
    ClientConfig,
    EnvVars,
    FileSystemWeightBroadcastConfig,
    LogConfig,
    OrchestratorMonitorsConfig,
    ResumeConfig,
    TokenizerConfig,
    TransportConfig,
    WeightBroadcastConfig,
    ZMQTransportConfig,
)
from prime_rl.configs.trainer import inherit_tokenizer
from prime_rl.utils.config import BaseConfig
from pydantic import Field, model_validator

# The models whose chat template a renderer is registered for, by exact name.
RENDERED = {
    *(f"Qwen/Qwen3-{size}" for size in ("0.6B", "1.7B", "4B", "8B", "14B", "32B")),
    "PrimeIntellect/Qwen3-0.6B",
    "PrimeIntellect/Qwen3-1.7B",
}


class RendererConfig(BaseConfig):
    name: Literal["auto", "default", "qwen3", "prime-qwen3"] = "auto"
    thinking_retention: str | None = None


class TasksetConfig(BaseConfig):
    id: str = ""
    system_prompt: str | None = None
    dataset_name: str = "PrimeIntellect/Reverse-Text-RL"
    dataset_split: str = "train"

    @model_validator(mode="after")
    def installed(self) -> Self:
        module = self.id.replace("-", "_")
        if not self.id:
            return self
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            raise ModuleNotFoundError(
                f"taskset {self.id!r} not found (tried to import {module!r}). A taskset is a "
                "package exporting its Taskset subclass via `__all__` — the built-in ones ship "
                "with verifiers in the `verifiers.v1.tasksets` package; any other package must "
                "already be installed."
            ) from error
        return self


class HarnessConfig(BaseConfig):
    id: Literal["null", "bash"] = "null"


class RuntimeConfig(BaseConfig):
    type: Literal["subprocess"] = "subprocess"


class AgentConfig(BaseConfig):
    harness: HarnessConfig = HarnessConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    max_turns: int | None = None


class EnvConfig(BaseConfig):
    id: str = ""
    taskset: TasksetConfig = TasksetConfig()
    agent: AgentConfig = AgentConfig()


class ServeConfig(BaseConfig):
    address: str | None = None
    max_concurrent: int | None = None


class Source(BaseConfig):
    env: EnvConfig = EnvConfig()
    serve: ServeConfig = ServeConfig()
    name: str | None = None
    ratio: float = Field(1.0, gt=0)

    @property
    def env_id(self) -> str:
        return self.env.id or self.env.taskset.id

    @property
    def resolved_name(self) -> str:
        return self.name or self.env_id

    @model_validator(mode="after")
    def names_an_environment(self) -> Self:
        if not self.env_id:
            raise ValueError('no env configured — set env = { taskset = { id = "<id>" } }')
        if self.resolved_name == "agg":
            raise ValueError(
                'Environment name "agg" is reserved for cross-env metric aggregation. Use a '
                "different name or id."
            )
        return self


class TrainSamplingConfig(BaseConfig):
    temperature: float = Field(1.0, ge=0, le=2.0)
    max_completion_tokens: int | None = None
    extra_body: dict[str, Any] = Field(default_factory=dict)


class EvalSamplingConfig(BaseConfig):
    temperature: float | None = Field(None, ge=0, le=2.0)
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = Field(None, ge=0)
    max_completion_tokens: int | None = None
    extra_body: dict[str, Any] = Field(default_factory=dict)


class TrainSourceConfig(Source):
    sampling: TrainSamplingConfig = TrainSamplingConfig()
    group_size: int = Field(1, ge=1)


class EvalSourceConfig(Source):
    sampling: EvalSamplingConfig = EvalSamplingConfig()
    num_examples: int = -1
    group_size: int = Field(1, ge=1)
    interval: int = Field(100, ge=1)


def refuse_twins(kind: str, sources: list[Any]) -> None:
    names = [source.resolved_name for source in sources]
    twins = {name for name in names if names.count(name) > 1}
    if twins:
        raise ValueError(f"Duplicate {kind} environment names: {twins}. Each env must have a unique name.")


def inherit_sampling(group: Any, sources: list[Any]) -> None:
    """A source's sampling is the group's, but for what it sets itself."""
    for source in sources:
        own = source.sampling.model_dump(exclude_unset=True)
        mine = own if "sampling" in source.model_fields_set else {}
        source.sampling = type(group)(**(group.model_dump() | mine))


class TrainConfig(BaseConfig):
    source: list[TrainSourceConfig] = Field(default_factory=list)
    sampling: TrainSamplingConfig = TrainSamplingConfig()
    filter_zero_advantages: bool = True

    @model_validator(mode="after")
    def settle_sources(self) -> Self:
        inherit_sampling(self.sampling, self.source)
        refuse_twins("training", self.source)
        return self


class EvalConfig(BaseConfig):
    source: list[EvalSourceConfig] = Field(default_factory=list)
    sampling: EvalSamplingConfig = Field(default_factory=EvalSamplingConfig)
    num_examples: int = -1
    group_size: int = Field(1, ge=1)
    interval: int = Field(100, ge=1)
    skip_first_step: bool = False
    retrigger_on_resume: bool = False

    @model_validator(mode="after")
    def settle_sources(self) -> Self:
        inherit_sampling(self.sampling, self.source)
        for source in self.source:
            for name in {"num_examples", "group_size", "interval"} - source.model_fields_set:
                setattr(source, name, getattr(self, name))
        if not self.source:
            raise ValueError(
                "EvalConfig must define at least one source. Either drop the [orchestrator.eval] "
                "block entirely (to disable eval) or add a [[orchestrator.eval.source]] block."
            )
        refuse_twins("evaluation", self.source)
        return self


class OnlineEvalConfig(EvalConfig):
    """What `sft` evaluates while it trains."""

    client: ClientConfig = ClientConfig()
    env_server_base_port: int = Field(5000, ge=1, le=65535)


class LoRAConfig(BaseConfig):
    name: str | None = None
    rank: int | None = Field(None, ge=1)
    alpha: float | None = Field(None, ge=0)


class ModelConfig(BaseModelConfig):
    lora: LoRAConfig | None = None
    client: ClientConfig = ClientConfig()


class CheckpointConfig(BaseConfig):
    interval: int | None = Field(None, ge=1)
    keep_last: int | None = Field(None, ge=1)
    keep_interval: int | None = Field(None, ge=1)


class ConcurrencyConfig(BaseConfig):
    initial_inflight: int | None = Field(None, ge=1)
    min_inflight: int = Field(1, ge=1)
    max_inflight: int | None = Field(1024, ge=1)

    @model_validator(mode="after")
    def bounds(self) -> Self:
        if self.max_inflight is not None:
            for name in ("initial_inflight", "min_inflight"):
                if (getattr(self, name) or 0) > self.max_inflight:
                    raise ValueError(f"concurrency.{name} must not exceed concurrency.max_inflight")
        return self


class OrchestratorConfig(BaseConfig):
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    renderer: RendererConfig = RendererConfig()
    eval: EvalConfig | None = None
    log: LogConfig = LogConfig()
    env_vars: EnvVars = Field(default_factory=dict)
    monitors: OrchestratorMonitorsConfig = OrchestratorMonitorsConfig()
    ckpt: CheckpointConfig | None = None
    resume: ResumeConfig | None = None
    weight_broadcast: WeightBroadcastConfig = FileSystemWeightBroadcastConfig()
    rollout_transport: TransportConfig = ZMQTransportConfig()
    output_dir: Path = Path("outputs")
    env_server_base_port: int = Field(5000, ge=1, le=65535)
    batch_size: int | None = Field(None, ge=1)
    token_batch_size: int | None = Field(None, ge=1)
    concurrency: ConcurrencyConfig = ConcurrencyConfig()
    group_size: int = Field(1, ge=1)
    seq_len: int = 2048
    num_train_workers: int = Field(1, ge=1)
    max_steps: int | None = None
    max_off_policy_steps: int = Field(8, ge=0)

    @model_validator(mode="after")
    def tokenizer_of_the_model(self) -> Self:
        inherit_tokenizer(self)
        return self

    @model_validator(mode="after")
    def platform_name_of_wandb(self) -> Self:
        prime, wandb = self.monitors.prime, self.monitors.wandb
        if prime is not None and prime.name is None and wandb is not None:
            prime.name = wandb.name
        return self

    @model_validator(mode="after")
    def renderer_is_known(self) -> Self:
        model = self.tokenizer.name or self.model.name
        if self.renderer.name == "auto" and model not in RENDERED:
            raise ValueError(
                f"orchestrator.renderer.name='auto' but {model!r} is not in "
                "renderers.base.MODEL_RENDERER_MAP, so it would silently fall back to "
                "DefaultRenderer. Pick one: (a) [orchestrator.renderer] name='default' — for "
                "fine-tunes / vendored mirrors with custom chat templates (DefaultRenderer calls "
                "apply_chat_template); set tool_parser=<name> if the env uses tools. (b) "
                "[orchestrator.renderer] name=<model-specific renderer> — if "
                f"{model!r} is template-identical to a mapped family (and ideally also add it "
                "upstream to renderers.base.MODEL_RENDERER_MAP)."
            )
        return self

    @model_validator(mode="after")
    def settle_batch(self) -> Self:
        if self.batch_size is not None and self.token_batch_size is not None:
            raise ValueError("Set exactly one of batch_size or token_batch_size")
        if self.batch_size is None and self.token_batch_size is None:
            self.batch_size = 128
        if self.batch_size is not None and self.batch_size % self.group_size != 0:
            raise ValueError("Batch size must be divisible by the number of samples per problem")
        for source in self.train.source:
            if "group_size" not in source.model_fields_set:
                source.group_size = self.group_size
            body = source.sampling.extra_body
            source.sampling.extra_body = {
                "top_k": -1,
                "min_p": 0.0,
                "return_token_ids": True,
            } | body
        return self
