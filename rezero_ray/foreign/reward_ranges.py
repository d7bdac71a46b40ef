"""Rewards of environments whose range is not [-1, 1]."""

import math
from collections.abc import Mapping

Range = tuple[float, float]
OURS: Range = (-1.0, 1.0)

RAW_RANGES: Mapping[str, Range] = {
    "sv-env-redteam-attack": (-0.95, 1.25),
    "sv-env-code-vulnerability": (0.0, 1.2),
    "sv-env-config-verification": (0.0, 2.25),
    "sv-env-phishing-detection": (-0.4, 1.8),
    "sv-env-network-logs": (-0.4, 1.8),
}
"""Of the environments of intertwine/security-verifiers at 27f7c04: the last two enumerated over a grid of answers,
the others from their code and spot runs."""


def raw_range_of(env_id: str, given: Range | None, reward_range: Range) -> Range | None:
    """The range that rewards are mapped from, None where they are taken as they come.

    Args:
        given: `raw_reward_range` of the configuration, which wins.
        reward_range: one that is not [-1, 1] says that the environment's own rewards are wanted.
    """
    owner, _, name = env_id.rpartition("/")
    if given is not None or reward_range != OURS or owner not in ("", "intertwine"):
        return given
    return RAW_RANGES.get(name)


def mapped(reward: float, raw: Range) -> float:
    """`reward` of `raw`, linearly in [-1, 1].

    Raises:
        ValueError: it is outside, or NaN.
    """
    lowest, highest = raw
    tolerance = 1e-9 * (highest - lowest)
    if not lowest - tolerance <= reward <= highest + tolerance:
        raise ValueError(f"the reward is {reward}, outside the environment's raw range [{lowest}, {highest}]")
    return min(1.0, max(-1.0, 2 * (reward - lowest) / (highest - lowest) - 1))


def trained_reward(reward: float | None, raw: Range | None, reward_range: Range) -> float:
    """An environment's own reward as it is trained on, mapped where there is a raw range.

    Raises:
        ValueError: there is none, or it is not finite or outside the range that the environment promises.
    """
    if reward is None or not math.isfinite(reward):
        raise ValueError(f"the reward is {reward}, not a finite number")
    if raw is not None:
        reward = mapped(reward, raw)
    lowest, highest = reward_range
    if not lowest <= reward <= highest:
        what = "outside the environment's reward_range"
        raise ValueError(f"the reward is {reward}, {what} = [{lowest}, {highest}]")
    return float(reward)
