"""`cispo`: clip the weight, not the gradient (MiniMax-M1, arXiv:2506.13585, eqs. 4 and 5).

    loss_t = -min(r_t, ratio_max).detach() * A_t * trainer_t

Every token keeps a gradient, however far its ratio has moved; the cap only bounds its size. Averaged over
tokens.
"""

from __future__ import annotations

import torch

from rezero_ray.losses.options import CISPOOptions
from rezero_ray.losses.surrogate import Surrogate, dual_clipped
from rezero_ray.losses.tokens import TokenBatch


def cispo(batch: TokenBatch, options: CISPOOptions) -> Surrogate:
    """The capped policy-gradient loss, [T]."""
    ratio = torch.exp(batch.log_ratio_T().detach())
    weight, capped = dual_clipped(ratio, batch.advantages_T, options.dual_clip)
    loss = -(weight.clamp(max=options.ratio_max) * batch.advantages_T) * batch.trainer_T
    return Surrogate(loss, ratio, capped | (ratio > options.ratio_max), {})
