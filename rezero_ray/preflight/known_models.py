"""Shapes of the models that the recipes name, so that a recipe can be planned where the model is not.

GLM-4.7-Flash is 60 GB: its figures are checked on a laptop before any machine that holds it is rented.
"""

from collections.abc import Mapping

Shape = tuple[int, ...]

_GLM_4_7_FLASH = {
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


def known_config(name: str) -> Mapping[str, object] | None:
    """What matters here of the model's config.json, or None for a model that is not known."""
    return _GLM_4_7_FLASH if name == "zai-org/GLM-4.7-Flash" else None


def known_tensors(name: str) -> dict[str, Shape]:
    """Weight names and shapes, as the model's safetensors headers would give them."""
    return _glm_4_7_flash() if name == "zai-org/GLM-4.7-Flash" else {}


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


def _mlp(prefix: str, hidden: int, inner: int) -> dict[str, Shape]:
    return {
        f"{prefix}.gate_proj.weight": (inner, hidden),
        f"{prefix}.up_proj.weight": (inner, hidden),
        f"{prefix}.down_proj.weight": (hidden, inner),
    }
