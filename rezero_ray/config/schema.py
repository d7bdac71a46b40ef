"""The TOML dialect, typed once. Field descriptions are its documentation (docs/configuration.md).

Nothing heavy is imported here: a wrong file must be answered within a second. What needs the model or the
environments (target modules, imports, prompt lengths) is checked in `rezero_ray.preflight`.
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PositiveInt, field_validator

from rezero_ray.config.budget import BudgetConfig
from rezero_ray.config.environment import EnvConfig, named
from rezero_ray.config.evaluation import EvalConfig
from rezero_ray.config.infra import InfraConfig, default_infra
from rezero_ray.config.serving import ServeConfig
from rezero_ray.config.table import (
    PATH,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PathText,
    PositiveFloat,
    Table,
)
from rezero_ray.logprob_scale import LOWEST_SAMPLING_TEMPERATURE
from rezero_ray.losses.options import ImportanceSamplingOptions, LossOptions

MAX_SEED = 2**32 - 1  # numpy's generator in the engine takes no more; replica r of the engine has seed + r

Beta = Annotated[float, Field(ge=0, lt=1)]
Betas = Annotated[
    tuple[Beta, Beta], BeforeValidator(lambda given: tuple(given) if isinstance(given, list) else given)
]  # TOML has lists only


class ModelConfig(Table):
    name: PathText = Field(description="Hub id or local directory of the base model.")
    dtype: Literal["bfloat16", "float32"] = Field(
        default="bfloat16", description="Precision of the base weights, in the engine and in the learner."
    )


class WandbConfig(Table):
    """Accepted for old files: its names become those of the MLflow run."""

    project: str | None = Field(default=None, description="Becomes the MLflow experiment.")
    name: str | None = Field(default=None, description="Becomes the MLflow run name.")
    offline: Literal[True] = Field(default=True, description="Must be true: metrics go to MLflow.")


class MlflowConfig(Table):
    enabled: bool = Field(
        default=True, description="Send the run to MLflow. What keeps MLflow from it does not stop the run."
    )
    experiment: str | None = Field(
        default=None, description="Experiment name; `wandb.project` or `rezero_ray` when unset."
    )
    run_name: str | None = Field(
        default=None, description="Run name; `wandb.name` or the name of output_dir when unset."
    )
    tracking_uri: Annotated[str | None, PATH] = Field(
        default=None,
        description="MLflow store; when unset MLFLOW_TRACKING_URI, else mlflow.db next to output_dir, or in it where "
        "output_dir is a volume of its own or its parent cannot be written to.",
    )
    rollouts_per_step: NonNegativeInt = Field(
        default=4, description="Sample rollouts logged as an artifact at each step; 0 for none."
    )


class CheckpointConfig(Table):
    interval: PositiveInt = Field(default=5, description="Steps between checkpoints; the last saves too.")
    keep_last: PositiveInt = Field(default=3, description="Complete checkpoints kept; older ones go.")
    resume: Literal["never", "auto"] = Field(
        default="never",
        description="`auto` goes on from the newest complete checkpoint of output_dir, if there is one.",
    )


class LoraConfig(Table):
    rank: Literal[1, 8, 16, 32, 64, 128, 256] = Field(
        default=16, description="Rank of the adapter; one of the ranks that vLLM's LoRA accepts."
    )
    alpha: PositiveFloat = Field(default=32.0, description="The adapter is scaled by alpha / rank.")
    target_modules: list[str] = Field(
        default=["q_proj", "v_proj"],
        min_length=1,
        description="Last part of the names of the linear modules that get an adapter.",
    )


class TrainerModelConfig(Table):
    trust_remote_code: bool = Field(default=False, description="Run Python code that ships with the model.")
    gradient_checkpointing: bool = Field(
        default=True, description="Recompute activations in the backward pass: less memory, more time."
    )
    logits_chunk: PositiveInt = Field(
        default=1024, description="Positions whose logits exist at one time: bounds memory."
    )
    lora: LoraConfig = Field(default_factory=LoraConfig, description="The adapter that is trained.")


class OptimConfig(Table):
    lr: PositiveFloat = Field(default=5e-6, description="Peak learning rate of AdamW.")
    weight_decay: NonNegativeFloat = Field(default=0.0, description="Decoupled weight decay of AdamW.")
    betas: Betas = Field(default=(0.9, 0.999), description="AdamW's betas.")
    max_grad_norm: PositiveFloat = Field(default=1.0, description="Gradient norm above which it is clipped.")
    warmup_steps: NonNegativeInt = Field(default=0, description="Steps of linear warm-up from 0 to lr.")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        default="constant",
        description="After the warm-up; the others decay to `min_lr_ratio * lr` at max_steps.",
    )
    min_lr_ratio: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0, description="Learning rate at max_steps as a fraction of lr (linear and cosine)."
    )


class ZeroConfig(Table):
    """DeepSpeed ZeRO-3: what trades memory for communication."""

    param_persistence_threshold: NonNegativeInt = Field(
        default=1_000_000,
        description="Parameters with fewer elements stay whole on every rank (adapters, norms, routers).",
    )
    prefetch_bucket_size: PositiveInt = Field(
        default=650_000_000, description="Elements gathered ahead of their use."
    )
    max_live_parameters: PositiveInt = Field(
        default=2_500_000_000, description="Gathered elements held at one time."
    )


def _default_loss() -> ImportanceSamplingOptions:
    return ImportanceSamplingOptions()


class TrainerConfig(Table):
    model: TrainerModelConfig = Field(default_factory=TrainerModelConfig, description="The learner's model.")
    optim: OptimConfig = Field(default_factory=OptimConfig, description="Optimizer and schedule.")
    loss: LossOptions = Field(
        default_factory=_default_loss,
        description="The policy loss; its keys depend on `type`.",
    )
    zero: ZeroConfig = Field(default_factory=ZeroConfig, description="DeepSpeed ZeRO-3 settings.")
    micro_batch_tokens: PositiveInt | None = Field(
        default=None,
        description="Tokens packed into one forward pass of one rank; seq_len when unset, never below it.",
    )
    share_prompts: bool = Field(
        default=True,
        description="Compute the tokens of a prompt once for all completions that are packed with it.",
    )


class SamplingConfig(Table):
    max_tokens: PositiveInt = Field(default=512, description="Completion tokens a turn, at most.")
    temperature: Annotated[float, Field(ge=LOWEST_SAMPLING_TEMPERATURE, le=2)] = Field(
        default=1.0,
        description="Sampling temperature; the learner divides its logits by the same. vLLM samples no colder than "
        "0.01.",
    )
    thinking: bool = Field(
        default=True,
        description="Let a model think before it answers, where its chat template knows `enable_thinking`; `false`: "
        "it answers at once.",
    )


class AdvantageConfig(Table):
    normalize: Literal["std", "mean", "none"] = Field(
        default="std",
        description="`std`: (reward - group mean) / (unbiased std + epsilon); `mean`: without the division; "
        "`none`: the reward itself.",
    )
    epsilon: NonNegativeFloat = Field(default=1e-4, description="Added to the standard deviation.")


class OrchestratorConfig(Table):
    batch_size: PositiveInt = Field(default=128, description="Prompts a step.")
    rollouts_per_example: PositiveInt = Field(
        default=4, description="Rollouts a prompt (group size); rollouts a step = batch_size * this."
    )
    max_async_level: NonNegativeInt = Field(
        default=0,
        description="Policy versions that a rollout may be old when it is trained on; 0 is synchronous, with 1 or "
        "more the engines go on while the learner takes its step.",
    )
    stale: Literal["finish", "retry", "drop"] = Field(
        default="finish",
        description="A group that would become older than that: `finish`: the step waits for it; `retry`: it is "
        "begun again on the newest policy; `drop`: its prompt is put aside (rollouts/quarantine.jsonl).",
    )
    filter_zero_advantage: bool = Field(
        default=False, description="Replace groups whose rewards are all equal: nothing is learned from them."
    )
    resample_budget: NonNegativeFloat = Field(
        default=1.0,
        description="Groups that filter_zero_advantage may replace a step, as a multiple of batch_size; those "
        "beyond are trained on as they are.",
    )
    env_workers: PositiveInt = Field(default=1, description="Environment worker processes an environment.")
    sampling: SamplingConfig = Field(default_factory=SamplingConfig, description="How the engine samples.")
    advantage: AdvantageConfig = Field(default_factory=AdvantageConfig, description="Rewards to advantages.")
    env: list[EnvConfig] = Field(min_length=1, description="The environments; `[[orchestrator.env]]` each.")
    eval: EvalConfig | None = Field(
        default=None, description="Evaluation on held-out tasks during the run; none where it is not there."
    )

    @field_validator("env")
    @classmethod
    def _name_environments(cls, environments: list[EnvConfig]) -> list[EnvConfig]:
        return named(environments)


class InferenceModelConfig(Table):
    trust_remote_code: bool = Field(default=False, description="Run Python code that ships with the model.")
    enable_auto_tool_choice: bool = Field(
        default=False, description="Parse tool calls out of completions for environments that offer tools."
    )
    tool_call_parser: str | None = Field(
        default=None, description="vLLM's parser for them, e.g. `hermes`; needed by enable_auto_tool_choice."
    )
    enforce_eager: bool = Field(default=False, description="No CUDA graphs. On the CPU always so.")
    max_model_len: PositiveInt | None = Field(
        default=None, description="Prompt + completion, longest the engine takes; seq_len when unset."
    )
    max_num_seqs: PositiveInt = Field(default=256, description="Sequences decoded at one time.")
    enable_prefix_caching: bool = Field(
        default=True, description="Compute the prompt that a group shares once, by whole blocks of the cache."
    )
    max_num_batched_tokens: PositiveInt | None = Field(
        default=None, description="Tokens in one engine step; vLLM's own default when unset."
    )


class ParallelConfig(Table):
    dp: PositiveInt = Field(default=1, description="Engine replicas, each with the whole model.")
    tp: PositiveInt = Field(default=1, description="Inference GPUs a replica; dp * tp = their number.")


class InferenceConfig(Table):
    gpu_memory_utilization: Fraction = Field(
        default=0.9, description="Fraction of its GPU's memory that an engine takes. CUDA only."
    )
    cpu_kv_cache_gib: PositiveFloat = Field(
        default=1.0, description="GiB of memory for the KV cache of an engine on the CPU."
    )
    model: InferenceModelConfig = Field(default_factory=InferenceModelConfig, description="Its model.")
    parallel: ParallelConfig = Field(default_factory=ParallelConfig, description="Replicas and their size.")


class WeightSyncConfig(Table):
    mode: Literal["adapter", "merged"] = Field(
        default="adapter",
        description="`adapter`: publish the LoRA adapter by version. `merged` (for modules that vLLM's LoRA "
        "ignores) is reserved and refused in this version.",
    )


class TrustConfig(Table):
    """Proof that the engine applies what the learner learned."""

    canary: bool = Field(
        default=True,
        description="At start, perturb each target module in turn; the engine's logprobs must move and agree "
        "with the learner's.",
    )
    max_mismatch_kl: PositiveFloat = Field(
        default=0.05,
        description="Stop when mismatch_kl between engine and learner is above this at the canary or a step.",
    )


class LimitsConfig(Table):
    """How long each wait may last, in seconds; the error of each names who was waited for."""

    cluster: PositiveFloat = Field(default=120.0, description="Ray cluster and placement group.")
    engine_start: PositiveFloat = Field(default=1200.0, description="Start of a rollout engine.")
    learner_start: PositiveFloat = Field(default=1800.0, description="Start of the learner ranks.")
    group: PositiveFloat = Field(default=900.0, description="One group of rollouts, scoring included.")
    train_step: PositiveFloat = Field(default=3600.0, description="One optimizer step.")
    publish: PositiveFloat = Field(default=300.0, description="Publishing an adapter to every engine.")
    takeover: Annotated[float, Field(ge=15)] = Field(
        default=60.0,
        description="Without a heartbeat of a process on another host that holds output_dir; then it counts as dead, "
        "and the directory is taken over.",
    )


class FaultsConfig(Table):
    """What is tried again when something breaks, and when the run gives up."""

    attempts: PositiveInt = Field(
        default=3,
        description="Tries of a group, each on a fresh environment and with other sampling seeds, before its prompt "
        "is put aside (rollouts/quarantine.jsonl) and replaced.",
    )
    max_put_aside: Fraction = Field(
        default=0.25,
        description="Prompts put aside within one step, as a share of batch_size, above which the run stops; one is "
        "always allowed.",
    )
    restarts: NonNegativeInt = Field(
        default=3,
        description="Restarts of each engine, of each environment worker and of the learner before the run stops.",
    )


class Config(Table):
    """A run. Later files and then command-line flags win over earlier ones."""

    inference_gpu_ids: list[NonNegativeInt] = Field(
        default=[0], min_length=1, description="GPUs for vLLM; on the CPU the same indices are bundles."
    )
    trainer_gpu_ids: list[NonNegativeInt] = Field(
        default=[1], min_length=1, description="GPUs for the learner, one rank each."
    )
    max_steps: PositiveInt = Field(description="Optimizer steps.")
    seq_len: PositiveInt = Field(default=4096, description="Prompt + completion, longest trained on.")
    output_dir: PathText = Field(min_length=1, description="The run directory; must not hold another run.")
    device: Literal["auto", "cuda", "cpu"] = Field(
        default="auto", description="`auto` takes CUDA where there is a GPU."
    )
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = Field(
        default=0, description="Seeds prompts' order, sampling and initialisation; at most 2**32 - dp."
    )
    model: ModelConfig = Field(description="The base model.")
    wandb: WandbConfig | None = Field(default=None, description="Accepted for old files.")
    mlflow: MlflowConfig = Field(default_factory=MlflowConfig, description="Where metrics go.")
    ckpt: CheckpointConfig = Field(default_factory=CheckpointConfig, description="Checkpoints and resuming.")
    trainer: TrainerConfig = Field(default_factory=TrainerConfig, description="The learner.")
    orchestrator: OrchestratorConfig = Field(description="Prompts, rollouts and rewards.")
    inference: InferenceConfig = Field(default_factory=InferenceConfig, description="The engine.")
    weight_sync: WeightSyncConfig = Field(default_factory=WeightSyncConfig, description="To the engine.")
    trust: TrustConfig = Field(default_factory=TrustConfig, description="Engine and learner must agree.")
    limits: LimitsConfig = Field(default_factory=LimitsConfig, description="Bounds of every wait.")
    faults: FaultsConfig = Field(default_factory=FaultsConfig, description="What is tried again.")
    budget: BudgetConfig = Field(default_factory=BudgetConfig, description="What the run may cost.")
    infra: InfraConfig = Field(default_factory=default_infra, description="Where Ray comes from.")
    serve: ServeConfig = Field(default_factory=ServeConfig, description="Of `rezero serve`.")
