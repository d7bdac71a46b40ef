"""`grpo`, `dapo`, `dr_grpo` (and `cispo`, `sapo`, sequence-level `grpo`) equal TRL's, value and gradient.

TRL's formula is written out here on its own padded [B, T] layout, after `GRPOTrainer._compute_loss` of TRL
0.29.0 (trl/trainer/grpo_trainer.py, lines 2092 to 2163, one process, one accumulation step).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rezero_ray.losses import build_loss

LENGTHS = [3, 1, 6, 4, 2]
MAX_COMPLETION_LENGTH = 8

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "grpo": ({"type": "grpo"}, {"loss_type": "grpo"}),
    "grpo clips": (
        {"type": "grpo", "clip_low": 0.05, "clip_high": 0.1},
        {"loss_type": "grpo", "epsilon_low": 0.05, "epsilon_high": 0.1},
    ),
    "grpo two-sided": (
        {"type": "grpo", "dual_clip": 1.5, "kl_coef": 0.3},
        {"loss_type": "grpo", "delta": 1.5, "beta": 0.3},
    ),
    "dapo": ({"type": "dapo"}, {"loss_type": "dapo", "epsilon_high": 0.28}),
    "dapo kl": ({"type": "dapo", "kl_coef": 0.1}, {"loss_type": "dapo", "epsilon_high": 0.28, "beta": 0.1}),
    "dapo tis": (
        {"type": "dapo", "tis_cap": 1.2, "kl_coef": 0.1},
        {"loss_type": "dapo", "epsilon_high": 0.28, "beta": 0.1, "cap": 1.2},
    ),
    "dr_grpo": ({"type": "dr_grpo", "constant_length": MAX_COMPLETION_LENGTH}, {"loss_type": "dr_grpo"}),
    "gspo": ({"type": "gspo", "clip_low": 0.1, "clip_high": 0.1}, {"loss_type": "grpo", "level": "sequence"}),
    "cispo": ({"type": "cispo", "ratio_max": 1.3}, {"loss_type": "cispo", "epsilon_high": 1.3}),
    "sapo": ({"type": "sapo"}, {"loss_type": "sapo"}),
}
CASES["gspo"][1].update(epsilon_low=0.1, epsilon_high=0.1)


def trl_loss(
    logps: Tensor,
    old: Tensor,
    sampling: Tensor,
    ref: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    loss_type: str,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
    delta: float | None = None,
    beta: float = 0.0,
    cap: float | None = None,
    level: str = "token",
) -> Tensor:
    """TRL's loss; every tensor [B, T] but `advantages`, [B]."""
    advantages = advantages.unsqueeze(1)
    log_ratio = logps - old  # 2092
    if level == "sequence":  # 2095
        log_ratio = ((log_ratio * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)).unsqueeze(-1)
    coef_1 = torch.exp(log_ratio)  # 2104
    if loss_type == "cispo":  # 2118
        per_token = -torch.clamp(coef_1, max=epsilon_high).detach() * advantages * logps
    elif loss_type == "sapo":  # 2130, temperatures at TRL's defaults
        temperatures = torch.where(advantages > 0, 1.0, 1.05)
        per_token = -torch.sigmoid(temperatures * (coef_1 - 1)) * 4 / temperatures * advantages
    else:  # 2121
        coef_2 = torch.clamp(coef_1, 1 - epsilon_low, 1 + epsilon_high)
        if delta is not None:
            coef_1 = torch.clamp(coef_1, max=delta)
        per_token = -torch.min(coef_1 * advantages, coef_2 * advantages)
    if cap is not None:  # 1744 to 1753, vllm_importance_sampling_mode="token_truncate", and 2144
        per_token = per_token * torch.exp((old - sampling) * mask).clamp(max=cap)
    if beta:  # 2110 and 2147
        per_token = per_token + beta * (torch.exp(ref - logps) - (ref - logps) - 1)
    if loss_type in ("grpo", "sapo"):  # 2150
        return ((per_token * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)).mean()
    if loss_type == "dr_grpo":  # 2158
        return (per_token * mask).sum() / (per_token.size(0) * MAX_COMPLETION_LENGTH)
    return (per_token * mask).sum() / mask.sum()  # 2162; num_items_in_batch counts completion tokens


@pytest.mark.parametrize("case", CASES)
def test_equals_trl_in_value_and_gradient(case: str, packed: Callable[..., Any]) -> None:
    options, trl_options = CASES[case]
    batch = packed(seed=1, lengths=LENGTHS, mask_share=0.8)
    rows = torch.arange(len(LENGTHS)).repeat_interleave(torch.tensor(LENGTHS))
    assert all(batch.mask[rows == row].any() for row in range(len(LENGTHS)))  # TRL averages over all rows

    def padded(values_T: Tensor) -> Tensor:
        return pad_sequence(list(values_T.split(LENGTHS)), batch_first=True)

    theirs_T = batch.trainer.clone().requires_grad_()
    theirs = trl_loss(
        padded(theirs_T),
        padded(batch.old),
        padded(batch.inference),
        padded(batch.reference),
        padded(batch.advantages)[:, 0],
        padded(batch.mask.double()),
        **trl_options,
    )
    theirs.backward()

    ours = batch.with_gradient()
    loss, _ = build_loss(options)(
        *ours.inputs, old_logprobs_T=batch.old, reference_logprobs_T=batch.reference
    )
    loss.backward()
    assert ours.trainer.grad is not None and theirs_T.grad is not None
    assert loss.item() == pytest.approx(theirs.item(), rel=1e-12)
    assert ours.trainer.grad.tolist() == pytest.approx(theirs_T.grad.tolist(), rel=1e-12, abs=1e-15)
    assert theirs_T.grad.any()
