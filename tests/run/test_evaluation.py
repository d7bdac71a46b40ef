"""Held-out tasks, scored by a run and by `rezero eval` behind it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rezero_ray.run_directory import EVALUATIONS
from tests.run.train_process import ROOT, ObservedRun, read_lines

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def evaluations(run: ObservedRun) -> list[dict[str, Any]]:
    return read_lines(run.output / EVALUATIONS)


def test_the_start_and_the_last_step_are_scored_on_the_same_held_out_tasks(finished_run: ObservedRun) -> None:
    first, last = evaluations(finished_run)
    assert (first["policy_version"], last["policy_version"]) == (0, 3)
    assert first["rewards"].keys() == last["rewards"].keys() and len(first["rewards"]) == 2
    for row in (first, last):
        rewards = [reward for each in row["rewards"].values() for reward in each]
        assert len(rewards) == 4
        assert row["average"]["mean"] == pytest.approx(sum(rewards) / 4)
        assert f"Evaluation of policy {row['policy_version']}: redteam-attack avg@2" in finished_run.text


def test_the_score_stands_in_the_line_of_its_step_and_in_no_other(finished_run: ObservedRun) -> None:
    rows, last = finished_run.metrics(), evaluations(finished_run)[-1]
    assert rows[2]["eval/redteam-attack/avg@2"] == last["average"]["mean"]
    assert rows[2]["time/eval"] == pytest.approx(last["seconds"])
    assert not [key for row in rows[:2] for key in row if key.startswith("eval/")]


def test_rezero_eval_finds_what_the_run_found_of_base_and_adapter(
    finished_run: ObservedRun, tmp_path: Path
) -> None:
    """The adapter of step 0 is zero, so the run's first evaluation is the base model's."""
    report = tmp_path / "scores.json"
    done = subprocess.run(
        [sys.executable, "-m", "rezero_ray.cli", "eval", finished_run.output, "--json", report],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    first, last = evaluations(finished_run)
    for scores, recorded in ((found["base"], first), (found["adapter"], last)):
        (score,) = scores
        assert score["rewards"].keys() == recorded["rewards"].keys()
        for example, rewards in score["rewards"].items():
            assert rewards == pytest.approx(recorded["rewards"][example], abs=1e-6)
    assert found["base"][0]["policy_version"] == -1 and found["adapter"][0]["policy_version"] == 3
    assert "adapter avg@2" in done.stdout and "difference" in done.stdout


def test_rezero_eval_refuses_a_step_without_checkpoint(finished_run: ObservedRun) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rezero_ray.cli", "eval", finished_run.output, "--step", "9"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "no complete checkpoint of step 9" in done.stderr and "Traceback" not in done.stderr
