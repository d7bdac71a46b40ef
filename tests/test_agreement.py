"""Claims about the comparisons of engine and learner."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rezero_ray.agreement import (
    CLEAR,
    judge_canary,
    mismatch_kl,
    require_match,
    stands_out,
)
from rezero_ray.errors import RunError

LOGPROBS = st.lists(st.floats(-15, 0), min_size=1, max_size=20)
BEFORE, AFTER = [-1.0, -2.0, -3.0], [-1.2, -1.7, -3.1]


def judge(dtype: str = "float32", **sides: list[float]) -> Any:
    given: dict[str, Any] = {"learner_before": BEFORE, "engine_before": BEFORE}
    given |= {"learner_after": AFTER, "engine_after": AFTER} | sides
    return judge_canary("q_proj", dtype=dtype, **given)


def test_equal_changes_agree() -> None:
    result = judge()
    assert result.disagreement == 0
    assert result.learner_move == result.engine_move == pytest.approx((0.2 + 0.3 + 0.1) / 3)


def test_a_constant_difference_between_the_two_does_not_matter() -> None:
    engine = [value + 0.01 for value in BEFORE], [value + 0.01 for value in AFTER]
    assert judge(engine_before=engine[0], engine_after=engine[1]).disagreement == pytest.approx(0)


def test_an_engine_that_ignores_the_module_is_told_with_the_way_out() -> None:
    with pytest.raises(RunError, match=r"ignores the adapter on 'q_proj'(.|\n)*target_modules") as found:
        judge(engine_after=BEFORE)
    assert found.value.kind == "trust"


def test_noise_that_the_learner_does_not_feel_proves_nothing() -> None:
    with pytest.raises(RunError, match="does not move the learner"):
        judge(learner_after=BEFORE)


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 0.05), ("bfloat16", 0.5)])
def test_a_change_of_another_size_is_refused_beyond_the_limit_of_the_precision(
    dtype: str, limit: float
) -> None:
    def scaled(factor: float) -> list[float]:
        return [b + factor * (a - b) for b, a in zip(BEFORE, AFTER, strict=True)]

    assert judge(dtype, engine_after=scaled(1 - 0.9 * limit)).disagreement == pytest.approx(0.9 * limit)
    with pytest.raises(RunError, match="disagree"):
        judge(dtype, engine_after=scaled(1 - 1.1 * limit))


def test_a_change_stands_out_when_it_is_clearly_larger_than_the_rounding_between_the_two() -> None:
    engine = [value + 0.01 for value in BEFORE]
    small, large = ([b + factor * 0.01 for b in BEFORE] for factor in (0.9 * CLEAR, 1.1 * CLEAR))
    assert not stands_out(BEFORE, small, engine)
    assert stands_out(BEFORE, large, engine)
    assert stands_out(BEFORE, AFTER, BEFORE)


@pytest.mark.parametrize("side", ["learner_after", "engine_after"])
def test_a_logprob_that_is_not_a_number_is_refused(side: str) -> None:
    with pytest.raises(RunError):
        judge(**{side: [math.nan, *AFTER[1:]]})


@given(values=LOGPROBS)
def test_the_mismatch_of_equal_logprobs_is_zero(values: list[float]) -> None:
    assert mismatch_kl(values, values) == 0


@given(pairs=st.lists(st.tuples(st.floats(-15, 0), st.floats(-15, 0)), min_size=1))
def test_the_mismatch_is_never_negative(pairs: list[tuple[float, float]]) -> None:
    assert mismatch_kl([t for t, _ in pairs], [e for _, e in pairs]) >= -1e-12


def test_the_mismatch_is_the_mean_of_exp_d_minus_d_minus_one() -> None:
    expected = (math.exp(0.5) - 0.5 - 1 + math.exp(-0.2) + 0.2 - 1) / 2
    assert mismatch_kl([-1.0, -2.2], [-1.5, -2.0]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("trainer", "engine"),
    [(-1.0, -math.inf), (-math.inf, -1.0), (-math.inf, -math.inf), (math.nan, -1.0), (-1.0, math.nan)],
)
def test_no_infinity_and_no_nan_passes_for_a_match(trainer: float, engine: float) -> None:
    with pytest.raises(RunError, match="mismatch_kl"):
        require_match(mismatch_kl([trainer, -1.0], [engine, -1.0]), 1e3, "at the start")


def test_a_match_at_the_limit_passes_and_one_above_names_the_key() -> None:
    require_match(0.05, 0.05, "step 3")
    with pytest.raises(
        RunError, match=r"step 3: mismatch_kl .* 0\.0501, above trust\.max_mismatch_kl = 0\.05"
    ):
        require_match(0.0501, 0.05, "step 3")
