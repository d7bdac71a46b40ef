"""Logprobs of given tokens without ever holding the logits of more than a chunk of positions.

For a token y with hidden state h, head W and temperature t:

    logprob     = (W h / t)[y] - logsumexp(W h / t)
    d logprob/dh = (W[y] - softmax(W h / t) W) / t

The head is frozen, so the second line is computed with the first, chunk by chunk, and kept: [N, hidden] in place
of logits [N, vocabulary]. The backward pass is then one elementwise product; it needs no weights, hence no ZeRO-3
gather and no recomputation.
"""

from typing import Any

import torch
from torch import nn


class TokenLogprobs(torch.autograd.Function):
    """Differentiable in the hidden states alone."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        temperature: float,
        chunk: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            hidden: [N, hidden].
            weight: [vocabulary, hidden].
            targets: int64 [N].
            temperature: divides the logits.
            chunk: positions whose logits exist at one time.
        Returns:
            logprobs and entropies in nats, float32 [N] each.
        """
        logprobs, entropies, jacobian = [], [], []
        for rows, ids in zip(hidden.split(chunk), targets.split(chunk), strict=True):
            logits = _float32_logits(rows, weight)
            if temperature != 1.0:
                logits.div_(temperature)
            highest = logits.amax(dim=-1, keepdim=True)
            weights = (logits - highest).exp_()  # not yet divided by their sum
            total = weights.sum(dim=-1)
            log_normalizer = highest.squeeze(1) + total.log()
            picked = logits.gather(1, ids[:, None]).squeeze(1)
            logprobs.append(picked - log_normalizer)
            entropies.append(log_normalizer - torch.linalg.vecdot(weights, logits) / total)
            if ctx.needs_input_grad[0]:
                expected = (weights.to(weight.dtype) @ weight) / total[:, None]
                jacobian.append((weight[ids] - expected).to(weight.dtype).div_(temperature))
        if jacobian:
            ctx.save_for_backward(torch.cat(jacobian))
        entropy = torch.cat(entropies)
        ctx.mark_non_differentiable(entropy)
        return torch.cat(logprobs), entropy

    @staticmethod
    def backward(ctx: Any, grad_logprobs: torch.Tensor, _: torch.Tensor) -> Any:
        (jacobian,) = ctx.saved_tensors
        return (grad_logprobs[:, None] * jacobian).to(jacobian.dtype), None, None, None, None


def _float32_logits(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """[N, hidden], [vocabulary, hidden] -> float32 [N, vocabulary].

    On CUDA the product of bfloat16 operands keeps its float32 sums; rounded to bfloat16, a logit of 20 is off by up
    to 0.06. The CPU has no such product.
    """
    if hidden.is_cuda and hidden.dtype != torch.float32:
        return torch.mm(hidden, weight.t(), out_dtype=torch.float32)
    return (hidden @ weight.t()).float()


class TokenLogprobHead(nn.Module):
    """The model's own output embedding, shared, as a module of its own so that ZeRO-3 gathers it once a pass."""

    def __init__(self, weight: nn.Parameter, *, temperature: float, chunk: int) -> None:
        """`temperature` is the sampling temperature (`rezero_ray.logprob_scale`)."""
        super().__init__()
        self.weight = weight
        self.temperature = temperature
        self.chunk = chunk

    def forward(
        self, hidden: torch.Tensor, targets: torch.Tensor, temperature: float | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """hidden [N, hidden], targets [N] -> logprobs [N], entropies [N]; at the sampling temperature when None."""
        chosen = self.temperature if temperature is None else temperature
        result = TokenLogprobs.apply(hidden, self.weight, targets, chosen, self.chunk)
        return result[0], result[1]
