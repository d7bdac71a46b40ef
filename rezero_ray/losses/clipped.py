"""`grpo`, `dapo` and `dr_grpo`: one clipped token-level surrogate, three ways of averaging it.

The surrogate is `surrogate.clipped_surrogate` with the token ratio `r_t = exp(trainer_t - old_t)`. With b
over the N sequences, t over the T_b loss-mask tokens of one:

    grpo       1/N sum_b 1/T_b sum_t loss_bt                 arXiv:2402.03300, eq. 3
    dapo       1/(sum_b T_b) sum_b sum_t loss_bt             arXiv:2503.14476, eq. 8
    dr_grpo    1/(N * constant_length) sum_b sum_t loss_bt   arXiv:2503.20783, section 3.2

They equal TRL 0.29's `loss_type` of the same name (`GRPOTrainer._compute_loss`).
"""

from __future__ import annotations

import torch

from rezero_ray.losses.options import ClippedOptions
from rezero_ray.losses.surrogate import Surrogate, clipped_surrogate
from rezero_ray.losses.tokens import TokenBatch


def clipped(batch: TokenBatch, options: ClippedOptions) -> Surrogate:
    """The clipped surrogate with one ratio per token, [T]."""
    return clipped_surrogate(batch, torch.exp(batch.log_ratio_T()), options)
