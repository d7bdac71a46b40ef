"""Claims about `RolloutSchedule`, over random schedules in simulated time."""

import random
from collections import Counter
from itertools import pairwise
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from rezero_ray.records import Prompt
from rezero_ray.sampler import SamplerState
from rezero_ray.schedule import Limits, RolloutSchedule, ScheduleState, rolled_out_again
from tests.record_builders import make_group, make_rollout
from tests.schedule.simulation import Outcome, World, continue_run, make_group_of, sampler, simulate

LIMITS = st.builds(
    Limits,
    batch_size=st.integers(1, 24),
    steps=st.integers(1, 12),
    max_async_level=st.integers(0, 4),
    engines=st.integers(1, 64),
    capacity=st.integers(1, 16),
    stale=st.sampled_from(["finish", "retry", "drop"]),
    attempts=st.integers(1, 4),
    resample=st.sampled_from([0, 0, 3, 50]),
)


def random_world(seed: int, engines: int, failure_rate: float) -> World:
    """Heavy tails (Pareto, alpha 1.2), broken attempts, engines that die, groups without signal."""
    draw = random.Random(seed)
    train_seconds = draw.choice([0.01, 1.0, 30.0])
    deaths = [
        (draw.uniform(0, 50), draw.randrange(engines), draw.uniform(0.1, 20))
        for _ in range(draw.randrange(0, 8))
    ]
    return World(
        seconds=lambda index, attempt: random.Random(f"{seed}/{index}/{attempt}").paretovariate(1.2),
        train_seconds=train_seconds,
        breaks=lambda index, attempt: random.Random(f"b{seed}/{index}/{attempt}").random() < failure_rate,
        deaths=deaths,
        signal=lambda index: random.Random(f"s{seed}/{index}").random() < 0.6,
    )


def holds(limits: Limits, outcome: Outcome, schedule: RolloutSchedule) -> None:
    """What must be true of every whole run."""
    assert len(outcome.steps) == limits.steps
    assert {len(step) for step in outcome.steps} == {limits.batch_size}
    assert max(outcome.staleness) <= limits.max_async_level
    fates = Counter([*outcome.trained, *outcome.put_aside, *outcome.resampled])
    assert set(fates.values()) == {1}, "a prompt is trained once, put aside, or without signal"
    assert sorted(fates) == list(range(schedule.state().sampler.position)), "and no prompt is skipped"
    assert schedule.under_way == 0
    assert outcome.most_on_an_engine <= limits.capacity
    assert outcome.most_under_way <= (limits.max_async_level + 1) * limits.batch_size


@settings(max_examples=2000, deadline=None)
@given(limits=LIMITS, seed=st.integers(0, 2**32), failure_rate=st.sampled_from([0.0, 0.0, 0.05, 0.4]))
def test_staleness_is_bounded_and_every_prompt_has_one_fate(
    limits: Limits, seed: int, failure_rate: float
) -> None:
    outcome, schedule = simulate(limits, random_world(seed, limits.engines, failure_rate))
    holds(limits, outcome, schedule)


@pytest.mark.parametrize("stale", ["finish", "retry", "drop"])
def test_ten_thousand_groups_on_sixty_four_engines(stale: str) -> None:
    limits = Limits(
        batch_size=500,
        steps=20,
        max_async_level=2,
        engines=64,
        capacity=8,
        stale=stale,  # type: ignore[arg-type]
    )
    outcome, schedule = simulate(limits, random_world(7, 64, 0.05))
    holds(limits, outcome, schedule)


@settings(max_examples=300, deadline=None)
@given(limits=LIMITS, seed=st.integers(0, 2**32), data=st.data())
def test_a_run_cut_after_any_step_trains_the_rest_and_nothing_twice(
    limits: Limits, seed: int, data: st.DataObject
) -> None:
    world = random_world(seed, limits.engines, 0.05)
    cut = data.draw(st.integers(0, limits.steps))
    first, schedule = simulate(limits, world, until_step=cut)
    state = schedule.state()
    second_schedule = RolloutSchedule(sampler(), limits)
    second_schedule.restore(state, cut)
    second = continue_run(second_schedule, limits, world)
    whole = Outcome(
        steps=first.steps + second.steps,
        staleness=first.staleness + second.staleness,
        put_aside=first.put_aside + second.put_aside,
        resampled=first.resampled + second.resampled,
        most_on_an_engine=max(first.most_on_an_engine, second.most_on_an_engine),
        most_under_way=max(first.most_under_way, second.most_under_way),
    )
    holds(limits, whole, second_schedule)


@settings(max_examples=200, deadline=None)
@given(before=LIMITS, after=LIMITS, seed=st.integers(0, 2**32))
def test_a_cut_is_gone_on_with_under_another_config(before: Limits, after: Limits, seed: int) -> None:
    cut = min(before.steps, after.steps) // 2
    _, schedule = simulate(before, random_world(seed, before.engines, 0.0), until_step=cut)
    again = RolloutSchedule(sampler(), after)
    again.restore(schedule.state(), cut)
    outcome = continue_run(again, after, random_world(seed, after.engines, 0.0))
    assert len(outcome.steps) == after.steps - cut
    assert max(outcome.staleness, default=0) <= after.max_async_level
    assert max(Counter(outcome.trained).values(), default=1) == 1


def test_finished_groups_are_begun_again_where_they_do_not_fit_the_config() -> None:
    group = make_group([make_rollout([1], [2])], index=3)
    waiting = [Prompt(index=i, environment="a", example=i) for i in (1, 5)]
    state = ScheduleState(SamplerState(6, {"a": 6}), waiting=waiting, attempts={3: 1}, ready=[group])
    again = rolled_out_again(state)
    assert [prompt.index for prompt in again.waiting] == [1, 3, 5]
    assert (again.ready, again.sampler, again.attempts) == ([], state.sampler, state.attempts)


def test_synchronous_steps_take_the_prompts_in_the_samplers_order() -> None:
    limits = Limits(batch_size=4, steps=5, engines=3)
    outcome, _ = simulate(limits, random_world(1, 3, 0.0))
    expected = [prompt.index for prompt in sampler().take(20)]
    assert outcome.trained == expected
    assert set(outcome.staleness) == {0}


@pytest.mark.parametrize("level", [1, 2, 4])
@pytest.mark.parametrize("tail", [0.3, 1.0])
def test_with_balanced_times_a_step_takes_at_most_a_tenth_more_than_the_longer_of_the_two(
    level: int, tail: float
) -> None:
    """Group durations are log-normal. The learner takes as long as rolling out a batch by itself does on average;
    a batch by itself takes as long as its slowest group, so the longer of the two is now the one, now the other."""
    limits = Limits(batch_size=64, steps=60, engines=8, capacity=8)

    def seconds(index: int, attempt: int) -> float:
        return random.Random(f"{tail}/{index}").lognormvariate(0.0, tail)

    alone = simulate(limits, World(seconds, train_seconds=0.0))[0].ended
    rollout_seconds = [end - start for start, end in pairwise([0.0, *alone])]
    train_seconds = fmean(rollout_seconds)
    longer = fmean(max(rollout, train_seconds) for rollout in rollout_seconds[30:])
    overlapped, _ = simulate(replace(limits, max_async_level=level), World(seconds, train_seconds))
    assert overlapped.step_seconds <= 1.1 * longer
    one_after_the_other, _ = simulate(limits, World(seconds, train_seconds))
    assert one_after_the_other.ended[-1] == pytest.approx(alone[-1] + 60 * train_seconds)


def test_a_straggler_is_waited_for_begun_again_or_put_aside() -> None:
    """Prompt 0 takes for ever the first time. With n = 1 it must be trained at step 2."""

    def run(stale: str) -> Outcome:
        limits = Limits(batch_size=2, steps=6, max_async_level=1, engines=2, stale=stale)  # type: ignore[arg-type]
        first = iter([100.0])
        world = World(lambda index, attempt: next(first, 1.0) if index == 0 else 1.0)
        return simulate(limits, world)[0]

    waited, again, dropped = run("finish"), run("retry"), run("drop")
    assert waited.ended[-1] > 100
    assert 0 in [group.prompt.index for group in waited.steps[1]]
    assert again.ended[-1] < 20
    assert 0 in again.trained
    assert dropped.ended[-1] < 20
    assert dropped.put_aside == [0]


def test_a_group_goes_to_the_engine_with_the_fewest_and_none_to_a_lost_one() -> None:
    schedule = RolloutSchedule(sampler(), Limits(batch_size=6, steps=1, engines=3, capacity=2))
    schedule.engine_lost(1)
    assert [send.engine for send in schedule.sends()] == [0, 2, 0, 2]
    schedule.engine_back(1)
    assert [send.engine for send in schedule.sends()] == [1, 1]


def test_a_prompt_that_keeps_failing_is_put_aside_and_replaced() -> None:
    limits = Limits(batch_size=2, steps=2, attempts=3)
    outcome, _ = simulate(limits, World(lambda i, a: 1.0, breaks=lambda index, attempt: index == 1))
    assert outcome.put_aside == [1]
    assert outcome.trained == [0, 2, 3, 4]


def test_groups_without_signal_are_replaced_within_the_budget_of_a_step() -> None:
    limits = Limits(batch_size=2, steps=2, resample=3)
    outcome, _ = simulate(limits, World(lambda i, a: 1.0, signal=lambda index: index >= 5))
    assert outcome.resampled == [0, 1, 2]
    assert outcome.trained == [3, 4, 5, 6]


def test_no_cut_is_made_while_a_step_is_in_training() -> None:
    schedule = RolloutSchedule(sampler(), Limits(batch_size=1, steps=1))
    schedule.finished(make_group_of(schedule.sends()[0]))
    assert schedule.take_batch() is not None
    with pytest.raises(RuntimeError, match="between steps"):
        schedule.state()
