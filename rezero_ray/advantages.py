"""From the rewards of one group of rollouts to one advantage per rollout.

A group is the set of rollouts that answer the same prompt. Comparing them with each other needs no value
network: the group's own mean is the baseline (GRPO, arXiv:2402.03300).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

Normalize = Literal["std", "mean", "none"]
"""How a group's rewards become advantages; see `group_advantages`."""


def group_advantages(
    rewards_G: Tensor | Sequence[float], *, normalize: Normalize = "std", epsilon: float = 1e-4
) -> Tensor:
    """Advantages of one group.

    Args:
        rewards_G: one finite reward per rollout of the group, [G].
        normalize:
            `"std"`: `(r - mean) / (std + epsilon)` with the unbiased standard deviation, divisor G - 1
            (GRPO, arXiv:2402.03300, and TRL's `scale_rewards="group"`).
            `"mean"`: `r - mean`: the baseline without the division, which would weigh easy and hard prompts
            more than the others (Dr. GRPO, arXiv:2503.20783).
            `"none"`: `r` as it is, for rewards that already are advantages.
        epsilon: added to the standard deviation; only `"std"` uses it.

    Returns:
        [G], detached, of the rewards' floating dtype (float32 for sequences and integer tensors). Under
        `"std"` and `"mean"` a group whose rewards are all equal, and so a group of one, gives exact zeros.

    Raises:
        ValueError: rewards that are empty, not one-dimensional or not finite; an unknown `normalize`; an
            `epsilon` that is negative or not finite.
    """
    if normalize not in get_args(Normalize):
        raise ValueError(f"normalize is {normalize!r}; valid are {', '.join(map(repr, get_args(Normalize)))}")
    if not (math.isfinite(epsilon) and epsilon >= 0):
        raise ValueError(f"epsilon is {epsilon!r}; it must be finite and at least 0")
    rewards = _checked(rewards_G)
    if normalize == "none":
        return rewards
    # Said outright, because the rounded mean of equal floats need not equal them.
    if bool((rewards == rewards[0]).all()):
        return torch.zeros_like(rewards)
    centred = rewards - rewards.mean()
    return centred if normalize == "mean" else centred / (rewards.std(correction=1) + epsilon)


def _checked(rewards_G: Tensor | Sequence[float]) -> Tensor:
    """A detached floating copy of the rewards, [G]; ValueError where they cannot be a group's rewards."""
    try:
        rewards = torch.as_tensor(rewards_G).detach().clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"rewards must be a tensor or a flat sequence of numbers: {error}") from error
    if rewards.is_complex():
        raise ValueError("rewards are complex; they must be real numbers")
    if not rewards.is_floating_point():
        rewards = rewards.to(torch.float32)
    if rewards.ndim != 1:
        raise ValueError(f"rewards have shape {tuple(rewards.shape)}; one dimension is expected, [G]")
    if rewards.numel() == 0:
        raise ValueError("rewards are empty; a group has at least one rollout")
    finite = torch.isfinite(rewards)
    if not bool(finite.all()):
        index = int(torch.nonzero(~finite)[0])
        raise ValueError(f"reward {index} is {float(rewards[index])}; every reward must be finite")
    return rewards
