"""Who attends to whom in a pack: segments as trees in depth-first order, and the block mask of FlexAttention.

A segment is (start, end, parent_start, parent_end): tokens [start, end) attend causally to one another and to all of
their parent segment and its ancestors. A segment without a parent has parent_start == parent_end. Parents precede
their children, and the descendants of a segment follow it without a gap, so that a token k is visible to a token q
exactly where

    k <= q < readers_end[k]

`readers_end[k]` is where the descendants of k's segment end. One integer a token describes trees of any depth.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

Segment = tuple[int, int, int, int]
Indices = npt.NDArray[np.int64]

BLOCK = 128
"""Edge of a block of FlexAttention's mask, in tokens: its default, and a multiple of every kernel's tiles."""


def parents(segments: Sequence[Segment]) -> list[int | None]:
    """Index of each segment's parent, None for a root.

    Raises:
        ValueError: the segments do not cover the axis in order, or are not in depth-first order.
    """
    found: list[int | None] = []
    open_segments: list[int] = []
    position = 0
    for index, (start, end, parent_start, parent_end) in enumerate(segments):
        if start != position or end <= start:
            raise ValueError(f"segment {index} covers [{start}, {end}); it must begin at {position}")
        position = end
        while open_segments and (
            parent_start == parent_end or segments[open_segments[-1]][:2] != (parent_start, parent_end)
        ):
            open_segments.pop()
        if parent_start != parent_end and not open_segments:
            raise ValueError(
                f"segment {index} names [{parent_start}, {parent_end}) as its parent, which is no segment whose "
                "descendants end here"
            )
        found.append(open_segments[-1] if open_segments else None)
        open_segments.append(index)
    return found


def readers_end(segments: Sequence[Segment]) -> Indices:
    """int64 [T]: for each token, the end of the range of tokens that may attend to it."""
    of_segment = parents(segments)
    ends = [end for _, end, _, _ in segments]
    for index in range(len(segments) - 1, -1, -1):
        parent = of_segment[index]
        if parent is not None:
            ends[parent] = max(ends[parent], ends[index])
    return np.repeat(np.array(ends, dtype=np.int64), [end - start for start, end, _, _ in segments])


def visible_pairs(segments: Sequence[Segment], block: int = BLOCK) -> Indices:
    """int64 [B, B], B = ceil(T / block): how many visible pairs each block of queries has with each block of keys."""
    length = segments[-1][1]
    edges = np.minimum(np.arange(-(-length // block) + 1, dtype=np.int64) * block, length)
    pairs = np.zeros((len(edges) - 1, len(edges) - 1), dtype=np.int64)
    of_segment = parents(segments)
    for index, (start, end, _, _) in enumerate(segments):
        first, last = start // block, -(-end // block)
        low, high = np.clip(edges[first:last], start, end), np.clip(edges[first + 1 : last + 1], start, end)
        pairs[first:last, first:last] += _causal_pairs(low, high)
        ancestor = of_segment[index]
        while ancestor is not None:
            key_start, key_end, _, _ = segments[ancestor]
            a, b = key_start // block, -(-key_end // block)
            keys = np.clip(edges[a + 1 : b + 1], key_start, key_end) - np.clip(edges[a:b], key_start, key_end)
            pairs[first:last, a:b] += (high - low)[:, None] * keys[None, :]
            ancestor = of_segment[ancestor]
    return pairs


def _causal_pairs(low: Indices, high: Indices) -> Indices:
    """[R, R]: pairs q >= k with q in [low_i, high_i) and k in [low_j, high_j)."""
    width = (high - low)[None, :]

    def before(x: Indices) -> Indices:
        """Pairs whose query is before x: a triangle, then rows of the full width."""
        rows = np.clip(x[:, None] - low[None, :], 0, width)
        return rows * (rows + 1) // 2 + np.maximum(x[:, None] - low[None, :] - width, 0) * width

    return before(high) - before(low)


def block_mask(segments: Sequence[Segment], device: torch.device, block: int = BLOCK) -> "BlockMask":
    """FlexAttention's mask of a pack, made from the segments: no [T, T] tensor exists at any time."""
    from torch.nn.attention.flex_attention import BlockMask

    length = segments[-1][1]
    pairs = visible_pairs(segments, block)
    full = pairs == block * block
    partial = (pairs > 0) & ~full
    ends = torch.as_tensor(readers_end(segments), device=device)

    def visible(_: torch.Tensor, __: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return (key <= query) & (query < ends[key])

    return BlockMask.from_kv_blocks(
        *_rows(partial, device),
        *_rows(full, device),
        BLOCK_SIZE=block,
        mask_mod=visible,
        seq_lengths=(length, length),
    )


def _rows(chosen: npt.NDArray[np.bool_], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """int32 [1, 1, B] and [1, 1, B, B]: how many blocks of keys a row has, and which, those first."""
    counts = torch.as_tensor(chosen.sum(axis=1), dtype=torch.int32, device=device)
    order = torch.as_tensor(np.argsort(~chosen, axis=1, kind="stable"), dtype=torch.int32, device=device)
    return counts[None, None], order[None, None]
