"""`sapo`: a smooth gate in the place of the clip (Soft Adaptive Policy Optimization, arXiv:2511.20347).

    f_t = 4 / tau_t * sigmoid(tau_t * (r_t - 1))     tau_t = tau_pos where A_t > 0, else tau_neg
    loss_t = -f_t * A_t

The gate's slope is 1 at r = 1, as that of the ratio itself, and fades on both sides. Averaged over each
sequence, then over sequences.
"""

from __future__ import annotations

import torch

from rezero_ray.losses.options import SAPOOptions
from rezero_ray.losses.surrogate import Surrogate, dual_clipped
from rezero_ray.losses.tokens import TokenBatch


def sapo(batch: TokenBatch, options: SAPOOptions) -> Surrogate:
    """The gated surrogate, [T]; `dual_clip` bounds the ratio that enters the gate."""
    raw = torch.exp(batch.log_ratio_T())
    ratio, capped = dual_clipped(raw, batch.advantages_T, options.dual_clip)
    tau = torch.where(batch.advantages_T > 0, options.tau_pos, options.tau_neg).to(ratio.dtype)
    gate = torch.sigmoid(tau * (ratio - 1)) * 4 / tau
    return Surrogate(-gate * batch.advantages_T, raw, capped, {})
