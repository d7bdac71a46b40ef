"""`importance_sampling`, the default: prime-rl's loss of early 2026, before it changed to IPO in March.

    r_t = exp(trainer_t - old_t)
    loss_t = -(r_t * A_t).detach() * trainer_t      over the tokens that no mask drops

The three masks drop what the two policies disagree about too much to learn from:

    token      r_t outside [token_mask_low, token_mask_high]: that token
    geo        exp(mean of log r over the sequence) outside [geo_mask_low, geo_mask_high]: the whole sequence
    sequence   any r_t of the sequence outside [sequence_mask_low, sequence_mask_high]: the whole sequence

The sum is divided by the number of loss-mask tokens *before* any is dropped, as prime-rl's `loss_scale` did:
dropping tokens makes a step smaller and leaves the weight of the others as it was.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rezero_ray.losses.options import ImportanceSamplingOptions
from rezero_ray.losses.surrogate import Surrogate, dual_clipped
from rezero_ray.losses.tokens import TokenBatch


def importance_sampling(batch: TokenBatch, options: ImportanceSamplingOptions) -> Surrogate:
    """The masked policy-gradient loss, [T]; `dual_clip` bounds the detached weight where A < 0."""
    log_ratio = batch.log_ratio_T().detach()
    ratio = torch.exp(log_ratio)
    geometric_mean = torch.exp(batch.sequence_mean_T(log_ratio))
    masks = {
        "token": _outside(ratio, options.token_mask_low, options.token_mask_high),
        "geo": _outside(geometric_mean, options.geo_mask_low, options.geo_mask_high),
        "sequence": batch.sequence_any_T(
            _outside(ratio, options.sequence_mask_low, options.sequence_mask_high)
        ),
    }
    weight, capped = dual_clipped(ratio, batch.advantages_T, options.dual_clip)
    return Surrogate(-(weight * batch.advantages_T) * batch.trainer_T, ratio, capped, masks)


def _outside(ratio_T: Tensor, low: float, high: float) -> Tensor:
    """Where the ratio is below `low` or above `high`; the bounds themselves are inside. bool [T]."""
    return (ratio_T < low) | (ratio_T > high)
