"""Reward functions that count as 0.0, and rewards that teach nothing, are said in every report."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from rezero_ray.config.evaluation import EvalConfig
from rezero_ray.evaluation import scores_of
from rezero_ray.records import Group, Prompt
from rezero_ray.reporting.console import ConsoleReporter
from rezero_ray.reporting.evaluation_table import evaluation_line
from rezero_ray.reporting.report import write_report
from rezero_ray.reporting.reward_signal import run_lines, step_lines
from rezero_ray.reporting.step_metrics import StepLosses, step_metrics
from rezero_ray.show import Page
from rezero_ray.step_record import read_step, write_step
from tests.record_builders import make_group, make_rollout
from tests.reporting.test_step_metrics import REPORT, TIMES, batch

WHY = {"graded": "graded returned a list of 1"}


def group_of(environment: str, rewards: list[float], zeroed: int = 0, index: int = 0) -> Group:
    rollouts = [
        msgspec.structs.replace(
            make_rollout([1, 2], [3, 4], reward=reward), zeroed=WHY if number < zeroed else {}
        )
        for number, reward in enumerate(rewards)
    ]
    group = make_group(rollouts)
    return msgspec.structs.replace(group, prompt=Prompt(index=index, environment=environment, example=index))


def row_of(groups: list[Group]) -> dict[str, Any]:
    return step_metrics(groups, batch(groups), REPORT, TIMES, StepLosses())


def test_a_step_counts_its_zeroed_rollouts_and_its_groups_with_signal_by_environment() -> None:
    row = row_of(
        [group_of("a", [0.0, 1.0], zeroed=1), group_of("a", [0.5, 0.5]), group_of("b", [0.0, 0.0], 2)]
    )
    assert row["errors/zeroed"] == 3
    assert row["errors/a/zeroed"] == 1 and row["errors/b/zeroed"] == 2
    assert row["reward/signal"] == pytest.approx(1 / 3)
    assert row["reward/a/signal"] == 0.5 and row["reward/b/signal"] == 0.0


def test_a_constant_reward_is_said_at_its_step_and_at_the_end_of_the_run() -> None:
    constant, varied = row_of([group_of("a", [0.5, 0.5])]), row_of([group_of("a", [0.0, 1.0])])
    assert any("No signal" in line for line in step_lines(constant))
    assert not step_lines(varied)
    (line,) = run_lines([constant, constant])
    assert line.startswith("a: nothing was learned from it") and "in all 2 steps" in line and "0.5" in line
    assert not run_lines([constant, varied])
    both = row_of([group_of("a", [0.0, 1.0]), group_of("b", [0.25, 0.25])])
    (line,) = run_lines([both, both])
    assert line.startswith("b: nothing was learned from it")
    assert not step_lines(both)


def test_rows_of_earlier_versions_say_nothing() -> None:
    old = {"step": 1, "reward/mean": 0.5, "reward/a/mean": 0.5, "rollouts/trained": 2}
    assert not step_lines(old) and not run_lines([old])


def test_zeroed_rollouts_are_in_record_console_report_show_and_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    group = group_of("a", [0.0, 1.0], zeroed=1)
    row = row_of([group])
    with ConsoleReporter(1) as console:
        console.step(row)
    assert "Reward errors: 1 of 2 rollouts" in capsys.readouterr().out
    write_report(tmp_path, [row], {"run_id": "x"})
    assert "a: 1 rollouts have a reward function that failed" in (tmp_path / "report.html").read_text()
    write_step(tmp_path, 1, [group], [[-1.0, 1.0]])
    (read,) = read_step(tmp_path, 1).groups
    assert [rollout.zeroed for rollout in read.rollouts] == [WHY, {}]
    Page(None, "no tokenizer").group(read, [-1.0, 1.0])
    assert "counts as 0.0: graded returned a list of 1" in capsys.readouterr().out
    (score,) = scores_of([group.prompt], [group], 1, EvalConfig(rollouts_per_example=2))
    assert score.zeroed == 1 and "1 rollouts with a reward error counted as 0.0" in evaluation_line(score)
    assert score.metrics()["eval/a/zeroed"] == 1
