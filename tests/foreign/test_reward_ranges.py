"""Claims about rewards whose range is not [-1, 1]."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rezero_ray.foreign.reward_ranges import RAW_RANGES, mapped, raw_range_of


def test_ends_and_middle_go_to_ends_and_middle() -> None:
    assert [mapped(reward, (-0.4, 1.8)) for reward in (-0.4, 1.8)] == [-1.0, 1.0]
    assert mapped(0.7, (-0.4, 1.8)) == pytest.approx(0.0)


@given(st.sampled_from(sorted(RAW_RANGES)), st.floats(0, 1))
def test_every_raw_reward_lands_between_minus_one_and_one(name: str, share: float) -> None:
    low, high = RAW_RANGES[name]
    assert -1 <= mapped(low + share * (high - low), (low, high)) <= 1


@pytest.mark.parametrize("reward", [math.nan, math.inf, -0.5, 1.9])
def test_one_outside_is_an_error_and_not_clipped(reward: float) -> None:
    with pytest.raises(ValueError, match="outside the environment's raw range"):
        mapped(reward, (-0.4, 1.8))


def test_the_table_holds_for_the_ids_it_names_unless_the_configuration_says_otherwise() -> None:
    ours, redteam = (-1.0, 1.0), RAW_RANGES["sv-env-redteam-attack"]
    assert raw_range_of("intertwine/sv-env-redteam-attack", None, ours) == redteam
    assert raw_range_of("sv-env-redteam-attack", None, ours) == redteam
    assert raw_range_of("intertwine/sv-env-redteam-attack", (0.0, 9.0), ours) == (0.0, 9.0)
    assert raw_range_of("intertwine/sv-env-redteam-attack", None, (0.0, 2.0)) is None
    assert raw_range_of("someone/sv-env-redteam-attack", None, ours) is None
    assert raw_range_of("redteam-attack", None, ours) is None
