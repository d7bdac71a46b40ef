"""Shapes of the models that the recipes name, so that a recipe can be planned where the model is not.

Both have 60 GB: their figures are checked on a laptop before any machine that holds them is rented.
"""

from collections.abc import Mapping

Shape = tuple[int, ...]

GLM_4_7_FLASH = "zai-org/GLM-4.7-Flash"
NEMOTRON_3_NANO = "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16"

_GLM_4_7_FLASH = {
    "architectures": ["Glm4MoeLiteForCausalLM"],
    "model_type": "glm4_moe_lite",
    "hidden_size": 2048,
    "num_hidden_layers": 47,
    "num_attention_heads": 20,
    "vocab_size": 154_880,
    "max_position_embeddings": 202_752,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 192,
    "qk_rope_head_dim": 64,
    "v_head_dim": 256,
    "n_routed_experts": 64,
    "num_experts_per_tok": 4,
}

_NEMOTRON_3_NANO = {
    "architectures": ["NemotronHForCausalLM"],
    "model_type": "nemotron_h",
    "hybrid_override_pattern": "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME",
    "hidden_size": 2688,
    "num_hidden_layers": 52,
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "vocab_size": 131_072,
    "max_position_embeddings": 262_144,
    "mamba_num_heads": 64,
    "mamba_head_dim": 64,
    "ssm_state_size": 128,
    "n_groups": 8,
    "conv_kernel": 4,
    "chunk_size": 128,
    "n_routed_experts": 128,
    "num_experts_per_tok": 6,
    "moe_intermediate_size": 1856,
    "moe_shared_expert_intermediate_size": 3712,
}

_CONFIGS: Mapping[str, Mapping[str, object]] = {
    GLM_4_7_FLASH: _GLM_4_7_FLASH,
    NEMOTRON_3_NANO: _NEMOTRON_3_NANO,
}


def known_config(name: str) -> Mapping[str, object] | None:
    """What matters here of the model's config.json, or None for a model that is not known."""
    return _CONFIGS.get(name)


def known_tensors(name: str) -> dict[str, Shape]:
    """Weight names and shapes, as Transformers holds them."""
    if name == GLM_4_7_FLASH:
        return _glm_4_7_flash()
    return _nemotron_3_nano() if name == NEMOTRON_3_NANO else {}


def _glm_4_7_flash() -> dict[str, Shape]:
    """Glm4MoeLite: MLA with 20 heads (192 + 64 query-key, 256 value), 64 experts from the second layer on."""
    hidden, vocabulary, heads, query_rank, kv_rank = 2048, 154_880, 20, 768, 512
    tensors: dict[str, Shape] = {
        "model.embed_tokens.weight": (vocabulary, hidden),
        "lm_head.weight": (vocabulary, hidden),
    }
    for layer in range(47):
        attention, mlp = f"model.layers.{layer}.self_attn", f"model.layers.{layer}.mlp"
        tensors[f"{attention}.q_a_proj.weight"] = (query_rank, hidden)
        tensors[f"{attention}.q_b_proj.weight"] = (heads * (192 + 64), query_rank)
        tensors[f"{attention}.kv_a_proj_with_mqa.weight"] = (kv_rank + 64, hidden)
        tensors[f"{attention}.kv_b_proj.weight"] = (heads * (192 + 256), kv_rank)
        tensors[f"{attention}.o_proj.weight"] = (hidden, heads * 256)
        if layer == 0:
            tensors |= _mlp(mlp, hidden, 10_240)
            continue
        tensors[f"{mlp}.gate.weight"] = (64, hidden)
        tensors |= _mlp(f"{mlp}.shared_experts", hidden, 1536)
        tensors[f"{mlp}.experts.gate_up_proj"] = (64, 2 * 1536, hidden)
        tensors[f"{mlp}.experts.down_proj"] = (64, hidden, 1536)
    return tensors


def _nemotron_3_nano() -> dict[str, Shape]:
    """NemotronH: a layer is a Mamba-2 mixer (M), 128 experts of two matrices and a shared one (E), or attention (*).

    Sources: `NemotronHConfig` and the model in Transformers 5.23; the values of config.json as public converters of
    the checkpoint have them. They add up to the model card's 31.6 B.
    """
    hidden, vocabulary, inner, heads, conv = 2688, 131_072, 64 * 64, 64, 64 * 64 + 2 * 8 * 128
    tensors: dict[str, Shape] = {
        "model.embeddings.weight": (vocabulary, hidden),
        "lm_head.weight": (vocabulary, hidden),
    }
    for layer, kind in enumerate(str(_NEMOTRON_3_NANO["hybrid_override_pattern"])):
        mixer = f"model.layers.{layer}.mixer"
        if kind == "M":
            tensors[f"{mixer}.in_proj.weight"] = (inner + conv + heads, hidden)
            tensors[f"{mixer}.conv1d.weight"] = (conv, 1, 4)
            tensors[f"{mixer}.out_proj.weight"] = (hidden, inner)
        elif kind == "E":
            tensors[f"{mixer}.gate.weight"] = (128, hidden)
            tensors[f"{mixer}.shared_experts.up_proj.weight"] = (3712, hidden)
            tensors[f"{mixer}.shared_experts.down_proj.weight"] = (hidden, 3712)
            tensors[f"{mixer}.experts.up_proj"] = (128, 1856, hidden)
            tensors[f"{mixer}.experts.down_proj"] = (128, hidden, 1856)
        else:
            tensors[f"{mixer}.q_proj.weight"] = (32 * 128, hidden)
            tensors[f"{mixer}.k_proj.weight"] = (2 * 128, hidden)
            tensors[f"{mixer}.v_proj.weight"] = (2 * 128, hidden)
            tensors[f"{mixer}.o_proj.weight"] = (hidden, 32 * 128)
    return tensors


def _mlp(prefix: str, hidden: int, inner: int) -> dict[str, Shape]:
    return {
        f"{prefix}.gate_proj.weight": (inner, hidden),
        f"{prefix}.up_proj.weight": (inner, hidden),
        f"{prefix}.down_proj.weight": (hidden, inner),
    }
