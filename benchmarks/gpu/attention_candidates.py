"""Ways to compute attention over a pack of segments on CUDA that the trial compares. The product uses one of them.

All take query [1, H, T, D], key and value [1, K, T, D] and return [1, T, H, D].
"""

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.attention.varlen import varlen_attn

from rezero_ray.learning.attention import flex_segment_attention, segment_attention
from rezero_ray.learning.segment_tree import Segment, block_mask

GROUPS_NAMED = "enable_gqa" in signature(varlen_attn).parameters  # torch 2.11 takes groups unasked

Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def candidates(segments: Sequence[Segment], device: torch.device, scale: float) -> dict[str, Attention]:
    """By name; what a candidate needs of the segments is made beforehand, as a micro-batch makes it once."""
    found: dict[str, Attention] = {
        "by segment": lambda q, k, v: segment_attention(
            torch.nn.Identity(), q, k, v, None, segments=segments, scaling=scale
        )[0]
    }
    mask = block_mask(segments, device)
    found["flex"] = lambda q, k, v: flex_segment_attention(q, k, v, mask, scale)
    if device.type == "cuda":
        found["flex, 8 warps back"] = _flex_with({"bwd_num_warps": 8, "bwd_num_stages": 1}, mask, scale)
        found["varlen, keys gathered"] = _gathered(segments, device, scale)
        found["two flash calls"] = _cascade(segments, device, scale)
    return found


def _flex_with(options: dict[str, int], mask: BlockMask, scale: float) -> Attention:
    """FlexAttention with other launch parameters than its own for this GPU."""
    compiled = torch.compile(flex_attention, dynamic=True)

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        grouped = query.shape[1] != key.shape[1]
        out = compiled(
            query, key, value, block_mask=mask, scale=scale, enable_gqa=grouped, kernel_options=options
        )
        return out.transpose(1, 2).contiguous()  # type: ignore[union-attr]

    return attend


def _gathered(segments: Sequence[Segment], device: torch.device, scale: float) -> Attention:
    """One varlen call; the keys of the parent are copied before those of each segment."""
    rows = np.concatenate(
        [np.r_[parent_start:parent_end, start:end] for start, end, parent_start, parent_end in segments]
    )
    index = torch.as_tensor(rows, device=device)
    query_lengths = [end - start for start, end, _, _ in segments]
    key_lengths = [
        end - start + parent_end - parent_start for start, end, parent_start, parent_end in segments
    ]
    cu_q, cu_k = _offsets(query_lengths, device), _offsets(key_lengths, device)

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
        grouped = {"enable_gqa": True} if GROUPS_NAMED and q.shape[1] != k.shape[1] else {}
        return varlen_attn(
            q.contiguous(),
            k.index_select(0, index),
            v.index_select(0, index),
            cu_q,
            cu_k,
            max(query_lengths),
            max(key_lengths),
            scale=scale,
            window_size=(-1, 0),
            **grouped,
        )[None]

    return attend


def _offsets(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    return torch.as_tensor(np.cumsum([0, *lengths]), dtype=torch.int32, device=device)


def _cascade(segments: Sequence[Segment], device: torch.device, scale: float) -> Attention:
    """Two flash calls, no copies: each segment with itself, and all children of a prompt with the prompt.

    Both halves of the backward pass use the joint log-sum-exp, as ring attention does. Keys that no query of a call
    sees are paired with an empty range of queries, so that the offsets of both sides tile the axis.
    """
    own = _offsets([end - start for start, end, _, _ in segments], device)
    longest = max(end - start for start, end, _, _ in segments)
    cu_q, cu_k, seen = [0], [0], np.zeros(segments[-1][1], dtype=bool)
    roots = [index for index, segment in enumerate(segments) if segment[2] == segment[3]]
    children = prompts = 1
    for root, following in zip(roots, [*roots[1:], len(segments)], strict=True):
        start, end, _, _ = segments[root]
        last = segments[following - 1][1]
        cu_q += [end, last, last]
        cu_k += [start, end, last]
        seen[end:last] = True
        children, prompts = max(children, last - end), max(prompts, end - start)
    cross_q = torch.as_tensor(cu_q, dtype=torch.int32, device=device)
    cross_k = torch.as_tensor(cu_k, dtype=torch.int32, device=device)
    has_prompt = torch.as_tensor(seen, device=device)
    calls = ((own, own, longest, longest, True), (cross_q, cross_k, children, prompts, False))

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        q, k, v = (tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value))
        return _TwoFlashCalls.apply(q, k, v, calls, has_prompt, scale)[None]  # type: ignore[no-any-return]

    return attend


class _TwoFlashCalls(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        calls: Any,
        has_prompt: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        flash = torch.ops.aten._flash_attention_forward
        parts = [
            flash(q, k, v, cu_q, cu_k, most_q, most_k, 0.0, causal, False, scale=scale)
            for cu_q, cu_k, most_q, most_k, causal in calls
        ]
        own, own_lse = parts[0][0], parts[0][1]
        cross, cross_lse = parts[1][0], parts[1][1].masked_fill(~has_prompt, float("-inf"))
        lse = torch.logaddexp(own_lse, cross_lse)  # [H, T]
        own_share, cross_share = (
            (part - lse).exp().transpose(0, 1)[..., None] for part in (own_lse, cross_lse)
        )
        cross = cross.masked_fill(~has_prompt[:, None, None], 0.0)
        out = (own * own_share + cross * cross_share).to(q.dtype)
        ctx.save_for_backward(q, k, v, out, lse.contiguous(), parts[0][2], parts[0][3])
        ctx.calls, ctx.scale = calls, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        q, k, v, out, lse, seed, offset = ctx.saved_tensors
        flash = torch.ops.aten._flash_attention_backward
        totals: Any = None
        for cu_q, cu_k, most_q, most_k, causal in ctx.calls:
            part = flash(
                grad.contiguous(),
                q,
                k,
                v,
                out,
                lse,
                cu_q,
                cu_k,
                most_q,
                most_k,
                0.0,
                causal,
                seed,
                offset,
                scale=ctx.scale,
            )
            totals = (
                part if totals is None else [one + other for one, other in zip(totals, part, strict=True)]
            )
        return (*totals, None, None, None)
