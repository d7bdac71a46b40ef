"""Attention over packed sequences that may share their prompt.

Sequences lie one behind the other on one axis. A segment's tokens attend causally to one another and to all of
the segment's prefix (the prompt that the completions of a group share), to nothing else.

On CUDA a layer is one FlexAttention call under a block mask that the micro-batch makes once
(`rezero_ray.learning.segment_tree`). On the CPU, where FlexAttention has no backward pass, each segment is one call
on its own slice: no [T, T] mask is made and no masked product is computed. This path is the oracle of the other.
There the call is `scaled_dot_product_attention`, but for short segments: torch 2.13's kernel takes 1.8 ms forward and
backward for 64 tokens behind 45 in bfloat16 (9 heads of 64, one thread), and two plain products in float32 take 0.9.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from rezero_ray.learning.attention_keywords import refuse_meaning
from rezero_ray.learning.segment_tree import Segment

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

NAME = "rezero_segments"

SHORT = 1 << 17
"""Scores of one head, on the CPU, up to which they are made as a whole: half a MiB of float32."""


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
    block_mask: "BlockMask | None" = None,
    scaling: float | None = None,
    **keywords: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one layer.

    Args:
        query: [1, H, T, D].
        key: [1, K, T, D] with K dividing H (grouped queries).
        value: [1, K, T, V].
        attention_mask: None, as `_no_mask` makes it; the segments say who sees whom.
        segments: (start, end, prefix_start, prefix_end) each; together they cover T, in order. A prefix that is
            not empty is a segment itself.
        block_mask: the same as FlexAttention's mask; with it the layer is one FlexAttention call.
        keywords: only those that ask for nothing else than plain causal attention (`refuse_meaning`).
    Returns:
        [1, T, H, V], and None in place of the attention weights.

    Raises:
        TypeError: the model asks for attention that is not computed here (a window shorter than a sequence, a soft
            cap, sinks, a mask of its own, ...).
    """
    refuse_meaning({"attention_mask": attention_mask, **keywords}, segments)
    if block_mask is not None:
        return flex_segment_attention(query, key, value, block_mask, scaling), None
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key = key.repeat_interleave(repeats, dim=1)
        value = value.repeat_interleave(repeats, dim=1)
    dtype, plain = query.dtype, query.device.type == "cpu"
    if plain:
        query, key, value = query.float(), key.float(), value.float()
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    lengths = [end - start for start, end, _, _ in segments]
    # Split, not sliced: the gradient of a slice is a tensor of zeros as long as T.
    queries, keys, values = (tensor.split(lengths, dim=2) for tensor in (query, key, value))
    number = {(start, end): index for index, (start, end, _, _) in enumerate(segments)}
    outputs = []
    for index, segment in enumerate(segments):
        prefix_start, prefix_end = segment[2:]
        own_query, own_key, own_value = queries[index], keys[index], values[index]
        length, prefix = lengths[index], prefix_end - prefix_start
        if prefix:
            shared = number[prefix_start, prefix_end]
            own_key = torch.cat((keys[shared], own_key), dim=2)
            own_value = torch.cat((values[shared], own_value), dim=2)
        if plain and length * (prefix + length) <= SHORT:
            out = _plain_attention(own_query, own_key, own_value, prefix, scaling)
        elif prefix:
            mask = _prefix_causal_mask(length, prefix, query.device)
            out = scaled_dot_product_attention(own_query, own_key, own_value, attn_mask=mask, scale=scaling)
        else:
            out = scaled_dot_product_attention(own_query, own_key, own_value, is_causal=True, scale=scaling)
        outputs.append(out)
    return torch.cat(outputs, dim=2).transpose(1, 2).to(dtype).contiguous(), None


def flex_segment_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    block_mask: "BlockMask",
    scaling: float | None,
) -> torch.Tensor:
    """[1, H, T, D], [1, K, T, D], [1, K, T, V] -> [1, T, H, V]: one call, keys of a group of heads not copied."""
    grouped = query.shape[1] != key.shape[1]
    attend = _compiled_flex_attention() if query.is_cuda else _flex_attention()
    out = attend(query, key, value, block_mask=block_mask, scale=scaling, enable_gqa=grouped)
    return out.transpose(1, 2).contiguous()


@cache
def _compiled_flex_attention() -> Callable[..., torch.Tensor]:
    """Compiled once for any length: with static shapes every new length of a pack costs a compilation."""
    return torch.compile(_flex_attention(), dynamic=True)


def _flex_attention() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention


def _plain_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, prefix: int, scaling: float
) -> torch.Tensor:
    """[1, H, L, D] x [1, H, prefix + L, D] -> [1, H, L, V], in the precision of the arguments."""
    hidden = ~_prefix_causal_mask(query.shape[2], prefix, query.device)
    bias = torch.zeros(hidden.shape, dtype=query.dtype).masked_fill_(hidden, float("-inf"))
    scores = torch.baddbmm(bias, query[0], key[0].transpose(1, 2), alpha=scaling)
    return (scores.softmax(dim=-1) @ value[0])[None]


def _prefix_causal_mask(length: int, prefix: int, device: torch.device) -> torch.Tensor:
    """Bool [length, prefix + length]: all of the prefix, and the segment up to oneself."""
    return torch.ones(length, prefix + length, dtype=torch.bool, device=device).tril_(diagonal=prefix)


def _no_mask(*_: Any, **__: Any) -> None:
    return None
