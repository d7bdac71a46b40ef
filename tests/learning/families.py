"""Tiny random models of every family that vLLM serves with LoRA, and two ways to compute their logprobs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rezero_ray.learning import attention
from rezero_ray.learning.policy import PolicyModel
from rezero_ray.learning.recurrence import separate_segments
from rezero_ray.preflight.model_facts import ModelFacts

SMALL: Mapping[str, Any] = {
    "vocab_size": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "max_position_embeddings": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "query_pre_attn_scalar": 32,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 64,
    "moe_num_experts": 4,
    "moe_k": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "expert_ffn_hidden_size": 64,
    "moe_topk": 2,
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 32,
    "v_head_dim": 32,
    "ffn_dim": 128,
    "word_embed_proj_dim": 64,
    "ffn_hidden_size": 128,
    "num_layers": 2,
    "index_topk": 512,
    "index_n_heads": 4,
    "index_head_dim": 32,
    "hidden_size_per_layer_input": 16,
    "num_kv_shared_layers": 0,
    "vocab_size_per_layer_input": 512,
    "rms_norm_eps": 1e-6,
    "sliding_window": 512,
    "n_embd": 64,
    "n_head": 4,
    "n_layer": 2,
    "n_inner": 128,
    "n_positions": 512,
}
"""Sizes for configuration classes that have a field of that name."""

OF_A_FAMILY: Mapping[str, Mapping[str, Any]] = {
    "falcon_h1": {"mamba_d_ssm": 128, "mamba_n_heads": 4, "mamba_d_head": 32, "mamba_d_state": 16},
    "granitemoehybrid": {"mamba_n_heads": 4, "mamba_d_head": 32, "mamba_d_state": 16},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "longcat_flash": {"head_dim": 16},
}

LATENT = {"num_key_value_heads": 4}
PROMPT, TAILS = 20, (25, 3, 30)
LONGEST = PROMPT + max(TAILS)


def make_family(model_type: str, **changes: Any) -> tuple[nn.Module, ModelFacts]:
    """A random model in float32 and what its files would say; `changes` are keys of its config.json."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    from rezero_ray.preflight.transformers_source import causal_classes

    kind = CONFIG_MAPPING[model_type]
    fields = {field for ancestor in kind.__mro__ for field in getattr(ancestor, "__annotations__", {})}
    sizes = {name: value for name, value in SMALL.items() if name in fields}
    if "kv_lora_rank" in fields:
        sizes |= LATENT
    config = kind(**sizes | dict(OF_A_FAMILY.get(model_type, {})) | changes)
    config.dtype = torch.float32
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model = getattr(transformers, causal_classes()[model_type])(config).float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, parameter.shape[-1] ** -0.5)
            elif "bias" in name or "sink" in name:
                parameter.normal_(0, 0.1)
            parameter.requires_grad_(False)
    written = json.loads(config.to_json_string(use_diff=False)) | {"architectures": [type(model).__name__]}
    tensors = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    return model, ModelFacts(model_type, Path(), written, tensors)


class _Unadapted:
    """What `PolicyModel` asks of a PEFT model."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def get_base_model(self) -> nn.Module:
        return self._model


def largest_difference(model: Any) -> float:
    """Between the logprobs of completions packed behind one prompt, as the learner computes them in training, and
    the model's own, one sequence at a time, in nats."""
    random = torch.Generator().manual_seed(0)
    prompt, *tails = (torch.randint(10, 500, (count,), generator=random) for count in (PROMPT, *TAILS))
    model.eval()
    with torch.no_grad():
        own = [_own_logprobs(model, torch.cat((prompt, tail)))[PROMPT - 1 :] for tail in tails]
        packed = _packed_logprobs(model, prompt, tails)
    return float((packed - torch.cat(own)).abs().max())


def _own_logprobs(model: Any, token_ids: Tensor) -> Tensor:
    """Logprobs of `token_ids[1:]`."""
    logits = model(input_ids=token_ids[None], use_cache=False).logits[0, :-1].float()
    return torch.log_softmax(logits, dim=-1).gather(1, token_ids[1:, None]).squeeze(1)


def _packed_logprobs(model: Any, prompt: Tensor, tails: list[Tensor]) -> Tensor:
    segments, sources, targets, positions = [(0, PROMPT, 0, 0)], [], [], [torch.arange(PROMPT)]
    at = PROMPT
    for tail in tails:
        length = len(tail)
        segments.append((at, at + length, 0, PROMPT))
        sources += [PROMPT - 1, *range(at, at + length - 1)]
        targets.append(tail)
        positions.append(PROMPT + torch.arange(length))
        at += length
    model.set_attn_implementation(attention.register())
    if model.config.model_type == "nemotron_h":  # others with recurrent layers are refused by it
        separate_segments(model)
    policy = PolicyModel(_Unadapted(model), temperature=1.0, logits_chunk=7)
    policy.train()
    model.train()
    logprobs, _ = policy(
        token_ids=torch.cat((prompt, *tails)),
        position_ids=torch.cat(positions),
        segments=segments,
        sources=torch.tensor(sources),
        targets=torch.cat(targets),
    )
    return logprobs
