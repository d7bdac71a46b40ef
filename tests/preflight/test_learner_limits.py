"""What config.json and the tensors' names say about the learner's limits.

That these are the learner's limits, and all of them, is measured in tests/learning/test_families.py.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rezero_ray.preflight.architecture import Architecture
from rezero_ray.preflight.engine_limits import engine_limits
from rezero_ray.preflight.learner_limits import learner_limits
from rezero_ray.preflight.model_facts import ModelFacts
from rezero_ray.preflight.weights import weight_faults
from tests.record_builders import make_config

SEQ_LEN = 64
CONFIG = make_config(seq_len=SEQ_LEN)
SLIDING, FULL = "sliding_attention", "full_attention"
LONGROPE = {"rope_type": "longrope", "original_max_position_embeddings": 32}


def limits(config: Mapping[str, Any], tensors: tuple[str, ...] = ()) -> list[str]:
    written = {"model_type": "llama", "num_hidden_layers": 2, **config}
    facts = ModelFacts("model", Path("model"), written, dict.fromkeys(tensors, (1, 1)))
    return [limit.what for limit in learner_limits(Architecture(facts), CONFIG)]


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"model_type": "mistral", "sliding_window": 63}, "sliding_window = 63"),
        ({"model_type": "mistral", "sliding_window": 63, "use_sliding_window": False}, "sliding_window = 63"),
        ({"model_type": "phi3", "sliding_window": 1}, "sliding_window = 1"),
        (
            {"sliding_window": 8},
            "sliding_window = 8",
        ),  # Llama's class has no such key, vLLM reads it all the same
        (
            {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
            "sliding_window = 8",
        ),
        ({"model_type": "gemma3_text", "sliding_window": 8}, "sliding_window = 8"),
        (
            {"model_type": "gemma3_text", "sliding_window": 8, "layer_types": [FULL, SLIDING]},
            "sliding_window = 8",
        ),
        ({"model_type": "gpt_oss", "sliding_window": 128}, 'model_type = "gpt_oss"'),
        ({"model_type": "llama4_text", "attention_chunk_size": 32}, "attention_chunk_size = 32"),
        ({"model_type": "inkling_text", "sliding_window_size": 16}, "sliding_window_size = 16"),
        ({"model_type": "of_tomorrow", "sliding_window": 8, "layer_types": [SLIDING]}, "sliding_window = 8"),
        (
            {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "sliding_window": 8}},
            "text_config.sliding_window = 8",
        ),
        ({"model_type": "gemma2", "attn_logit_softcapping": 50.0}, "attn_logit_softcapping = 50.0"),
        (
            {"model_type": "gemma2", "attn_logit_softcapping": None},
            "final_logit_softcapping, and Gemma2Config",
        ),
        ({"model_type": "gemma3_text", "final_logit_softcapping": 30}, "final_logit_softcapping = 30"),
        ({"text_config": {"final_logit_softcapping": 30.0}}, "text_config.final_logit_softcapping = 30.0"),
        ({"model_type": "granite", "logits_scaling": 8.0}, "logits_scaling = 8.0"),
        ({"model_type": "cohere2", "logit_scale": 0.25}, "logit_scale = 0.25"),
        ({"model_type": "cohere"}, "logit_scale, and CohereConfig defaults to 0.0625"),
        ({"model_type": "falcon_h1", "lm_head_multiplier": 0.5}, "lm_head_multiplier = 0.5"),
        ({"model_type": "minicpm", "hidden_size": 2304, "dim_model_base": 256}, "dim_model_base = 256"),
        ({"model_type": "granite_swa"}, "sinks"),
        ({"add_swa_attention_sink_bias": True}, "add_swa_attention_sink_bias = true"),
        ({"model_type": "phi"}, 'model_type = "phi"'),
        ({"model_type": "phimoe", "lm_head_bias": True}, "lm_head_bias = true"),
        ({"model_type": "qwen3_next", "layer_types": ["linear_attention", FULL]}, '"linear_attention"'),
        ({"model_type": "lfm2", "layer_types": ["conv", FULL]}, '"conv"'),
        ({"model_type": "jamba"}, 'model_type = "jamba"'),
        ({"model_type": "zamba2", "layers_block_type": ["mamba", "hybrid"]}, '"hybrid"'),
        ({"text_config": {"layer_types": ["mamba", FULL]}}, '"mamba"'),
        ({"model_type": "deepseek_v3", "index_topk": 2048}, "index_topk = 2048"),
        ({"model_type": "falcon", "alibi": True}, "alibi = true"),
        ({"model_type": "gemma", "use_bidirectional_attention": True}, "use_bidirectional_attention = true"),
        ({"attention_dropout": 0.1}, "attention_dropout = 0.1"),
        ({"model_type": "seed_oss"}, "residual_dropout, and SeedOssConfig defaults to 0.1"),
        ({"model_type": "mixtral", "router_jitter_noise": 0.01}, "router_jitter_noise = 0.01"),
        ({"model_type": "phi3", "rope_scaling": LONGROPE}, "original_max_position_embeddings = 32"),
        (
            {"model_type": "phi3", "original_max_position_embeddings": 32, "rope_scaling": {"type": "su"}},
            'rope_type = "su"',
        ),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, 'rope_type = "dynamic"'),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_the_learner_does_not_compute_is_named_with_key_and_value(
    config: Mapping[str, Any], named: str
) -> None:
    assert any(named in what for what in limits(config)), limits(config)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"model_type": "mistral", "sliding_window": SEQ_LEN},
        {"model_type": "mistral", "sliding_window": 0},  # vLLM takes it as none
        {"model_type": "mistral", "sliding_window": None},
        {"model_type": "mistral"},  # 4096 by default, longer than seq_len
        {"model_type": "qwen2", "use_sliding_window": False, "sliding_window": 8, "max_window_layers": 0},
        {"model_type": "qwen2", "sliding_window": 8},  # off by default
        {"model_type": "qwen3", "use_sliding_window": True, "sliding_window": 8, "layer_types": [FULL, FULL]},
        {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2},
        {"model_type": "gemma3_text", "sliding_window": 8, "layer_types": [FULL, FULL]},
        {"model_type": "llama4_text", "attention_chunk_size": 8192},
        {"model_type": "gemma2", "attn_logit_softcapping": None, "final_logit_softcapping": None},
        {
            "model_type": "granite",
            "logits_scaling": 1,
            "embedding_multiplier": 12.0,
            "residual_multiplier": 0.2,
        },
        {"model_type": "cohere", "logit_scale": 1.0},
        {"model_type": "nemotron_h", "layer_types": ["mamba", FULL]},
        {"model_type": "nemotron_h", "hybrid_override_pattern": "M*E-"},
        {"model_type": "gemma", "use_bidirectional_attention": False},
        {"attention_dropout": 0.0, "classifier_dropout": 0.1, "summary_first_dropout": 0.1},
        {"model_type": "ernie4_5", "use_bias": True},
        {"model_type": "phi3", "rope_scaling": LONGROPE | {"original_max_position_embeddings": SEQ_LEN}},
        {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
        {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}},
        {"model_type": "hunyuan_v1_dense", "rope_scaling": {"type": "dynamic", "alpha": 1000.0}},
    ],
)
def test_what_the_learner_computes_is_not_refused(config: Mapping[str, Any]) -> None:
    assert limits(config) == []


def test_sinks_and_a_biased_head_are_told_by_the_tensors_too() -> None:
    assert "model.layers.0.self_attn.sinks" in limits({}, ("model.layers.0.self_attn.sinks",))[0]
    assert "lm_head.bias" in limits({}, ("model.norm.weight", "lm_head.bias"))[0]
    assert limits({}, ("model.layers.0.mlp.down_proj.bias", "lm_head.weight")) == []


def test_a_shorter_seq_len_is_the_remedy_for_a_window() -> None:
    facts = ModelFacts("model", Path("model"), {"model_type": "mistral", "sliding_window": 48}, {})
    (limit,) = learner_limits(Architecture(facts), CONFIG)
    assert "write seq_len = 48 or less" in limit.remedy and limit.others == ("seq_len",)
    assert learner_limits(Architecture(facts), make_config(seq_len=48)) == []


KEYS = [
    *("model_type", "architectures", "text_config", "sliding_window", "use_sliding_window", "layer_types"),
    *(
        "max_window_layers",
        "num_hidden_layers",
        "hidden_size",
        "vocab_size",
        "rope_parameters",
        "rope_scaling",
    ),
    *(
        "final_logit_softcapping",
        "logits_scaling",
        "dim_model_base",
        "index_topk",
        "attention_dropout",
        "is_causal",
    ),
    *("quantization_config", "vision_config", "is_encoder_decoder", "auto_map", "tie_word_embeddings"),
]
MODEL_TYPES = st.sampled_from(["llama", "mistral", "gemma2", "qwen2", "nemotron_h", "phi3", "nothing"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | MODEL_TYPES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(config=st.dictionaries(st.sampled_from(KEYS), ANYTHING), kind=MODEL_TYPES)
def test_no_config_json_makes_the_preflight_fail(config: dict[str, Any], kind: str) -> None:
    tensors = {"model.embed_tokens.weight": (8, 4), "model.layers.0.self_attn.q_proj.weight": (4, 4)}
    model = Architecture(ModelFacts("model", None, {"model_type": kind} | config, tensors))
    for limit in [*engine_limits(model, CONFIG), *learner_limits(model, CONFIG)]:
        assert limit.what and limit.remedy
    weight_faults(model)


def test_a_model_is_judged_in_milliseconds() -> None:
    limits({"model_type": "qwen3"})
    started = time.perf_counter()
    for _ in range(100):
        limits({"model_type": "qwen3", "sliding_window": 8, "use_sliding_window": True})
    assert (time.perf_counter() - started) / 100 < 0.02
