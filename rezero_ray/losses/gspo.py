"""`gspo`: one clipped importance ratio per sequence (arXiv:2507.18071, eqs. 5 to 7).

    s_b = exp(1/T_b sum_t (trainer_bt - old_bt))
    loss = 1/N sum_b -min(s_b A_b, clip(s_b, 1 - clip_low, 1 + clip_high) A_b)

The gradient flows through s_b, so through every token of the sequence alike.
"""

from __future__ import annotations

import torch

from rezero_ray.losses.options import GSPOOptions
from rezero_ray.losses.surrogate import Surrogate, clipped_surrogate
from rezero_ray.losses.tokens import TokenBatch


def gspo(batch: TokenBatch, options: GSPOOptions) -> Surrogate:
    """The clipped surrogate with each sequence's ratio at every one of its tokens, [T]."""
    return clipped_surrogate(batch, torch.exp(batch.sequence_mean_T(batch.log_ratio_T())), options)
