"""Random models of a few million parameters, nearly all in the embedding, made on the spot for tests.

Each is a folder like any other model's (config, bf16 safetensors, tokenizer with chat template), takes a
second to make and loads in Transformers, PEFT, DeepSpeed and vLLM. Their texts are noise; what they are good
for is that two programs must agree on the noise.

The tokenizer is SmolLM2's (49,152 tokens), so the folder of `rezero_ray.models.smollm2` has to be there.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from rezero_ray.models.smollm2 import DEFAULT_OUTPUT, ensure_smollm2

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")

VOCABULARY = {"vocab_size": 49_152, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
"""SmolLM2's, because the tokenizer is."""


def make_tiny_llama(
    path: Path,
    *,
    hidden_size: int = 64,
    num_hidden_layers: int = 2,
    seed: int = 0,
    tokenizer_from: Path = DEFAULT_OUTPUT,
) -> Path:
    """Writes a random `LlamaForCausalLM` (grouped-query attention) to `path`; returns `path`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **VOCABULARY,
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,  # the least that vLLM's CPU attention has a kernel for
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=hidden_size**-0.5,
    )
    return _save_random(LlamaForCausalLM, config, path, seed, tokenizer_from)


def make_tiny_deepseek_v3(
    path: Path,
    *,
    hidden_size: int = 64,
    num_hidden_layers: int = 2,
    seed: int = 0,
    tokenizer_from: Path = DEFAULT_OUTPUT,
) -> Path:
    """Writes a random `DeepseekV3ForCausalLM` to `path`; returns `path`.

    It has GLM-4.7-Flash's attention (MLA: `q_a_proj`, `q_b_proj`, `kv_a_proj_with_mqa`, `kv_b_proj`,
    `o_proj`) without its experts, which vLLM's CPU build cannot run under LoRA: every layer is dense.

    On a CPU start vLLM 0.30 with `compilation_config={"custom_ops": ["-rotary_embedding"]}`: its rotary
    kernel misreads the per-head layout that MLA hands it (tests/models/test_tiny_in_vllm.py).
    """
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

    config = DeepseekV3Config(
        **VOCABULARY,
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=num_hidden_layers,
        first_k_dense_replace=num_hidden_layers,
        n_routed_experts=4,  # stated, never built
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        num_nextn_predict_layers=0,
        num_attention_heads=4,
        num_key_value_heads=4,
        q_lora_rank=32,
        kv_lora_rank=512,  # with the 64 below, the one size that vLLM's CPU build has an MLA kernel for
        qk_rope_head_dim=64,
        qk_nope_head_dim=32,
        v_head_dim=32,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        initializer_range=hidden_size**-0.5,
    )
    return _save_random(DeepseekV3ForCausalLM, config, path, seed, tokenizer_from)


def make_tiny_nemotron_h(
    path: Path,
    *,
    hidden_size: int = 64,
    experts: bool = True,
    seed: int = 0,
    tokenizer_from: Path = DEFAULT_OUTPUT,
) -> Path:
    """Writes a random `NemotronHForCausalLM` to `path`; returns `path`.

    It has the layers of Nemotron 3 Nano, each once and the Mamba-2 mixer twice; without `experts`, which vLLM's CPU
    build cannot run under LoRA, a plain MLP in their place. A chunk of the scan is shorter than a sequence. No step
    of time is as small as the bound that Transformers sets (`time_step_min`) and vLLM does not.
    """
    from transformers import NemotronHConfig, NemotronHForCausalLM

    config = NemotronHConfig(
        **VOCABULARY,
        hidden_size=hidden_size,
        layers_block_type=[
            "linear_attention",
            "moe" if experts else "mlp",
            "full_attention",
            "linear_attention",
        ],
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        mamba_num_heads=4,
        mamba_head_dim=32,
        ssm_state_size=16,
        n_groups=2,
        chunk_size=4,
        intermediate_size=hidden_size,
        time_step_min=1e-9,
        n_routed_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=hidden_size,
        moe_shared_expert_intermediate_size=hidden_size,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        initializer_range=hidden_size**-0.5,
    )
    return _save_random(NemotronHForCausalLM, config, path, seed, tokenizer_from)


def _save_random(
    architecture: "type[PreTrainedModel]",
    config: "PretrainedConfig",
    path: Path,
    seed: int,
    tokenizer_from: Path,
) -> Path:
    """Saves the model of `config` with weights that depend on `seed` alone; torch's global generator stays.

    All spread their weights by 1 / sqrt(hidden_size), so that layers keep the size of what passes
    through and attention is far from uniform: with the customary 0.02 a change of `q_proj` would hardly show.
    """
    import torch

    config.dtype = torch.bfloat16
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = architecture(config).to(torch.bfloat16)
    path = Path(path)
    model.save_pretrained(path)
    tokenizer = ensure_smollm2(tokenizer_from)
    for name in TOKENIZER_FILES:
        shutil.copyfile(tokenizer / name, path / name)
    return path
