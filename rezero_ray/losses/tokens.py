"""The tokens of one micro-batch, checked and cleaned once for every loss: `TokenBatch`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MAX_LOG_RATIO = 20.0
"""Log ratios are held within plus and minus this (a ratio of 5e8), as verl does: no mask or clip in use lies
beyond it, while exp() of more overflows float32 and turns a zero gradient into NaN."""


@dataclass(frozen=True)
class TokenBatch:
    """Per-token inputs, all [T], float32 or wider. Only `trainer_T` carries a gradient.

    Tokens that are not `usable_T` hold zeros everywhere, so that nothing computed from them can be NaN.
    """

    trainer_T: Tensor
    inference_T: Tensor
    old_T: Tensor
    """Logprobs under the policy that the ratio is taken against: the trainer's own old ones where they are
    given, else the inference engine's."""
    reference_T: Tensor | None
    advantages_T: Tensor
    loss_mask_T: Tensor
    """bool: the policy wrote the token."""
    usable_T: Tensor
    """bool: in the loss mask, and every sampled or reference logprob given for it is finite."""
    segment_T: Tensor
    """int64: 0..sequences - 1, the rank of the token's sequence id among those present."""
    sequences: int
    has_old: bool

    def log_ratio_T(self) -> Tensor:
        """log(trainer / old) per token, [T], bounded; carries the gradient."""
        return bounded(self.trainer_T - self.old_T)

    def sequence_sum_T(self, values_T: Tensor) -> Tensor:
        """Sum over each token's sequence, handed back to every token of it, [T]."""
        sums = torch.zeros(self.sequences, dtype=values_T.dtype, device=values_T.device)
        return sums.index_add(0, self.segment_T, values_T)[self.segment_T]

    def sequence_mean_T(self, values_T: Tensor) -> Tensor:
        """Mean over the usable tokens of each token's sequence, handed back to every token of it, [T]."""
        usable = self.usable_T.to(values_T.dtype)
        counts = self.sequence_sum_T(usable).clamp(min=1.0)
        return self.sequence_sum_T(torch.where(self.usable_T, values_T, 0.0)) / counts

    def sequence_any_T(self, flags_T: Tensor) -> Tensor:
        """Whether any usable token of each token's sequence has the flag, bool [T]."""
        return self.sequence_sum_T((flags_T & self.usable_T).to(self.trainer_T.dtype)) > 0


def bounded(log_ratio_T: Tensor) -> Tensor:
    """The log ratio within plus and minus MAX_LOG_RATIO."""
    return log_ratio_T.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def token_batch(
    trainer_logprobs_T: Tensor,
    inference_logprobs_T: Tensor,
    advantages_T: Tensor,
    loss_mask_T: Tensor,
    sequence_ids_T: Tensor,
    old_logprobs_T: Tensor | None = None,
    reference_logprobs_T: Tensor | None = None,
) -> TokenBatch:
    """Check shapes, detach all but the trainer's logprobs, and blank out what is not usable.

    Raises:
        ValueError: an input that is not one-dimensional or not as long as `trainer_logprobs_T`.
    """
    given = {
        "trainer_logprobs_T": trainer_logprobs_T,
        "inference_logprobs_T": inference_logprobs_T,
        "advantages_T": advantages_T,
        "loss_mask_T": loss_mask_T,
        "sequence_ids_T": sequence_ids_T,
        "old_logprobs_T": old_logprobs_T,
        "reference_logprobs_T": reference_logprobs_T,
    }
    for name, tensor in given.items():
        if tensor is not None and (tensor.ndim != 1 or tensor.shape != trainer_logprobs_T.shape):
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}; every input is [T], and trainer_logprobs_T has "
                f"{tuple(trainer_logprobs_T.shape)}"
            )

    mask = loss_mask_T != 0
    usable = mask
    for sampled in (inference_logprobs_T, old_logprobs_T, reference_logprobs_T):
        if sampled is not None:
            usable = usable & torch.isfinite(sampled)
    dtype = torch.promote_types(trainer_logprobs_T.dtype, torch.float32)

    def cleaned(values_T: Tensor) -> Tensor:
        return torch.where(usable, values_T.to(dtype), 0.0)

    ids, segment = torch.unique(sequence_ids_T, return_inverse=True)
    inference = cleaned(inference_logprobs_T.detach())
    return TokenBatch(
        trainer_T=cleaned(trainer_logprobs_T),
        inference_T=inference,
        old_T=inference if old_logprobs_T is None else cleaned(old_logprobs_T.detach()),
        reference_T=None if reference_logprobs_T is None else cleaned(reference_logprobs_T.detach()),
        advantages_T=cleaned(advantages_T.detach()),
        loss_mask_T=mask,
        usable_T=usable,
        segment_T=segment,
        sequences=ids.numel(),
        has_old=old_logprobs_T is not None,
    )
