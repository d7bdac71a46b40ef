"""What each loss computes per token, and the clipping that several share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rezero_ray.losses.options import ClippedOptions
from rezero_ray.losses.tokens import TokenBatch


@dataclass(frozen=True)
class Surrogate:
    """A loss before weighting, KL and averaging; every field [T]."""

    loss_T: Tensor
    ratio_T: Tensor
    """The importance ratio, before any clip or cap."""
    clipped_T: Tensor
    """bool: a clip, cap or `dual_clip` changed what the token contributes."""
    masks_T: dict[str, Tensor]
    """Ratio masks by name, bool, True where the token is dropped."""


def dual_clipped(ratio_T: Tensor, advantages_T: Tensor, dual_clip: float | None) -> tuple[Tensor, Tensor]:
    """The ratio, at most `dual_clip` where the advantage is negative, and where that bound was hit; both [T].

    Under a clipped surrogate this is dual-clip PPO, `max(min(r A, clip(r) A), c A)` for A < 0
    (arXiv:1912.09729, eq. 5), and TRL's `delta`.
    """
    if dual_clip is None:
        return ratio_T, torch.zeros_like(ratio_T, dtype=torch.bool)
    bound = advantages_T < 0
    return torch.where(bound, ratio_T.clamp(max=dual_clip), ratio_T), bound & (ratio_T > dual_clip)


def clipped_surrogate(batch: TokenBatch, ratio_T: Tensor, options: ClippedOptions) -> Surrogate:
    """`-min(r A, clip(r, 1 - clip_low, 1 + clip_high) A)` (PPO, arXiv:1707.06347, eq. 7), [T].

    A token counts as clipped where its gradient vanishes: r below the interval with A < 0, or above it
    with A > 0.
    """
    advantages = batch.advantages_T
    low, high = 1 - options.clip_low, 1 + options.clip_high
    ratio, capped = dual_clipped(ratio_T, advantages, options.dual_clip)
    loss = -torch.minimum(ratio * advantages, ratio.clamp(low, high) * advantages)
    clipped = ((ratio_T < low) & (advantages < 0)) | ((ratio_T > high) & (advantages > 0)) | capped
    return Surrogate(loss, ratio_T, clipped, {})
