"""Per-token estimates of KL(trainer || reference) from samples of the trainer's policy.

With d = trainer - reference logprob (http://joschu.net/blog/kl-approx.html):

    k1 = d                   unbiased, can be negative; its own gradient is zero in expectation on policy
    k2 = d^2 / 2             biased a little; its gradient is that of the KL on policy
    k3 = exp(-d) - 1 + d     unbiased, never negative; GRPO's and TRL's
"""

from __future__ import annotations

import torch
from torch import Tensor

from rezero_ray.losses.options import KLEstimator
from rezero_ray.losses.tokens import TokenBatch, bounded


def kl_T(batch: TokenBatch, estimator: KLEstimator) -> Tensor:
    """The estimate at every token, [T], with gradient; the batch has a reference."""
    if batch.reference_T is None:
        raise ValueError("a KL estimate needs reference_logprobs_T")
    difference = bounded(batch.trainer_T - batch.reference_T)
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return difference.square() / 2
    return torch.expm1(-difference) + difference
