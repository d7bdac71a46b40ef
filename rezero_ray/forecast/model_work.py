"""What a model costs: operations and bytes a token, by the shapes of its weights. Pure arithmetic.

Of a mixture of experts only the experts that a token is sent to compute, but a batch reads all that any of its
tokens is sent to.
"""

import math
from dataclasses import dataclass

from rezero_ray.config import Config
from rezero_ray.preflight.memory import adapter_parameters, kv_bytes_per_token
from rezero_ray.preflight.model_facts import ModelFacts


@dataclass(frozen=True)
class ModelWork:
    """Parameters by how often they are used. Embeddings are looked up, not multiplied, and stand nowhere.

    Attributes:
        dense: parameters that every token is multiplied by, the output head apart.
        routed: parameters of all routed experts.
        experts, experts_a_token: of each layer that has any; 1 and 1 in a dense model.
        head: parameters of the output head.
        attention: operations of one token for each position that it attends to, all layers.
        cache_bytes: of the engine's cache, a token.
        layers, vocabulary: as config.json has them.
        sharded: parameters that ZeRO-3 gathers in each pass.
        adapter: parameters of the adapter.
        adapter_modules: linear modules that have one.
        width: bytes of a parameter.
    """

    dense: int
    routed: int
    experts: int
    experts_a_token: int
    head: int
    attention: int
    cache_bytes: int
    layers: int
    vocabulary: int
    sharded: int
    adapter: int
    adapter_modules: int
    width: int

    @property
    def active(self) -> float:
        """Parameters that a token is multiplied by, the head apart."""
        return self.dense + self.routed * self.experts_a_token / self.experts

    def flops(self, context: float) -> float:
        """Operations of the forward pass of one token that attends to `context` positions, without the head."""
        return 2 * self.active + self.attention * context

    def weight_bytes(self, tokens: float) -> float:
        """Read to compute so many tokens at once, the head included. Experts are drawn evenly:
        of E of them, n tokens with k each need E (1 - (1 - k / E)^n)."""
        drawn = 1 - (1 - self.experts_a_token / self.experts) ** tokens if self.routed else 0.0
        return self.width * (self.dense + self.head + self.routed * drawn)


def model_work(config: Config, facts: ModelFacts) -> ModelWork | None:
    """None where the model's shapes are not known, or config.json names no attention heads."""
    cache = kv_bytes_per_token(config, facts)
    vocabulary, layers = facts.number("vocab_size"), facts.number("num_hidden_layers")
    attention = _attention(facts)
    if not facts.tensors or cache is None or vocabulary is None or layers is None or attention is None:
        return None
    sizes = {name: math.prod(shape) for name, shape in facts.tensors.items() if len(shape) >= 2}
    routed = sum(size for name, size in sizes.items() if ".experts." in name)
    in_layers = sum(size for name, size in sizes.items() if ".layers." in name)
    threshold = config.trainer.zero.param_persistence_threshold
    width = 2 if config.model.dtype == "bfloat16" else 4
    targets = set(config.trainer.model.lora.target_modules)
    return ModelWork(
        dense=in_layers - routed,
        routed=routed,
        experts=_first_number(facts, "n_routed_experts", "num_experts", "num_local_experts") or 1,
        experts_a_token=facts.number("num_experts_per_tok") or 1,
        head=vocabulary * (facts.number("hidden_size") or 0),
        attention=layers * attention,
        cache_bytes=cache,
        layers=layers,
        vocabulary=vocabulary,
        sharded=sum(size for size in sizes.values() if size >= threshold),
        adapter=adapter_parameters(config, facts),
        adapter_modules=sum(len(shapes) for name, shapes in facts.linear_modules.items() if name in targets),
        width=width,
    )


def _attention(facts: ModelFacts) -> int | None:
    """Operations of one token, one layer and one position attended to: its score, and its part of the sum."""
    heads, hidden = facts.number("num_attention_heads"), facts.number("hidden_size")
    if heads is None or hidden is None:
        return None
    head = facts.number("head_dim") or hidden // heads
    nope, rope = facts.number("qk_nope_head_dim"), facts.number("qk_rope_head_dim")
    query = nope + rope if nope is not None and rope is not None else head
    return 2 * heads * (query + (facts.number("v_head_dim") or head))


def _first_number(facts: ModelFacts, *keys: str) -> int | None:
    return next((number for key in keys if (number := facts.number(key)) is not None), None)
