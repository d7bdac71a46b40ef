"""Attention over packed sequences that may share their prompt.

Sequences lie one behind the other on one axis. A segment's tokens attend causally to one another and to all of
the segment's prefix (the prompt that the completions of a group share), to nothing else. Each segment is one call
of `scaled_dot_product_attention` on its own slice, so no [T, T] mask is made and no masked product is computed.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

NAME = "rezero_segments"

Segment = tuple[int, int, int, int]


def register() -> str:
    """Make the function known to transformers; returns the name for `attn_implementation`."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, segment_attention)
    AttentionMaskInterface.register(NAME, _no_mask)
    return NAME


def segment_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    segments: Sequence[Segment],
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one layer.

    Args:
        query: [1, H, T, D].
        key: [1, K, T, D] with K dividing H (grouped queries).
        value: [1, K, T, V].
        attention_mask: not used; the segments say who sees whom.
        segments: (start, end, prefix_start, prefix_end) each; together they cover T, in order.
    Returns:
        [1, T, H, V], and None in place of the attention weights.
    """
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key = key.repeat_interleave(repeats, dim=1)
        value = value.repeat_interleave(repeats, dim=1)
    outputs = []
    for start, end, prefix_start, prefix_end in segments:
        own_query, own_key, own_value = query[:, :, start:end], key[:, :, start:end], value[:, :, start:end]
        if prefix_start == prefix_end:
            out = scaled_dot_product_attention(own_query, own_key, own_value, is_causal=True, scale=scaling)
        else:
            keys = torch.cat((key[:, :, prefix_start:prefix_end], own_key), dim=2)
            values = torch.cat((value[:, :, prefix_start:prefix_end], own_value), dim=2)
            mask = _prefix_causal_mask(end - start, prefix_end - prefix_start, query.device)
            out = scaled_dot_product_attention(own_query, keys, values, attn_mask=mask, scale=scaling)
        outputs.append(out)
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _prefix_causal_mask(length: int, prefix: int, device: torch.device) -> torch.Tensor:
    """Bool [length, prefix + length]: all of the prefix, and the segment up to oneself."""
    return torch.ones(length, prefix + length, dtype=torch.bool, device=device).tril_(diagonal=prefix)


def _no_mask(*_: Any, **__: Any) -> None:
    return None
