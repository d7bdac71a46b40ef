"""A slice of GLM-4.7-Flash: its shapes, fewer layers, random weights; and the policy around it."""

from typing import Any

import torch

from rezero_ray.config.schema import Config
from rezero_ray.learning import attention
from rezero_ray.learning.policy import PolicyModel, adapt

TARGETS = ["q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "o_proj"]


def glm_config(small: bool, layers: int = 4) -> Any:
    """Shapes of zai-org/GLM-4.7-Flash (`rezero_ray.preflight.known_models`); the first layer is dense."""
    from transformers import Glm4MoeLiteConfig

    sizes: dict[str, Any] = (
        {"hidden_size": 64, "intermediate_size": 128, "moe_intermediate_size": 32, "vocab_size": 1000}
        | {"num_attention_heads": 4, "num_key_value_heads": 4, "q_lora_rank": 32, "kv_lora_rank": 32}
        | {"qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 32, "n_routed_experts": 8}
        if small
        else {
            "hidden_size": 2048,
            "intermediate_size": 10_240,
            "moe_intermediate_size": 1536,
            "vocab_size": 154_880,
        }
        | {"num_attention_heads": 20, "num_key_value_heads": 20, "q_lora_rank": 768, "kv_lora_rank": 512}
        | {"qk_nope_head_dim": 192, "qk_rope_head_dim": 64, "v_head_dim": 256, "n_routed_experts": 64}
    )
    return Glm4MoeLiteConfig(
        **sizes,
        num_hidden_layers=2 if small else layers,
        num_experts_per_tok=4,
        n_shared_experts=1,
        n_group=1,
        topk_group=1,
        routed_scaling_factor=1.8,
        max_position_embeddings=8192,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=False,
    )


def run_config() -> Config:
    """The learner's part of the recipe."""
    return Config.model_validate(
        {
            "max_steps": 1,
            "output_dir": "unused",
            "model": {"name": "random"},
            "trainer": {"model": {"lora": {"rank": 16, "alpha": 32.0, "target_modules": TARGETS}}},
            "orchestrator": {"env": [{"id": "phishing-detection"}]},
        }
    )


def make_policy(config: Any, run: Config, device: torch.device) -> PolicyModel:
    """A random base in bfloat16 on the device, with an adapter whose B matrices are not zero."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    with torch.device(device):
        base = AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16, attn_implementation=attention.register()
        )
    policy = adapt(base, run).to(device)
    with torch.no_grad():
        for name, parameter in policy.adapter_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.01)
    return policy


def active_parameters(config: Any) -> int:
    """Weights that a token is multiplied with in the layers: attention, dense MLP, chosen and shared experts."""
    heads, hidden = config.num_attention_heads, config.hidden_size
    query_size = config.qk_nope_head_dim + config.qk_rope_head_dim
    attention_weights = (
        hidden * config.q_lora_rank
        + config.q_lora_rank * heads * query_size
        + hidden * (config.kv_lora_rank + config.qk_rope_head_dim)
        + config.kv_lora_rank * heads * (config.qk_nope_head_dim + config.v_head_dim)
        + heads * config.v_head_dim * hidden
    )
    dense = sum(kind == "dense" for kind in config.mlp_layer_types)
    sparse = config.num_hidden_layers - dense
    chosen = config.num_experts_per_tok + config.n_shared_experts
    return (
        config.num_hidden_layers * attention_weights
        + dense * 3 * hidden * config.intermediate_size
        + sparse * (3 * hidden * config.moe_intermediate_size * chosen + hidden * config.n_routed_experts)
    )
