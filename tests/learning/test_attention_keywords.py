"""The learner's attention refuses what it does not compute, and ignores what asks for nothing."""

from typing import Any

import pytest
import torch

from rezero_ray.learning.attention import segment_attention

SEGMENTS = [(0, 4, 0, 0), (4, 7, 0, 4), (7, 9, 0, 4)]  # a prompt of 4 and two completions: 7 tokens at most


def attend(mask: torch.Tensor | None = None, **keywords: Any) -> torch.Tensor:
    query, key, value = torch.randn(3, 1, 2, 9, 4, generator=torch.Generator().manual_seed(0)).unbind()
    return segment_attention(torch.nn.Module(), query, key, value, mask, segments=SEGMENTS, **keywords)[0]


@pytest.mark.parametrize(
    "keywords",
    [
        {"sliding_window": 6},
        {"sliding_window": 1},
        {"softcap": 50.0},
        {"s_aux": torch.zeros(2)},
        {"sinks": torch.zeros(2)},
        {"position_bias": torch.zeros(2, 9, 9)},
        {"indices": torch.zeros(9)},
        {"block_indices": torch.zeros(9)},
        {"dropout": 0.1},
        {"is_causal": False},
        {"output_attentions": True},
        {"mask": torch.ones(1, 1, 9, 9)},
        {"a_keyword_of_the_next_transformers": 0},
    ],
    ids=lambda keywords: next(iter(keywords)),
)
def test_a_keyword_that_asks_for_other_attention_is_an_error_that_names_it(keywords: dict[str, Any]) -> None:
    (name,) = keywords
    with pytest.raises(TypeError, match="attention_mask" if name == "mask" else name):
        attend(**keywords)


@pytest.mark.parametrize(
    "keywords",
    [
        {"sliding_window": None, "softcap": None, "s_aux": None, "anything": None},
        {"sliding_window": 7},
        {"sliding_window": 4096},
        {"dropout": 0.0, "use_cache": False, "output_attentions": False, "is_causal": True},
        {"position_ids": torch.arange(9)[None], "cache_position": torch.arange(9)},
    ],
)
def test_a_keyword_that_asks_for_nothing_changes_nothing(keywords: dict[str, Any]) -> None:
    assert torch.equal(attend(**keywords), attend())
