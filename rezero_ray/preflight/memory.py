"""How much memory a process of each kind needs: arithmetic over shapes, every term named.

Estimates, meant to tell "fits", "tight" and "cannot" apart. Terms marked `floor` cannot be argued with.
The constants were fitted to the hand-made budget of GLM-4.7-Flash at 16k-token micro-batches on 80 GB GPUs
(shard 20, gathered 2.6, checkpoints 3.2, one layer 4, logits 1.2, process 2: 33 GB).
Those of the CPU were measured, as peaks of resident memory, with SmolLM2-135M and with a model of 3 million
parameters (docs/forecast.md).
"""

import math
from dataclasses import dataclass

from rezero_ray.config import Config
from rezero_ray.preflight.model_facts import ModelFacts

GIB = 1024**3

LAYER_VALUES_PER_HIDDEN = 60  # values that one layer's forward and backward hold, per token and hidden unit
SCAN_VALUES_PER_STATE = 20
"""float32 values that a Mamba-2 layer holds, per token, head and unit of its state, in Transformers' torch scan.
It keeps 14 for the backward pass (464 kB a token, counted with Nemotron 3 Nano's shapes); the rest is in flight."""
GPU_PROCESS_BYTES = 2 * GIB  # CUDA context, communication buffers, kernels' workspaces, graphs
CPU_LEARNER_BYTES = 0.95 * GIB  # torch, transformers, DeepSpeed and Ray, imported
CPU_ENGINE_BYTES = 1.8 * GIB  # vLLM twice: 0.7 in the actor, 1.1 in the core that computes
CPU_WORKER_BYTES = 0.6 * GIB  # an environment worker with verifiers and a tokenizer
CPU_REST_BYTES = 1.1 * GIB  # the controller, and Ray's own processes
CPU_FRAGMENTATION = 1.7  # of what a pass keeps: micro-batches differ in size, and malloc gives little back
CPU_LOGIT_COPIES = 3  # of the probe's logits in the engine: raw, processed, sorted out


@dataclass(frozen=True)
class Term:
    what: str
    bytes: float
    floor: bool = False


@dataclass(frozen=True)
class Need:
    """Bytes that a process needs, by term."""

    terms: tuple[Term, ...]

    @property
    def bytes(self) -> float:
        return sum(term.bytes for term in self.terms)

    @property
    def floor_bytes(self) -> float:
        return sum(term.bytes for term in self.terms if term.floor)


def adapter_parameters(config: Config, facts: ModelFacts) -> int:
    """rank * (in + out) for every module that gets an adapter."""
    lora, modules = config.trainer.model.lora, facts.linear_modules
    return lora.rank * sum(sum(shape) for name in set(lora.target_modules) for shape in modules.get(name, ()))


def adapter_bytes(config: Config, facts: ModelFacts) -> int:
    """As published: in the model's dtype."""
    return _width(config) * adapter_parameters(config, facts)


def kv_bytes_per_token(config: Config, facts: ModelFacts) -> int | None:
    """Of the engine's cache: one latent vector a layer with MLA, else keys and values of every KV head.

    None where the shapes of what the cache holds are not known.
    """
    if state_bytes_per_sequence(config, facts) is None:
        return None
    layers = facts.attention_layers
    latent, rope = facts.number("kv_lora_rank"), facts.number("qk_rope_head_dim")
    if layers is not None and latent is not None and rope is not None:
        return layers * (latent + rope) * _width(config)
    heads = facts.number("num_attention_heads")
    hidden, kv_heads = facts.number("hidden_size"), facts.number("num_key_value_heads") or heads
    if layers is None or heads is None or hidden is None or kv_heads is None:
        return None
    head = facts.number("head_dim") or hidden // heads
    return layers * 2 * kv_heads * head * _width(config)


def state_bytes_per_sequence(config: Config, facts: ModelFacts) -> int | None:
    """Of the engine's cache, for the recurrent layers of a hybrid model: convolution, and state in float32.

    vLLM keeps a second state of each sequence where it caches prefixes. None where the shapes are not known.
    """
    if not facts.recurrent_layers:
        return 0
    heads, head, state = (
        facts.number(key) for key in ("mamba_num_heads", "mamba_head_dim", "ssm_state_size")
    )
    groups, kernel = facts.number("n_groups"), facts.number("conv_kernel")
    if heads is None or head is None or state is None or groups is None or kernel is None:
        return None
    convolution = (heads * head + 2 * groups * state) * (kernel - 1) * _width(config)
    states = 2 if config.inference.model.enable_prefix_caching else 1
    return facts.recurrent_layers * states * (heads * head * state * 4 + convolution)


def engine_need(config: Config, facts: ModelFacts, device: str) -> Need:
    """One GPU of an engine without its KV cache, which takes what is left; on the CPU the whole engine."""
    weights = facts.parameters * _width(config) / config.inference.parallel.tp
    slots = config.orchestrator.max_async_level + 2  # versions in use, and the one being loaded
    terms = [Term("weights", weights, floor=True), Term("adapters", slots * adapter_bytes(config, facts))]
    if states := state_bytes_per_sequence(config, facts):
        count = config.inference.model.max_num_seqs
        terms.append(Term("states", count * states / config.inference.parallel.tp))
    if device == "cpu":
        cache = config.inference.cpu_kv_cache_gib * GIB
        logits = CPU_LOGIT_COPIES * config.seq_len * (facts.number("vocab_size") or 0) * 4
        return Need(
            (
                *terms,
                Term("KV cache", cache, floor=True),
                Term("logits", logits),
                Term("processes", CPU_ENGINE_BYTES),
            )
        )
    return Need((*terms, Term("process", GPU_PROCESS_BYTES)))


def learner_need(config: Config, facts: ModelFacts, device: str, *, tokens: int | None = None) -> Need:
    """One learner rank: its shard of the base (ZeRO-3), what it gathers, adapter, activations.

    `tokens` of its fullest micro-batch; as many as the config allows when None.
    """
    ranks, width = max(1, len(config.trainer_gpu_ids)), _width(config)
    tokens = tokens or config.trainer.micro_batch_tokens or config.seq_len
    threshold = config.trainer.zero.param_persistence_threshold
    whole = sum(size for shape in facts.tensors.values() if (size := math.prod(shape)) < threshold)
    sharded = facts.parameters - whole
    layers = facts.number("num_hidden_layers") or len(facts.layer_kinds) or 1
    hidden, vocabulary = facts.number("hidden_size") or 0, facts.number("vocab_size") or 0
    gathered = min(sharded, config.trainer.zero.prefetch_bucket_size + facts.largest_layer)
    held = (
        CPU_FRAGMENTATION * _kept_values(config, facts)
        if device == "cpu"
        else LAYER_VALUES_PER_HIDDEN * hidden
    )
    one_layer = tokens * max(held * width, _scan_bytes(facts))
    recompute = config.trainer.model.gradient_checkpointing
    kept = layers * tokens * hidden * width if recompute else (layers - 1) * one_layer
    logits = 2 * min(config.trainer.model.logits_chunk, tokens) * vocabulary * 4
    optimizer = adapter_parameters(config, facts) * (2 * width + 12 / ranks)
    return Need(
        (
            Term("base", (whole + sharded / ranks) * width, floor=True),
            Term("gathered", gathered * width if ranks > 1 else 0),
            Term("adapter, gradients, optimizer", optimizer, floor=True),
            Term("activations", kept + one_layer),
            Term("logits", logits),
            Term("process", CPU_LEARNER_BYTES if device == "cpu" else GPU_PROCESS_BYTES),
        )
    )


def _scan_bytes(facts: ModelFacts) -> int:
    """Of a recurrent layer, per token."""
    heads, state = facts.number("mamba_num_heads") or 0, facts.number("ssm_state_size") or 0
    return heads * state * SCAN_VALUES_PER_STATE * 4 if facts.recurrent_layers else 0


def cpu_rest_need(config: Config) -> Need:
    """What runs beside engines and ranks on a CPU."""
    workers = len(config.orchestrator.env) * config.orchestrator.env_workers
    return Need((Term("environment workers", workers * CPU_WORKER_BYTES), Term("rest", CPU_REST_BYTES)))


def _kept_values(config: Config, facts: ModelFacts) -> float:
    """What a layer keeps for its backward pass on the CPU, a token, for sequences of `seq_len`: its inputs and norms;
    query, output, and keys and values with their prompt's beside them; half a row of scores a head; and of the
    experts or the one MLP that a token goes through, gate, up, their product and the input of down."""
    hidden, heads = facts.number("hidden_size") or 0, facts.number("num_attention_heads") or 0
    size = facts.number("head_dim") or (hidden // heads if heads else 0)
    inner = facts.number("moe_intermediate_size") or facts.number("intermediate_size") or 4 * hidden
    experts = facts.number("num_experts_per_tok") or 1
    return 4 * hidden + heads * (6 * size + config.seq_len / 2) + 4 * experts * inner


def _width(config: Config) -> int:
    return 2 if config.model.dtype == "bfloat16" else 4
