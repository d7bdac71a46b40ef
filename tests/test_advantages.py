"""Claims about `group_advantages`."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rezero_ray.advantages import group_advantages

torch.set_num_threads(1)

REWARDS = st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=16)


def test_std_divides_by_the_unbiased_deviation_plus_epsilon() -> None:
    # rewards 0, 1, 1, 2: mean 1, squared deviations 1 + 0 + 0 + 1, unbiased variance 2 / 3
    expected = 1 / (math.sqrt(2 / 3) + 1e-4)
    assert group_advantages([0.0, 1.0, 1.0, 2.0]).tolist() == pytest.approx([-expected, 0, 0, expected])


def test_epsilon_is_an_argument() -> None:
    # rewards 0, 2: deviation from the mean 1, unbiased deviation sqrt(2)
    advantages = group_advantages([0.0, 2.0], epsilon=0.5)
    assert advantages[1].item() == pytest.approx(1 / (math.sqrt(2) + 0.5))


def test_mean_only_subtracts_and_none_changes_nothing() -> None:
    assert group_advantages([0.0, 1.0, 5.0], normalize="mean").tolist() == [-2.0, -1.0, 3.0]
    assert group_advantages([0.0, 1.0, 5.0], normalize="none").tolist() == [0.0, 1.0, 5.0]


@given(reward=st.floats(-1e6, 1e6, width=32), size=st.integers(1, 12), epsilon=st.sampled_from([0.0, 1e-4]))
def test_equal_rewards_and_a_group_of_one_give_exact_zeros(reward: float, size: int, epsilon: float) -> None:
    for normalize in ("std", "mean"):
        advantages = group_advantages([reward] * size, normalize=normalize, epsilon=epsilon)
        assert advantages.tolist() == [0.0] * size


@given(rewards=REWARDS)
@settings(max_examples=50)
def test_agrees_with_the_statistics_module(rewards: list[float]) -> None:
    advantages = group_advantages(torch.tensor(rewards, dtype=torch.float64))
    deviation = statistics.stdev(rewards) if len(rewards) > 1 else 0.0
    mean = statistics.fmean(rewards)
    expected = [(reward - mean) / (deviation + 1e-4) for reward in rewards]
    assert advantages.tolist() == pytest.approx(expected, abs=1e-6)


def test_result_is_detached_and_keeps_the_dtype() -> None:
    rewards = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    for normalize in ("std", "mean", "none"):
        advantages = group_advantages(rewards, normalize=normalize)
        assert not advantages.requires_grad
        assert advantages.dtype == torch.float64
    assert group_advantages(torch.tensor([0, 1])).dtype == torch.float32


@pytest.mark.parametrize(
    ("rewards", "complaint"),
    [
        ([], "empty"),
        ([0.0, float("nan")], "reward 1 is nan"),
        ([float("inf"), 0.0], "reward 0 is inf"),
        ([[0.0, 1.0]], "one dimension"),
        (1.0, "one dimension"),
        ([0.0, "x"], "sequence of numbers"),
        ([[0.0], [1.0, 2.0]], "sequence of numbers"),
    ],
)
def test_rewards_that_no_group_has_are_refused(rewards: object, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        group_advantages(rewards)  # type: ignore[arg-type]


def test_unknown_normalization_and_bad_epsilon_are_refused() -> None:
    with pytest.raises(ValueError, match="'variance'; valid are 'std', 'mean', 'none'"):
        group_advantages([0.0, 1.0], normalize="variance")  # type: ignore[arg-type]
    for epsilon in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="epsilon"):
            group_advantages([0.0, 1.0], epsilon=epsilon)
