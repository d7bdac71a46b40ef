"""Claims about the block mask of a pack: it shows each token its own past and its ancestors, and nothing else."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from rezero_ray.learning.attention import segment_attention
from rezero_ray.learning.segment_tree import Segment, block_mask, parents, readers_end, visible_pairs

torch.set_num_threads(1)


@st.composite
def trees(draw: st.DrawFn, deepest: int = 3, longest: int = 9) -> list[Segment]:
    """Packs of trees in depth-first order."""
    segments: list[Segment] = []

    def grow(parent: Segment | None, depth: int) -> None:
        start = segments[-1][1] if segments else 0
        end = start + draw(st.integers(1, longest))
        own = (start, end, parent[0], parent[1]) if parent else (start, end, start, start)
        segments.append(own)
        if depth < deepest:
            for _ in range(draw(st.integers(0, 3))):
                grow(own, depth + 1)

    for _ in range(draw(st.integers(1, 3))):
        grow(None, 0)
    return segments


def seen(segments: list[Segment]) -> np.ndarray:
    """Bool [T, T], by walking from each segment to its root."""
    of_range = {segment[:2]: segment for segment in segments}
    table = np.zeros((segments[-1][1],) * 2, dtype=bool)
    for start, end, parent_start, parent_end in segments:
        table[start:end, start:end] = np.tril(np.ones((end - start,) * 2, dtype=bool))
        while parent_start != parent_end:
            table[start:end, parent_start:parent_end] = True
            _, _, parent_start, parent_end = of_range[parent_start, parent_end]
    return table


@settings(max_examples=60, deadline=None)
@given(trees(), st.sampled_from([1, 4, 16]))
def test_the_blocks_hold_every_visible_pair_and_the_rule_shows_no_other(
    segments: list[Segment], block: int
) -> None:
    table = seen(segments)
    length = len(table)
    ends, tokens = readers_end(segments), np.arange(length)
    rule = (tokens[None, :] <= tokens[:, None]) & (tokens[:, None] < ends[None, :])
    np.testing.assert_array_equal(rule, table)

    padded = np.zeros((-(-length // block) * block,) * 2, dtype=np.int64)
    padded[:length, :length] = table
    edge = len(padded) // block
    counts = padded.reshape(edge, block, edge, block).sum(axis=(1, 3))
    np.testing.assert_array_equal(visible_pairs(segments, block), counts)

    mask = block_mask(segments, torch.device("cpu"), block)
    np.testing.assert_array_equal(mask.to_dense()[0, 0].numpy() != 0, counts > 0)


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2)])
def test_one_call_under_the_block_mask_gives_the_values_and_gradients_of_the_calls_by_segment(
    heads: int, groups: int
) -> None:
    """FlexAttention has no backward pass on the CPU: for the gradients its arguments are emulated by SDPA."""
    segments = [(0, 9, 0, 0), (9, 16, 0, 9), (16, 17, 0, 9), (17, 21, 17, 17), (21, 40, 17, 21)]
    random = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(1, count, 40, 8, generator=random, requires_grad=True)
        for count in (heads, groups, groups)
    ]
    weight = torch.randn(1, 40, heads, 8, generator=random)
    mask = block_mask(segments, torch.device("cpu"))

    by_segment, _ = segment_attention(torch.nn.Identity(), *inputs, None, segments=segments, scaling=0.3)
    constant = [tensor.detach() for tensor in inputs]
    one_call, _ = segment_attention(
        torch.nn.Identity(), *constant, None, segments=segments, block_mask=mask, scaling=0.3
    )
    torch.testing.assert_close(one_call, by_segment, rtol=0, atol=2e-6)

    tokens, zero = torch.arange(40), torch.tensor(0)
    rule = mask.mask_mod(zero, zero, tokens[:, None], tokens[None, :])
    emulated = scaled_dot_product_attention(*inputs, attn_mask=rule, scale=0.3, enable_gqa=True).transpose(
        1, 2
    )
    expected = torch.autograd.grad((by_segment * weight).sum(), inputs)
    found = torch.autograd.grad((emulated * weight).sum(), inputs)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    "segments",
    [
        [(0, 4, 0, 0), (4, 6, 4, 4), (6, 8, 0, 4)],  # a child behind another tree
        [(0, 4, 0, 0), (4, 6, 1, 3)],  # a parent that is no segment
        [(0, 4, 0, 0), (5, 6, 0, 4)],  # a gap
        [(0, 4, 0, 0), (4, 4, 0, 4)],  # an empty segment
    ],
)
def test_segments_out_of_depth_first_order_are_refused(segments: list[Segment]) -> None:
    with pytest.raises(ValueError, match="segment"):
        parents(segments)
