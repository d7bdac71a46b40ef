"""Claims about `learning_rate`."""

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rezero_ray.config.schema import OptimConfig
from rezero_ray.learning.schedule import learning_rate

SCHEDULES = st.sampled_from(["constant", "linear", "cosine"])


def optim(**options: Any) -> OptimConfig:
    return OptimConfig(lr=1e-3, **options)


def rates(max_steps: int, **options: Any) -> list[float]:
    return [learning_rate(optim(**options), step, max_steps) for step in range(1, max_steps + 1)]


@given(
    schedule=SCHEDULES,
    warmup=st.integers(0, 30),
    least=st.floats(0, 1),
    max_steps=st.integers(1, 40),
)
def test_it_rises_to_the_peak_and_never_again(
    schedule: str, warmup: int, least: float, max_steps: int
) -> None:
    found = rates(max_steps, schedule=schedule, warmup_steps=warmup, min_lr_ratio=least)
    assert all(0 <= rate <= 1e-3 * (1 + 1e-12) for rate in found)
    up, down = found[:warmup], found[max(0, warmup - 1) :]
    assert up == sorted(up)
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in pairwise(down))


def test_the_warm_up_is_linear_and_its_last_step_has_the_full_rate() -> None:
    assert rates(6, warmup_steps=4) == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3, 1e-3])


def test_without_warm_up_a_constant_schedule_is_constant() -> None:
    assert rates(3) == [1e-3, 1e-3, 1e-3]


def test_linear_decay_goes_in_equal_steps_to_the_least_rate() -> None:
    found = rates(12, schedule="linear", warmup_steps=2, min_lr_ratio=0.1)
    assert found[1] == 1e-3
    assert found[-1] == pytest.approx(1e-4)
    assert [a - b for a, b in pairwise(found[1:])] == pytest.approx([0.9e-3 / 10] * 10)


def test_cosine_decay_is_half_way_down_half_way_through() -> None:
    found = rates(10, schedule="cosine", min_lr_ratio=0.2)
    assert found[4] == pytest.approx(1e-3 * (0.2 + 0.8 * 0.5))
    assert found[0] == pytest.approx(1e-3 * (0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 10))))
    assert found[-1] == pytest.approx(0.2e-3)


def test_beyond_the_last_step_the_linear_rate_stays_at_its_least() -> None:
    assert learning_rate(optim(schedule="linear", min_lr_ratio=0.1), 50, 10) == pytest.approx(1e-4)
