"""Claims about the judgement of a publication: an alarm needs a learner that moved and an engine that did not."""

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rezero_ray.agreement import CLEAR
from rezero_ray.errors import RunError
from rezero_ray.publication import PublicationWatch, Scored, Verdict, judge_publication

NOISE = {"float32": 1e-6, "bfloat16": 0.01}
"""Differences of the two sides' logprobs, in nats, as SmolLM2 has them on a CPU."""

START = [-0.02, -7.5, -1.1, -3.4, -0.4, -2.2, -5.9, -0.9, -4.3, -1.7]


def moved(by: float, seed: int = 1) -> list[float]:
    """START under a policy that moves each logprob by about `by`."""
    draw = random.Random(seed)
    return [value + by * draw.choice((-1, 1)) * draw.uniform(0.7, 1.3) for value in START]


def rounded(values: Sequence[float], noise: float, seed: int) -> list[float]:
    """The same as another side computes them."""
    draw = random.Random(seed)
    return [value + draw.uniform(-noise, noise) for value in values]


def verdict(dtype: str, learner_by: float, engine_by: float, seed: int = 0) -> Verdict:
    noise = NOISE[dtype]
    reference = Scored(3, START, rounded(START, noise, seed))
    now = Scored(4, moved(learner_by), rounded(moved(engine_by), noise, seed + 1))
    return judge_publication(reference, now, dtype=dtype).verdict


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("seed", range(20))
def test_a_learner_that_moved_by_no_more_than_rounding_raises_no_alarm_whatever_the_engine_does(
    dtype: str, seed: int
) -> None:
    for engine_by in (0.0, NOISE[dtype]):
        assert verdict(dtype, 0.0, engine_by, seed) is Verdict.UNDECIDED
        assert verdict(dtype, NOISE[dtype], engine_by, seed) is Verdict.UNDECIDED


@pytest.mark.parametrize(("dtype", "by"), [("float32", 1e-4), ("float32", 0.3), ("bfloat16", 0.3)])
@pytest.mark.parametrize("seed", range(20))
def test_a_learner_that_moved_needs_an_engine_that_moved_as_much(dtype: str, by: float, seed: int) -> None:
    assert verdict(dtype, by, by, seed) is Verdict.APPLIED
    assert verdict(dtype, by, 0.0, seed) is Verdict.IGNORED


def test_an_engine_whose_logprobs_only_jitter_did_not_move() -> None:
    """With other requests in its batch an engine rounds otherwise: equality to the digit proves nothing."""
    before, after = rounded(START, 0.01, 1), rounded(START, 0.01, 2)
    assert before != after
    found = judge_publication(Scored(0, START, before), Scored(1, moved(0.3), after), dtype="bfloat16")
    assert found.verdict is Verdict.IGNORED
    assert found.engine < 0.02 and found.learner > 0.2


def test_the_same_small_move_is_judged_in_float32_and_left_open_in_bfloat16() -> None:
    """The first version of a warm-up in bfloat16: the learner's logprobs of a few tokens round the other way."""
    assert verdict("float32", 0.02, 0.0) is Verdict.IGNORED
    assert verdict("bfloat16", 0.02, 0.0) is Verdict.UNDECIDED


def test_where_both_sides_agree_to_the_digit_the_dtype_has_its_own_resolution() -> None:
    for dtype, step in (("float32", 2.0**-23), ("bfloat16", 2.0**-7)):
        for share, expected in ((0.5, Verdict.UNDECIDED), (10.0, Verdict.IGNORED)):
            after = [value * (1 + share * step) for value in START]
            found = judge_publication(Scored(0, START, START), Scored(1, after, START), dtype=dtype)
            assert found.verdict is expected, (dtype, share)


def test_a_token_that_an_expert_s_routing_moved_is_no_movement_and_hides_none() -> None:
    learner = [*START[:-1], START[-1] - 4.0]
    found = judge_publication(Scored(0, START, START), Scored(1, learner, START), dtype="bfloat16")
    assert found.verdict is Verdict.UNDECIDED
    engine = [*START[:-1], START[-1] - 4.0]
    found = judge_publication(Scored(0, START, START), Scored(1, moved(0.3), engine), dtype="bfloat16")
    assert found.verdict is Verdict.IGNORED


def published(watch: PublicationWatch, version: int, learner: list[float], *engines: list[float]) -> None:
    watch.published(version, learner, dict(enumerate(engines)))


def test_an_engine_that_stops_applying_at_a_later_version_is_found() -> None:
    watch = PublicationWatch("float32")
    for version in range(5):
        policy = moved(0.01 * version)
        published(watch, version, policy, rounded(policy, 1e-6, version))
    with pytest.raises(
        RunError, match="policy version 5 was published but the engine's logprobs did not change"
    ) as found:
        published(watch, 5, moved(0.05), rounded(moved(0.04), 1e-6, 5))
    assert found.value.kind == "trust"
    assert "since version 4" in found.value.message


@given(step=st.floats(5e-3, 0.05), stops=st.integers(0, 40))
@settings(max_examples=30)
def test_small_movements_add_up_until_an_ignored_publication_shows(step: float, stops: int) -> None:
    """In bfloat16 no single version moves the learner by more than rounding. The engine applies versions up to
    `stops`; the alarm comes after that, and before the learner has moved by another nat."""
    watch, noise = PublicationWatch("bfloat16"), NOISE["bfloat16"]
    assert step <= CLEAR * noise
    limit = stops + math.ceil(1.0 / step)
    for version in range(limit + 1):
        learner, engine = moved(step * version), moved(step * min(version, stops))
        try:
            published(watch, version, learner, rounded(engine, noise, version))
        except RunError as error:
            assert version > stops
            assert error.kind == "trust"
            return
    raise AssertionError(f"no alarm within {limit} versions")


@given(steps=st.lists(st.floats(0, 0.3), min_size=1, max_size=30), seed=st.integers(0, 99))
@settings(max_examples=50)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_engine_that_applies_every_version_never_raises_an_alarm(
    dtype: str, steps: list[float], seed: int
) -> None:
    watch, total = PublicationWatch(dtype), 0.0
    for version, step in enumerate(steps):
        total += step
        published(watch, version, moved(total), rounded(moved(total), NOISE[dtype], seed + version))


def test_each_engine_has_its_own_reference_and_the_alarm_names_the_one_that_ignores() -> None:
    watch = PublicationWatch("float32")
    published(watch, 0, START, START, START)
    with pytest.raises(RunError, match="in engine 1"):
        published(watch, 1, moved(0.1), moved(0.1), START)


def test_an_engine_that_was_away_is_compared_with_what_it_last_applied() -> None:
    watch = PublicationWatch("float32")
    published(watch, 0, START, START, START)
    watch.published(1, moved(0.1), {0: moved(0.1)})
    with pytest.raises(RunError, match=r"since version 0 .* in engine 1"):
        published(watch, 2, moved(0.2), moved(0.2), START)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_logprob_that_is_not_finite_is_a_trust_error_that_names_the_side(value: float) -> None:
    wrong = [value, *START[1:]]
    with pytest.raises(RunError, match="policy version 0: the learner"):
        published(PublicationWatch("float32"), 0, wrong, START)
    with pytest.raises(RunError, match="policy version 0: engine 0"):
        published(PublicationWatch("float32"), 0, START, wrong)
