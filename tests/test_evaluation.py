"""Held-out tasks: which are taken, that none is lost, and that the figures are right."""

import random
from collections import Counter

import numpy as np
import pytest

from rezero_ray.config.evaluation import EvalConfig
from rezero_ray.evaluation import HeldOutGroups, difference, estimate, held_out_prompts, scores_of
from rezero_ray.records import Group, Prompt
from tests.record_builders import make_config, make_rollout


def prompts(count: int, environment: str = "phishing-detection") -> list[Prompt]:
    return held_out_prompts({environment: 500}, make_config(), EvalConfig(num_examples=count))


def scored(prompt: Prompt, rewards: list[float]) -> Group:
    return Group(
        prompt=prompt, rollouts=[make_rollout([1], [2], reward=reward) for reward in rewards], seconds=1.0
    )


def test_the_tasks_are_drawn_by_the_seed_each_once_and_told_apart_from_training_prompts() -> None:
    settings = EvalConfig(num_examples=64)
    drawn = held_out_prompts({"a": 200, "b": 10}, make_config(seed=1), settings)
    assert drawn == held_out_prompts({"a": 200, "b": 10}, make_config(seed=1), settings)
    assert drawn != held_out_prompts({"a": 200, "b": 10}, make_config(seed=2), settings)
    assert Counter(prompt.environment for prompt in drawn) == {"a": 64, "b": 10}
    assert len({(prompt.environment, prompt.example) for prompt in drawn}) == 74
    assert [prompt.index for prompt in drawn] == [-1 - i for i in range(74)]
    assert all(prompt.held_out for prompt in drawn)


def test_an_interval_holds_the_true_mean_19_times_in_20() -> None:
    draws = np.random.default_rng(0).uniform(-1, 1, size=(2000, 64))
    held = [found.low <= 0 <= found.high for found in map(estimate, draws.tolist())]
    assert 0.935 < np.mean(held) < 0.965


def test_average_and_pass_are_taken_over_tasks() -> None:
    tasks = prompts(3)
    groups = [scored(tasks[0], [0.5, -0.5]), scored(tasks[1], [0.2, 0.2])]
    (score,) = scores_of(tasks, groups, 7, EvalConfig(rollouts_per_example=2, pass_reward=0.5))
    assert score.average.mean == pytest.approx(0.1)
    assert score.average.high - score.average.mean == pytest.approx(1.96 * 0.2 / 2)
    assert (score.passed.mean, score.varied, score.failed, score.policy_version) == (0.5, 0.5, 1, 7)
    assert score.metrics()["eval/phishing-detection/avg@2"] == pytest.approx(0.1)


def test_a_difference_is_taken_task_by_task_over_those_that_both_have() -> None:
    tasks, settings = prompts(3), EvalConfig(rollouts_per_example=2)
    (base,) = scores_of(tasks, [scored(tasks[i], [0.4 * i, 0.4 * i]) for i in (0, 1, 2)], 0, settings)
    (after,) = scores_of(tasks, [scored(tasks[i], [0.4 * i, 0.4 * i + 0.2]) for i in (0, 2)], 5, settings)
    gain = difference(base, after)
    assert (gain.low, gain.mean, gain.high) == pytest.approx((0.1, 0.1, 0.1))


@pytest.mark.parametrize("seed", range(20))
def test_every_task_comes_back_or_is_put_aside_whatever_fails(seed: int) -> None:
    draw = random.Random(seed)
    tasks = prompts(50)
    running = HeldOutGroups(tasks, 3, count=2, capacity=4, attempts=3)
    engines, tries, put_aside = {0, 1, 2}, Counter[int](), 0
    while not running.done:
        running.sends(engines)
        under_way = running.in_flight
        assert max(Counter(send.engine for send in under_way).values()) <= 4
        assert {(send.version, send.rollouts) for send in under_way} == {(3, 2)}
        send = draw.choice(under_way)
        tries[send.prompt.index] += 1
        assert send.attempt == tries[send.prompt.index] <= 3
        if draw.random() < 0.4:
            put_aside += running.failed(send.prompt.index)
        else:
            running.finished(scored(send.prompt, [0.0, 0.0]))
        engines = {engine for engine in range(3) if draw.random() < 0.7} or {0}
    assert len({group.prompt.index for group in running.groups}) == 50 - put_aside == 50 - running.put_aside
    assert not running.in_flight


def test_nothing_is_sent_while_no_engine_is_there() -> None:
    running = HeldOutGroups(prompts(2), 0, count=1, capacity=1, attempts=1)
    assert running.sends([]) == []
    assert [send.engine for send in running.sends([1])] == [1]
