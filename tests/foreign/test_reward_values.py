"""Whatever a reward function returns, its reward is a finite number or a fault that names the function; never 0.0.

The rubrics are verifiers' own, scored as a run scores them; no process and no model takes part.
"""

import asyncio
import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
import verifiers as vf
from hypothesis import given, settings
from hypothesis import strategies as st

from rezero_ray.foreign.rezero_child.bounded_calls import BoundedCalls
from rezero_ray.foreign.rezero_child.group_watch import ROLLOUT, GroupWatch, watched_group
from rezero_ray.foreign.rezero_child.reward_values import NoReward, group_rewards, one_reward
from rezero_ray.foreign.rezero_child.rubric_faults import Rules, guard_rubric

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning"
)  # of a masked value, of a gradient that is dropped

Scores = tuple[list[Any], list[dict[str, Any]], GroupWatch]


def score(rubric: Any, *, count: int = 3, zero: bool = False, **extra: Any) -> Scores:
    """Rewards, metrics and the watch of a group of `count` rollouts that are scored by a guarded rubric."""
    guard_rubric(rubric, BoundedCalls(), Rules(zero=zero))
    states = [
        vf.State(
            {
                "input": {ROLLOUT: number, **extra},
                "prompt": [{"role": "user", "content": "?"}],
                "completion": [{"role": "assistant", "content": "yes" * number}],
                "answer": "yes",
                "trajectory": [],
                "reward": None,
                "metrics": None,
            }
        )
        for number in range(count)
    ]

    async def scored() -> GroupWatch:
        with watched_group() as watch:
            await rubric.score_group(states)
            return watch

    watch = asyncio.run(scored())
    return [state["reward"] for state in states], [state["metrics"] for state in states], watch


async def a_coroutine() -> float:
    return 0.5


class Hostile:
    """No number, whatever is asked of it."""

    ndim = 0

    def item(self) -> "Hostile":
        return self

    def __float__(self) -> float:
        return 0.0

    def __repr__(self) -> str:
        raise RuntimeError("no text either")


NUMBERS: list[tuple[Any, float]] = [
    (1, 1.0),
    (True, 1.0),
    (False, 0.0),
    (0, 0.0),
    (-0.25, -0.25),
    (Decimal("0.125"), 0.125),
    (Fraction(1, 4), 0.25),
    (np.float32(0.5), 0.5),
    (np.int64(2), 2.0),
    (np.bool_(True), 1.0),
    (np.array(0.5), 0.5),
    (np.longdouble("0.5"), 0.5),
    (torch.tensor(0.5), 0.5),
    (torch.tensor(True), 1.0),
    (torch.tensor(0.5, dtype=torch.bfloat16, requires_grad=True), 0.5),
]
"""What is a number, with the reward that it is."""

NO_NUMBERS: list[Any] = [
    None,
    "0.5",
    "",
    b"1",
    "yes",
    1j,
    np.complex128(1),
    np.array(1 + 0j),
    torch.tensor(1j),
    math.nan,
    math.inf,
    -math.inf,
    10**400,
    Decimal("NaN"),
    Decimal("sNaN"),
    np.float32("nan"),
    np.datetime64("2026-01-01"),
    np.array("0.5"),
    np.ma.masked,
    torch.tensor(math.nan),
    torch.empty((), device="meta"),
    [0.5],
    (0.5, "because"),
    [],
    {"score": 0.5},
    {0.5},
    np.array([0.5]),
    torch.tensor([0.5]),
    torch.tensor([[0.5]]),
    (each for each in [0.5]),
    range(1),
    float,
    object(),
    Hostile(),
]
"""What is none."""


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: type(value).__name__)
def test_what_is_no_finite_number_is_a_fault_that_names_the_function(value: Any) -> None:
    def graded(completion: Any) -> Any:
        return value

    rewards, _, watch = score(vf.Rubric(funcs=[graded]))
    assert watch.faults and all(fault.startswith("graded returned ") for fault in watch.faults)
    assert all(math.isnan(reward) for reward in rewards)


@pytest.mark.parametrize(("value", "reward"), NUMBERS, ids=lambda value: type(value).__name__)
def test_a_number_of_any_library_is_the_reward(value: Any, reward: float) -> None:
    async def graded(completion: Any) -> Any:
        return value

    rewards, metrics, watch = score(vf.Rubric(funcs=[graded]))
    assert watch.faults == [] and rewards == [reward] * 3
    assert all(type(each["graded"]) is float for each in metrics)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.5], "returned 1 values for 3 rollouts"),
        ([0.5] * 6, "returned 6 values for 3 rollouts"),
        ([], "returned 0 values for 3 rollouts"),
        (0.5, "returned 0.5; a function of a whole group returns a list of 3"),
        ({0: 1, 1: 1, 2: 1}, "returned a dict of 3"),
        ([0.5, None, 0.5], "returned None for rollout 1"),
        (
            [0.5, [0.5], 0.5],
            "returned a list of 1; a function of one rollout returns one number for rollout 1",
        ),
        (np.full((3, 1), 0.5), "returned a ndarray of shape (3, 1)"),
        (np.array([0.5, math.nan, 0.5]), "returned nan, which is not a finite number for rollout 1"),
        ("abc", "returned a str ('abc')"),
        (None, "returned None"),
    ],
)
def test_a_group_function_gives_one_number_for_each_rollout(values: Any, said: str) -> None:
    def ranked(completions: Any) -> Any:
        return values

    _, _, watch = score(vf.Rubric(funcs=[ranked]))
    assert any(fault.startswith(f"ranked {said}") for fault in watch.faults), watch.faults


@pytest.mark.parametrize(
    "values",
    [[0, 1, 2], (0, True, Decimal(2)), np.arange(3), torch.arange(3.0)],
    ids=lambda v: type(v).__name__,
)
def test_a_list_of_any_library_is_taken_from_a_group_function(values: Any) -> None:
    def ranked(answers: Any) -> Any:  # of the plural arguments verifiers gives it this one alone
        return values

    def by_annotation() -> list[float]:
        return [0.0, 0.0, 0.5]

    rewards, _, watch = score(vf.Rubric(funcs=[ranked, by_annotation]))
    assert watch.faults == [] and rewards == [0.0, 1.0, 2.5 if float(values[1]) == 1 else None]


def raises(problem: BaseException) -> Callable[..., Any]:
    def graded(completion: Any) -> Any:
        raise problem

    return graded


async def exits(completion: Any) -> Any:
    raise SystemExit(3)


async def cancels(completion: Any) -> Any:
    raise asyncio.CancelledError


async def forgets_to_await(completion: Any) -> Any:
    return a_coroutine()


def needs_a_column(completion: Any, gold: Any) -> float:
    return 0.5


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (raises(ZeroDivisionError("no tests")), "graded raised ZeroDivisionError: no tests"),
        (raises(SystemExit(2)), "graded called sys.exit(2)"),
        (raises(KeyboardInterrupt()), "graded raised KeyboardInterrupt"),
        (raises(asyncio.CancelledError()), "graded raised CancelledError"),
        (exits, "exits called sys.exit(3)"),
        (cancels, "cancels raised CancelledError"),
        (forgets_to_await, "forgets_to_await returned a coroutine"),
        (needs_a_column, "needs_a_column raised TypeError"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_function_that_raises_or_exits_is_a_fault_and_the_process_lives(
    function: Callable[..., Any], said: str
) -> None:
    _, _, watch = score(vf.Rubric(funcs=[function]))
    assert watch.faults and watch.faults[0].startswith(said)


def test_a_coroutine_of_a_plain_function_is_awaited() -> None:
    rewards, _, watch = score(vf.Rubric(funcs=[lambda completion: a_coroutine()]))
    assert watch.faults == [] and rewards == [0.5] * 3


VALUES = st.sampled_from(NO_NUMBERS[:-6] + [value for value, _ in NUMBERS]) | st.recursive(
    st.none() | st.floats() | st.integers() | st.complex_numbers() | st.text(max_size=3) | st.decimals(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=400)
@given(VALUES, st.integers(1, 4))
def test_any_value_is_a_finite_number_or_no_reward(value: Any, count: int) -> None:
    """A number is what float() makes of it, and of what is none nothing is made."""
    try:
        reward = one_reward(value)
    except NoReward as problem:
        assert str(problem).startswith("returned ")
        too_large = isinstance(value, int) and abs(value) > 10**308
        assert too_large or not isinstance(value, int | float) or not math.isfinite(value)
    else:
        assert type(reward) is float and math.isfinite(reward) and reward == float(value)
        assert not isinstance(value, str | complex | list)
    try:
        rewards = group_rewards(value, count)
    except NoReward as problem:
        assert str(problem).startswith("returned ")
    else:
        assert len(rewards) == count == len(value)
        assert all(isinstance(each, NoReward) or math.isfinite(each) for each in rewards)


@settings(max_examples=60)
@given(st.lists(st.tuples(VALUES, st.booleans(), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=3))
def test_a_rubric_of_any_functions_gives_its_weighted_sum_or_names_every_function_that_failed(
    functions: list[tuple[Any, bool, float]],
) -> None:
    def of(value: Any, is_group: bool) -> Callable[..., Any]:
        def single(completion: Any) -> Any:
            return value

        def group(completions: Any) -> Any:
            return value

        return group if is_group else single

    made = [of(value, is_group) for value, is_group, _ in functions]
    rubric = vf.RubricGroup(
        [
            vf.Rubric(funcs=made[:1], weights=[functions[0][2]]),
            vf.Rubric(funcs=made[1:], weights=[weight for _, _, weight in functions[1:]]),
        ]
    )
    rewards, metrics, watch = score(rubric, count=2)
    expected, failed = [0.0, 0.0], set()
    counts = {"single": 0, "group": 0}
    for value, is_group, weight in functions:
        name = "group" if is_group else "single"
        counts[name] += 1
        own = name if counts[name] == 1 else f"{name}_{counts[name]}"
        try:
            found = group_rewards(value, 2) if is_group else [one_reward(value)] * 2
        except NoReward:
            failed.add(own)
            continue
        if any(isinstance(each, NoReward) for each in found):
            failed.add(own)
            continue
        expected = [total + weight * each for total, each in zip(expected, found, strict=True)]
        assert [each[own] for each in metrics] == found
    assert {fault.partition(" ")[0] for fault in watch.faults} >= failed
    if not failed and all(math.isfinite(each) for each in expected):
        assert watch.faults == [] and rewards == pytest.approx(expected)


def test_functions_of_one_name_are_components_of_their_own() -> None:
    def correct(completion: Any) -> float:
        return 0.6

    first, (second, third) = correct, [lambda completion: 0.2, lambda completion: 0.1]
    second.__name__ = "correct"
    rubric = vf.RubricGroup([vf.Rubric(funcs=[first, second]), vf.Rubric(funcs=[third, first])])
    rewards, metrics, _ = score(rubric)
    assert metrics[0] == {"correct": 0.6, "correct_2": 0.2, "<lambda>": 0.1, "correct_3": 0.6}
    assert rewards[0] == pytest.approx(sum(metrics[0].values()))


def test_a_function_that_is_added_after_loading_is_guarded_too() -> None:
    rubric = vf.Rubric(funcs=[lambda completion: 0.5])
    guard_rubric(rubric, BoundedCalls(), Rules())

    def late(completion: Any) -> Any:
        return [0.5]

    rubric.add_reward_func(late)
    _, _, watch = score(rubric)
    assert watch.faults[0].startswith("late returned a list of 1")


def test_a_rubric_that_scores_in_its_own_way_gives_numbers_too() -> None:
    class Best(vf.Rubric):
        async def score_group(self, states: Any) -> None:
            for state, reward in zip(states, [np.float32(0.5), None, "0.5"], strict=True):
                state["reward"], state["metrics"] = reward, {"length": np.int64(3), "why": 1j}

    rewards, metrics, watch = score(Best())
    assert {"Best.score_group returned None", "Best.score_group returned a str ('0.5')"} < set(watch.faults)
    assert "Best.score_group, metric why: returned a complex (1j)" in watch.faults
    assert type(rewards[0]) is float and type(metrics[0]["length"]) is float


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_judge_that_fails_or_answers_no_number_is_a_fault() -> None:
    class Client:
        async def refuse(self, **_: Any) -> Any:
            raise ConnectionError("no judge there")

        chat = completions = property(lambda self: self)
        create = refuse

    rubric = vf.JudgeRubric(judge_client=Client())

    async def judged(judge: Any, prompt: Any, completion: Any, answer: Any, state: Any) -> Any:
        return await judge(prompt, completion, answer, state)

    async def verdict(judge: Any) -> Any:
        return "yes"

    rubric.add_reward_func(judged)
    rubric.add_reward_func(verdict)
    _, _, watch = score(vf.RubricGroup([rubric]))
    assert any(fault.startswith("judged raised RuntimeError") for fault in watch.faults)
    assert "verdict returned a str ('yes')" in watch.faults


def test_zero_is_opt_in_counts_each_failure_and_leaves_the_other_functions_alone() -> None:
    def half(completion: Any) -> float:
        return 0.5

    def fails_on_the_longest(completion: Any) -> Any:
        return 0.25 if len(completion[0]["content"]) < 6 else [0.25]

    def ranked(completions: Any) -> Any:
        return [0.125, None, 0.125]

    functions = [half, fails_on_the_longest, ranked]
    rewards, metrics, watch = score(vf.Rubric(funcs=functions), zero=True)
    assert watch.faults == [] and rewards == [0.875, 0.75, 0.625]
    assert metrics[2]["fails_on_the_longest"] == 0.0
    assert watch.zeroed.keys() == {1, 2}
    assert watch.zeroed[1] == {"ranked": "ranked returned None for rollout 1"}
    assert watch.zeroed[2]["fails_on_the_longest"].startswith("fails_on_the_longest returned a list of 1")
    _, _, watch = score(vf.Rubric(funcs=functions))
    assert len(watch.faults) == 2 and watch.zeroed == {}


def test_a_group_that_nothing_scored_has_no_reward() -> None:
    watch = GroupWatch()
    assert "score_rollouts" in str(watch.error(None))
    watch.scored = True
    assert watch.error(None) is None and watch.error("a tool broke") == "a tool broke"
