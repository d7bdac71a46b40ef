"""One run with a module four times: twice by its id alone, with other args, and under two written names. One of them
has reward errors that count as zero, one a constant reward. The model is a tiny one: its texts are noise."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rezero_ray.show import main as show
from tests.run.train_process import ObservedRun, TrainProcess, read_lines

pytestmark = [pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(600)]

STEPS = 3
REQUEST = """
[[orchestrator.env]]
id = "scaled"
args = { value = 0.25 }

[[orchestrator.env]]
id = "scaled"
args = { value = -0.75 }

[[orchestrator.env]]
id = "scaled"
name = "public"
args = { value = 0.0, breaks = true }
reward_errors = "zero"

[[orchestrator.env]]
id = "scaled"
name = "flat"
args = { value = 0.5, flat = true }
"""
SCALED = {"scaled-1": 0.25, "scaled-2": -0.75, "public": 0.0, "flat": 0.5}
"""The same module under four names, and the least reward of each; the highest is 0.1 more."""


@pytest.fixture(scope="module")
def finished(tiny_model: Path, toys: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObservedRun]:
    folder = tmp_path_factory.mktemp("twice")
    (folder / "request.toml").write_text(REQUEST, "utf-8")
    flags = {
        "model.name": tiny_model,
        "max_steps": STEPS,
        "trainer_gpu_ids": "[1]",
        "orchestrator.batch_size": 16,
        "orchestrator.eval.interval": STEPS,
        "orchestrator.eval.num_examples": 2,
        "orchestrator.eval.rollouts_per_example": 2,
        "trust.canary": "false",
        "mlflow.enabled": "false",
        "infra.dashboard": "false",
    }
    process = TrainProcess(
        folder / "run", str(folder / "request.toml"), *(f"--{key}={value}" for key, value in flags.items())
    )
    try:
        status = process.wait(400)
        assert status == 0, process.text
        yield ObservedRun(process.output, process.text, status)
    finally:
        process.end()


def within(name: str, rewards: list[Any]) -> bool:
    return bool(rewards) and all(SCALED[name] <= each <= SCALED[name] + 0.1 + 1e-9 for each in rewards)


@pytest.mark.parametrize("name", list(SCALED))
def test_each_is_trained_on_measured_and_evaluated_under_its_own_name(
    finished: ObservedRun, name: str
) -> None:
    steps = sorted((finished.output / "rollouts").glob("step_*.jsonl"))
    rows = [row for path in steps for row in read_lines(path) if row["prompt"]["environment"] == name]
    assert within(name, [row["reward"] for row in rows])
    means = [row[f"reward/{name}/mean"] for row in finished.metrics() if f"reward/{name}/mean" in row]
    assert within(name, means)
    scores = [row for row in read_lines(finished.output / "evaluations.jsonl") if row["environment"] == name]
    assert [score["policy_version"] for score in scores] == [0, STEPS]
    held_out = [each for score in scores for rewards in score["rewards"].values() for each in rewards]
    assert len(held_out) == 8 and within(name, held_out)


def test_a_reward_error_counts_as_zero_where_it_was_asked_for_and_is_in_every_report(
    finished: ObservedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row for row in finished.metrics() if row.get("errors/public/zeroed")]
    assert rows and all(row["errors/zeroed"] == row["errors/public/zeroed"] for row in rows)
    assert "Reward errors: " in finished.text and "(public " in finished.text
    report = (finished.output / "report.html").read_text("utf-8")
    assert all("have a reward function that failed" in text for text in (report, finished.text))
    capsys.readouterr()
    assert show([str(finished.output), "--step", str(rows[0]["step"])]) == 0
    assert "counts as 0.0: listed returned a list of 1" in capsys.readouterr().out


def test_a_constant_reward_is_reported_when_the_run_ends(finished: ObservedRun) -> None:
    assert "flat: nothing was learned from it" in finished.text
    assert "scaled-1: nothing was learned" not in finished.text
    assert "flat: nothing was learned from it" in (finished.output / "report.html").read_text("utf-8")
