"""The random models are reproducible, have the layers that the tests speak of, and leave no trace."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rezero_ray.models import smollm2
from rezero_ray.models.tiny import make_tiny_deepseek_v3, make_tiny_llama

pytestmark = pytest.mark.slow

TOKENIZER = Path(__file__).parents[2] / smollm2.DEFAULT_OUTPUT

Maker = Callable[..., Path]


@pytest.mark.parametrize("make", [make_tiny_llama, make_tiny_deepseek_v3])
def test_the_seed_alone_decides_the_weights(make: Maker, tmp_path: Path) -> None:
    import torch

    before = torch.get_rng_state()
    first, again, other = (
        make(tmp_path / name, seed=seed, tokenizer_from=TOKENIZER) / "model.safetensors"
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert first.read_bytes() == again.read_bytes()
    assert first.read_bytes() != other.read_bytes()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("make", [make_tiny_llama, make_tiny_deepseek_v3])
def test_its_tokenizer_fits_its_embedding(make: Maker, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoTokenizer

    path = make(tmp_path / "model", tokenizer_from=TOKENIZER)
    tokenizer, config = AutoTokenizer.from_pretrained(path), AutoConfig.from_pretrained(path)
    assert len(tokenizer) == config.vocab_size
    assert tokenizer.eos_token_id == config.eos_token_id
    assert tokenizer.chat_template


def test_deepseek_has_the_attention_of_glm_and_no_experts(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        make_tiny_deepseek_v3(tmp_path / "m", tokenizer_from=TOKENIZER)
    )
    linears = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    assert linears == {
        *("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj", "lm_head"),
    }
