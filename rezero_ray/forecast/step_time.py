"""Seconds of a step by part, every term named: roofline arithmetic over a model, a place and lengths. Pure.

    decoding, an iteration of b sequences   max(bytes read / memory, operations / engine's products(b))
                                            and with it sampling and launches
    prompts                                 operations / engine's products(many rows)
    forward and backward                    operations / learner's products, of the fullest rank
    gathers (ZeRO-3)                        what of them the computing does not hide

What is not in it: slow tools and judges, and waiting for the last of them.
"""

from dataclasses import dataclass

from rezero_ray.config import Config
from rezero_ray.forecast.lengths import Lengths, decoding
from rezero_ray.forecast.model_work import ModelWork
from rezero_ray.forecast.place import LOGIT_BYTES, Place

MANY_ROWS = 1e9
ITERATION_SECONDS = 5e-3
"""Of vLLM's scheduler and output, an iteration."""

OPERATIONS_A_LAYER = 25
"""Launched in a layer's forward pass; the backward pass launches twice as many."""

ADAPTER_SHARE = 0.15
"""Of decoding on a GPU, what the adapter adds: the middle of 0.10 to 0.25, estimated (docs/forecast.md)."""

BLOCK = {"cpu": 32, "cuda": 16}
"""Tokens of a cache block: half a block of every prompt is computed again, for each of its rollouts."""

TURN_SECONDS = 22e-3
"""Of one core, for a turn: environment worker, controller and the engine's front end, which share a CPU run's cores.
Beside a GPU they are hidden."""

MODULE_SECONDS = 2e-3
"""To gather, write and load one module's adapter: 0.05 to 0.3 s for 94 (docs/forecast.md)."""


@dataclass(frozen=True)
class Seconds:
    """One term."""

    what: str
    seconds: float


@dataclass(frozen=True)
class Part:
    """One part of a step."""

    name: str
    terms: tuple[Seconds, ...]

    @property
    def seconds(self) -> float:
        return sum(term.seconds for term in self.terms)


@dataclass(frozen=True)
class StepTime:
    """`overlap`: rollouts of later steps go on during the training, on a device of their own."""

    rollouts: Part
    training: Part
    publishing: Part
    checkpoint: Part
    overlap: bool

    @property
    def parts(self) -> tuple[Part, ...]:
        return (self.rollouts, self.training, self.publishing, self.checkpoint)

    @property
    def seconds_per_step(self) -> float:
        both = (self.rollouts.seconds, self.training.seconds)
        return (max(both) if self.overlap else sum(both)) + self.publishing.seconds + self.checkpoint.seconds


def step_time(
    config: Config, work: ModelWork, place: Place, lengths: Lengths, *, kv_tokens: int | None
) -> StepTime:
    """Seconds of a step with rollouts of these lengths.

    Args:
        config: of the run.
        work: what the model costs.
        place: of engine and learner; on the CPU all processes share it.
        lengths: of the step's rollouts.
        kv_tokens: that one engine's cache holds; None where that is not known.
    """
    shared = place.cores is not None or bool(set(config.inference_gpu_ids) & set(config.trainer_gpu_ids))
    return StepTime(
        rollouts=Part("rollouts", _rollouts(config, work, place, lengths, kv_tokens)),
        training=Part("training", _training(config, work, place, lengths)),
        publishing=Part("publishing", _publishing(work, place, lengths)),
        checkpoint=Part(
            "checkpoint",
            (Seconds("state", 3 * work.adapter_modules * MODULE_SECONDS / config.ckpt.interval),),
        ),
        overlap=config.orchestrator.max_async_level > 0 and not shared,
    )


def _rollouts(
    config: Config, work: ModelWork, place: Place, lengths: Lengths, kv_tokens: int | None
) -> tuple[Seconds, ...]:
    engines, gpus = config.inference.parallel.dp, config.inference.parallel.tp
    graphs = place.cores is None and not config.inference.model.enforce_eager
    launches = 0.0 if graphs else work.layers * OPERATIONS_A_LAYER * place.operation
    context, rollouts = lengths.context, len(lengths.completions)
    own = (sum(lengths.completions) + lengths.replies + sum(lengths.prompts)) / rollouts
    slots = config.inference.model.max_num_seqs
    if kv_tokens is not None:
        slots = max(1, min(slots, int(kv_tokens / own)))
    # Engines of a CPU run share its cores: each is as many times slower.
    speed = 1 / engines if place.cores is not None else float(gpus)
    decode = sample = launch = 0.0
    for iterations, sequences in decoding(lengths.completions[::engines], slots):
        bytes_read = work.weight_bytes(sequences) + sequences * context * work.cache_bytes
        operations = sequences * (work.flops(context) + 2 * work.head)
        roof = max(bytes_read / place.memory, operations / (place.flops(sequences) * place.engine))
        decode += iterations * roof / speed
        sample += iterations * sequences * work.vocabulary / place.logits / speed
        launch += iterations * (launches + ITERATION_SECONDS)
    block = BLOCK["cpu" if place.cores is not None else "cuda"]
    read = sum(lengths.prompts) + lengths.replies + lengths.turns * block / 2
    prompts = read / engines * work.flops(context / 2) / (place.flops(MANY_ROWS) * place.engine) / speed
    adapter = 0.0 if place.cores is not None else ADAPTER_SHARE * decode
    turns = lengths.turns * TURN_SECONDS / place.cores if place.cores is not None else 0.0
    return (
        Seconds("prompts", prompts),
        Seconds("decoding", decode),
        Seconds("adapter", adapter),
        Seconds("sampling", sample),
        Seconds("launches", launch),
        Seconds("turns", turns),
    )


def _training(config: Config, work: ModelWork, place: Place, lengths: Lengths) -> tuple[Seconds, ...]:
    ranks, recompute = max(1, len(config.trainer_gpu_ids)), config.trainer.model.gradient_checkpointing
    reference = config.trainer.loss.kl_coef > 0
    rows = lengths.computed / lengths.micro_batches
    speed = place.flops(rows) * place.training / (ranks if place.cores is not None else 1)
    passes = 2 + recompute + reference  # forward, gradients of the inputs: the base is frozen
    attention = work.attention * lengths.context
    operations = {
        "forward and backward": lengths.computed * (passes * 2 * work.active + (passes + 1) * attention),
        "adapter": lengths.computed * 2 * work.adapter * (passes + 1),
        "head": lengths.trained * 2 * work.head * (2 + reference),
    }
    terms = [Seconds(what, count / speed) for what, count in operations.items()]
    launched = lengths.micro_batches * work.layers * OPERATIONS_A_LAYER * (passes + 1)
    terms.append(Seconds("launches", launched * place.operation))
    computing = sum(term.seconds for term in terms)
    received = 0.0
    if place.gather is not None and ranks > 1:
        once = work.sharded * work.width * (ranks - 1) / ranks / place.gather
        received = lengths.micro_batches * (2 + reference) * once
    terms.append(Seconds("gathers that the computing does not hide", max(0.0, received - computing)))
    return tuple(terms)


def _publishing(work: ModelWork, place: Place, lengths: Lengths) -> tuple[Seconds, ...]:
    own = (sum(lengths.completions) + lengths.replies) / len(lengths.completions)
    probe = sum(lengths.prompts) / len(lengths.prompts) + own
    operations = probe * (work.flops(probe / 2) + 2 * work.head)
    engine = operations / (place.flops(probe) * place.engine)
    learner = operations / (place.flops(probe) * place.training)
    logprobs = probe * work.vocabulary * LOGIT_BYTES / place.memory  # none is drawn
    return (
        Seconds("adapter", work.adapter_modules * MODULE_SECONDS),
        Seconds("probe", engine + learner + logprobs),
    )
