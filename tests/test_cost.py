"""Claims about what a step and a run cost."""

import re

import pytest

from rezero_ray.cost import NoRate, Rate, RatePart, cost_lines, dollars

RATE = Rate((RatePart("4 H100", 16.0), RatePart("8 cores", 2.0)), "a table", factor=1.5)


def amounts(lines: list[str]) -> list[float]:
    return [float(re.findall(r"([\d.]+) dollars", line)[0]) for line in lines]


def test_the_parts_and_the_factor_make_the_hour() -> None:
    assert RATE.usd_per_hour == 1.5 * (16 + 2)


def test_a_step_and_a_run_cost_their_time_start_up_included() -> None:
    hour, step, run = amounts(cost_lines(RATE, 120.0, 90, 1800.0))
    assert hour == 27
    assert step == pytest.approx(27 * 120 / 3600)
    assert run == pytest.approx(27 * (90 * 120 + 1800) / 3600)


def test_a_start_up_that_is_not_known_is_named_as_missing() -> None:
    assert "start-up not counted" in cost_lines(RATE, 120.0, 90, None)[2]
    assert "start-up" not in cost_lines(RATE, 120.0, 90, 0.0)[2]


def test_without_a_forecast_the_hour_alone_is_told() -> None:
    assert len(cost_lines(RATE, None, 90, None)) == 1


def test_what_is_not_known_is_said_with_its_reason() -> None:
    assert cost_lines(NoRate("no price of B300"), 120.0, 90, 1.0) == ["cost: unknown: no price of B300"]


@pytest.mark.parametrize(
    ("usd", "shown"), [(0, "0.00"), (0.00123, "0.0012"), (0.1, "0.10"), (123.456, "123.46")]
)
def test_small_amounts_keep_two_digits(usd: float, shown: str) -> None:
    assert dollars(usd) == f"{shown} dollars"
