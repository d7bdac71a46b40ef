"""One callable for every loss: the per-token surrogate, its weights, its penalty, its average, its metrics.

What holds for all of them:

- Gradients flow through the trainer's logprobs alone.
- A loss-mask token whose inference, old or reference logprob is not finite is dropped and counted.
- Dropped tokens, by whatever rule, add nothing to the numerator and still count in the denominators, which
  the loss mask alone decides. So the denominators are known before the forward pass, and the same everywhere.
- With one `normalizer` for all parts of a batch, the parts' losses add up to the whole's, value and gradient.
- A micro-batch whose mask is all zeros gives a loss of zero that still runs backward.
"""

from __future__ import annotations

import math
from typing import assert_never

import torch
from torch import Tensor

from rezero_ray.losses.cispo import cispo
from rezero_ray.losses.clipped import clipped
from rezero_ray.losses.gspo import gspo
from rezero_ray.losses.importance_sampling import importance_sampling
from rezero_ray.losses.kl import kl_T
from rezero_ray.losses.options import (
    AnyLossOptions,
    CISPOOptions,
    DAPOOptions,
    DrGRPOOptions,
    GRPOOptions,
    GSPOOptions,
    ImportanceSamplingOptions,
    NormalizerUnit,
    SAPOOptions,
)
from rezero_ray.losses.output import LossOutput, MetricSum, masked_sum
from rezero_ray.losses.sapo import sapo
from rezero_ray.losses.surrogate import Surrogate
from rezero_ray.losses.tokens import TokenBatch, bounded, token_batch


class PolicyLoss:
    """A loss of `build_loss`, ready to be called on packed tokens."""

    def __init__(self, options: AnyLossOptions) -> None:
        self.options = options
        self.normalizer_unit: NormalizerUnit = options.normalizer_unit
        """What `normalizer` counts: loss-mask tokens, or sequences that have at least one."""

    def __repr__(self) -> str:
        return f"PolicyLoss({self.options!r})"

    def __call__(
        self,
        trainer_logprobs_T: Tensor,
        inference_logprobs_T: Tensor,
        advantages_T: Tensor,
        loss_mask_T: Tensor,
        sequence_ids_T: Tensor,
        *,
        normalizer: float | Tensor | None = None,
        old_logprobs_T: Tensor | None = None,
        reference_logprobs_T: Tensor | None = None,
    ) -> LossOutput:
        """The loss of one micro-batch; every `_T` is [T].

        Args:
            trainer_logprobs_T: logprobs under the policy being trained, with gradient.
            inference_logprobs_T: logprobs as the inference engine sampled them.
            advantages_T: each token's advantage.
            loss_mask_T: non-zero where the policy wrote the token.
            sequence_ids_T: integers, equal for the tokens of one sequence.
            normalizer: global count of `normalizer_unit` in the optimizer step; None: this call's own.
            old_logprobs_T: the trainer's own logprobs before the step; the ratio is taken against them
                where given, else against the inference engine's.
            reference_logprobs_T: logprobs under the reference policy, needed where `kl_coef` is not 0.

        Returns:
            The scalar loss and its metrics: `mismatch_kl`, `ratio/mean`, `clip_fraction` over usable tokens,
            `masked_fraction` (with `masked_fraction/<mask>`) and `dropped_nonfinite` over loss-mask tokens,
            and `kl` where a reference is given.

        Raises:
            ValueError: shapes that differ, a normalizer that is negative or not finite, `kl_coef` without
                reference.
        """
        options = self.options
        if options.kl_coef > 0 and reference_logprobs_T is None:
            raise ValueError(f"kl_coef is {options.kl_coef}, so reference_logprobs_T must be given")
        batch = token_batch(
            trainer_logprobs_T,
            inference_logprobs_T,
            advantages_T,
            loss_mask_T,
            sequence_ids_T,
            old_logprobs_T,
            reference_logprobs_T,
        )
        surrogate = _surrogate(batch, options)
        dropped = torch.zeros_like(batch.usable_T)
        for mask in surrogate.masks_T.values():
            dropped = dropped | (mask & batch.usable_T)

        loss = surrogate.loss_T
        if options.tis_cap is not None and batch.has_old:
            loss = loss * torch.exp(bounded(batch.old_T - batch.inference_T)).clamp(max=options.tis_cap)
        if options.kl_coef > 0:
            loss = loss + options.kl_coef * kl_T(batch, options.kl_estimator)
        kept = torch.where(batch.usable_T & ~dropped, loss, 0.0)
        total = (kept * _token_weights_T(batch, options)).sum() / self._divisor(batch, normalizer)
        return LossOutput(total, _metrics(batch, surrogate, dropped, options))

    def _divisor(self, batch: TokenBatch, normalizer: float | Tensor | None) -> Tensor:
        """The count to divide by, a scalar tensor; 1 in the place of 0, where there is nothing to divide."""
        if normalizer is None:
            normalizer = (
                batch.loss_mask_T.sum()
                if self.normalizer_unit == "tokens"
                else torch.unique(batch.segment_T[batch.loss_mask_T]).numel()
            )
        if not isinstance(normalizer, Tensor) and not (math.isfinite(normalizer) and normalizer >= 0):
            raise ValueError(f"normalizer is {normalizer!r}; a finite count of at least 0 is expected")
        count = torch.as_tensor(normalizer, dtype=batch.trainer_T.dtype, device=batch.trainer_T.device)
        return torch.where(count == 0, torch.ones_like(count), count)


def _surrogate(batch: TokenBatch, options: AnyLossOptions) -> Surrogate:
    match options:
        case ImportanceSamplingOptions():
            return importance_sampling(batch, options)
        case GRPOOptions() | DAPOOptions() | DrGRPOOptions():
            return clipped(batch, options)
        case GSPOOptions():
            return gspo(batch, options)
        case CISPOOptions():
            return cispo(batch, options)
        case SAPOOptions():
            return sapo(batch, options)
        case _:
            assert_never(options)


def _token_weights_T(batch: TokenBatch, options: AnyLossOptions) -> Tensor | float:
    """A token's weight within the average, before the normalizer: [T] or one number for all."""
    match options:
        case ImportanceSamplingOptions() | DAPOOptions() | CISPOOptions():
            return 1.0
        case DrGRPOOptions():
            return 1.0 / (options.constant_length or 1)
        case GRPOOptions() | GSPOOptions() | SAPOOptions():
            return 1.0 / batch.sequence_sum_T(batch.loss_mask_T.to(batch.trainer_T.dtype)).clamp(min=1.0)
        case _:
            assert_never(options)


def _metrics(
    batch: TokenBatch, surrogate: Surrogate, dropped_T: Tensor, options: AnyLossOptions
) -> dict[str, MetricSum]:
    usable, mask = batch.usable_T, batch.loss_mask_T
    mismatch = bounded(batch.trainer_T - batch.inference_T).detach()
    metrics = {
        "mismatch_kl": masked_sum(torch.expm1(mismatch) - mismatch, usable, usable),
        "ratio/mean": masked_sum(surrogate.ratio_T, usable, usable),
        "clip_fraction": masked_sum(surrogate.clipped_T, usable, usable),
        "masked_fraction": masked_sum(dropped_T, mask, mask),
        "dropped_nonfinite": masked_sum(~usable, mask, mask),
    }
    for name, flags in surrogate.masks_T.items():
        metrics[f"masked_fraction/{name}"] = masked_sum(flags, usable, mask)
    if batch.reference_T is not None:
        metrics["kl"] = masked_sum(kl_T(batch, options.kl_estimator), usable, usable)
    return metrics
