"""A model that the preflight accepts has the logprobs that Transformers computes; one that it refuses has not.

Each is a tiny random model of the family, packed behind a shared prompt and in training mode as the learner has it,
against the model's own forward pass, one sequence at a time. The longest sequence has 50 tokens.
"""

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from rezero_ray.preflight.architecture import Architecture
from rezero_ray.preflight.engine_architectures import WITH_LORA
from rezero_ray.preflight.engine_limits import engine_limits
from rezero_ray.preflight.learner_limits import learner_limits
from rezero_ray.preflight.transformers_source import causal_classes
from tests.learning.families import LONGEST, largest_difference, make_family
from tests.record_builders import make_config

torch.set_num_threads(1)

CONFIG = make_config(seq_len=LONGEST)
AGREES = 1e-4  # nats; rounding in float32 makes 3e-6 of it
OFTEN_USED = ("llama", "qwen3", "qwen3_moe", "glm4_moe_lite", "gemma2", "gpt_oss", "granite")
COMPOSITE = ("llama4",)  # its language model is llama4_text
FAMILIES = [
    kind
    for kind, name in causal_classes().items()
    if name in WITH_LORA and kind not in (*OFTEN_USED, *COMPOSITE)
]

CHANGES: list[tuple[str, Mapping[str, Any], bool]] = [
    ("mistral", {"sliding_window": LONGEST - 1}, False),
    ("mistral", {"sliding_window": LONGEST}, True),
    ("mistral", {"sliding_window": None}, True),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, False),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}, True),
    ("qwen2", {"use_sliding_window": False, "sliding_window": 8}, True),
    ("qwen3", {"layer_types": ["full_attention", "sliding_attention"], "use_sliding_window": True}, True),
    ("gemma3_text", {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}, False),
    ("gemma3_text", {"sliding_window": 8, "layer_types": ["full_attention"] * 2}, True),
    ("gemma3_text", {"final_logit_softcapping": 3.0}, False),
    ("gemma2", {"final_logit_softcapping": None, "attn_logit_softcapping": None}, True),
    ("exaone4", {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}, False),
    ("granite", {"logits_scaling": 4.0}, False),
    ("granite", {"embedding_multiplier": 3.0, "attention_multiplier": 0.2, "residual_multiplier": 0.5}, True),
    ("hyperclovax", {"logits_scaling": 0.5}, False),
    ("cohere", {"logit_scale": 1.0}, True),
    ("ernie4_5_moe", {"use_bias": True}, False),
    ("seed_oss", {"attention_dropout": 0.0, "residual_dropout": 0.1}, False),
    ("seed_oss", {"attention_dropout": 0.0, "residual_dropout": 0.0}, True),
    ("mixtral", {"router_jitter_noise": 0.1}, False),
    ("opt", {"dropout": 0.0}, True),
    (
        "phi3",
        {
            "original_max_position_embeddings": 45,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": [1.0] * 8,
                "long_factor": [4.0] * 8,
                "original_max_position_embeddings": 45,
            },
        },
        False,
    ),
]


def verdict(model_type: str, changes: Mapping[str, Any]) -> tuple[list[str], float | str]:
    """What the preflight says against the model, and how far the learner's logprobs are from the model's own: nats,
    or the error that the learner ends with."""
    model, facts = make_family(model_type, **changes)
    described = Architecture(facts)
    limits = [*engine_limits(described, CONFIG), *learner_limits(described, CONFIG)]
    try:
        difference: float | str = largest_difference(model)
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        difference = f"{type(error).__name__}: {error}"
    return [limit.what for limit in limits], difference


def require_agreement(limits: list[str], difference: float | str) -> None:
    agrees = isinstance(difference, float) and difference < AGREES
    assert agrees == (not limits), f"refused for {limits}, learner against model: {difference}"


@pytest.mark.parametrize("model_type", OFTEN_USED)
def test_a_family_is_accepted_exactly_where_the_learner_computes_it(model_type: str) -> None:
    require_agreement(*verdict(model_type, {}))


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_family_with_lora_is_accepted_exactly_where_the_learner_computes_it(model_type: str) -> None:
    require_agreement(*verdict(model_type, {}))


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize(("model_type", "changes", "accepted"), CHANGES)
def test_a_setting_is_refused_exactly_where_it_changes_the_logprobs(
    model_type: str, changes: Mapping[str, Any], accepted: bool
) -> None:
    limits, difference = verdict(model_type, changes)
    require_agreement(limits, difference)
    assert accepted == (not limits)
