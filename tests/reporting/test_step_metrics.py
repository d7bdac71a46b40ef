"""Claims about a line of metrics.jsonl."""

import json
from statistics import pstdev

import msgspec
import pytest

from rezero_ray.batch import TrainingBatch, build_batch
from rezero_ray.records import Group, StepReport
from rezero_ray.reporting.step_metrics import StepLosses, StepTimes, step_metrics
from tests.record_builders import make_config, make_group, make_rollout

CONTRACT = {
    *("step", "policy_version", "reward/mean", "reward/std", "reward/phishing-detection/mean"),
    *("reward/redteam-attack/mean", "loss", "entropy", "mismatch_kl", "grad_norm", "lr", "tokens/prompt"),
    *("tokens/completion", "time/step", "time/rollout", "time/train", "time/sync"),
    *("throughput/tokens_per_s", "staleness/mean", "staleness/max", "rollouts/trained", "rollouts/dropped"),
    *("errors/environment", "errors/engine", "errors/learner", "errors/cluster"),
}
"""The keys that every line has, as the contract of the run directory lists them."""

GROUPS = [
    make_group(
        [
            make_rollout([1, 2, 3], [4, 5], reward=1.0, policy_version=5, components={"right": 1.0}),
            make_rollout([1, 2, 3], [6], reward=0.0, policy_version=5, truncated=True),
        ],
        index=0,
    ),
    make_group(
        [make_rollout([7], [8, 9, 9, 8], mask=[1, 0, 0, 1], reward=0.5, policy_version=6, turns=2)],
        index=1,
        environment="redteam-attack",
    ),
]
REPORT = StepReport(
    step=7,
    loss=0.25,
    grad_norm=1.5,
    lr=1e-3,
    metrics={"entropy": 2.0, "mismatch_kl": 0.001, "clipped": 0.1},
    micro_batches=1,
    computed_tokens=9,
    seconds=3.0,
)


FAULTS = {"environment": 3, "engine": 1, "redteam-attack/environment": 2, "network-logs/environment": 1}

TIMES = StepTimes(step=5.5, rollout=4.0, wait=2.0, train=3.0, sync=0.5)


def batch(groups: list[Group]) -> TrainingBatch:
    return build_batch(groups, make_config(), ranks=1)


@pytest.fixture(scope="module")
def row() -> dict[str, float | int]:
    losses = StepLosses(put_aside=1, dropped=1, resampled=3, faults=FAULTS)
    return step_metrics(GROUPS, batch(GROUPS), REPORT, TIMES, losses)


def test_a_line_has_every_key_of_the_contract(row: dict[str, float | int]) -> None:
    assert row.keys() >= CONTRACT


def test_it_is_plain_json_and_numbers_only(row: dict[str, float | int]) -> None:
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    assert {type(value) for value in row.values()} <= {int, float}


def test_rewards_are_means_over_rollouts_and_over_each_environments(row: dict[str, float | int]) -> None:
    assert row["reward/mean"] == pytest.approx(0.5)
    assert row["reward/std"] == pytest.approx(pstdev([1.0, 0.0, 0.5]))
    assert row["reward/phishing-detection/mean"] == pytest.approx(0.5)
    assert row["reward/phishing-detection/right"] == pytest.approx(0.5)
    assert row["reward/redteam-attack/mean"] == pytest.approx(0.5)


def test_tokens_are_the_policys_or_not(row: dict[str, float | int]) -> None:
    assert row["tokens/completion"] == 2 + 1 + 2
    assert row["tokens/prompt"] == 3 + 3 + 1 + 2  # with the environment's two between the turns


def test_times_are_passed_on_and_the_throughput_is_of_completion_tokens(row: dict[str, float | int]) -> None:
    assert [row[f"time/{part}"] for part in ("step", "rollout", "wait", "train", "sync")] == [
        5.5,
        4,
        2,
        3,
        0.5,
    ]
    assert row["throughput/tokens_per_s"] == pytest.approx(5 / 5.5)


def test_staleness_counts_versions_behind_the_one_before_this_step(row: dict[str, float | int]) -> None:
    assert row["staleness/max"] == 1
    assert row["staleness/mean"] == pytest.approx(2 / 3)


def test_what_was_given_up_is_counted_and_nothing_of_it_is_a_reward(row: dict[str, float | int]) -> None:
    assert row["rollouts/trained"] == 3
    assert (row["errors/environment"], row["errors/engine"], row["errors/learner"]) == (3, 1, 0)
    assert row["rollouts/dropped"] == 2 * 2  # groups of two rollouts each
    assert row["rollouts/resampled"] == 3 * 2
    assert row["rollouts/truncated"] == 1
    assert row["rollouts/computed"] == 2  # the group of one has no advantage


def test_the_learners_own_figures_are_all_there(row: dict[str, float | int]) -> None:
    assert (row["entropy"], row["mismatch_kl"], row["loss/clipped"]) == (2.0, 0.001, 0.1)
    assert (row["loss"], row["grad_norm"], row["lr"], row["step"]) == (0.25, 1.5, 1e-3, 7)


def test_a_component_named_mean_does_not_hide_the_reward() -> None:
    groups = [make_group([make_rollout([1], [2], reward=0.75, components={"mean": 9.0})])]
    found = step_metrics(groups, batch(groups), REPORT, TIMES, StepLosses())
    assert found["reward/phishing-detection/mean"] == 0.75


def test_each_environment_has_its_own_faults_and_times(row: dict[str, float | int]) -> None:
    assert row["errors/redteam-attack/environment"] == 2
    assert row["errors/network-logs/environment"] == 1  # none of its groups made it into the step
    assert row["errors/phishing-detection/environment"] == 0
    assert row["time/phishing-detection/group"] == GROUPS[0].seconds
    assert "time/phishing-detection/scoring" not in row  # it was not told


def test_scoring_is_timed_over_the_groups_that_tell_it() -> None:
    groups = [msgspec.structs.replace(GROUPS[0], seconds=s, scoring=s / 4) for s in (2.0, 6.0)]
    found = step_metrics(groups, batch(groups), REPORT, TIMES, StepLosses())
    assert found["time/phishing-detection/group"] == 4.0
    assert found["time/phishing-detection/scoring"] == 1.0
