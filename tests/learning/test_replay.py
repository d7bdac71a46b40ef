"""`rezero replay` on three steps that a real learner took: it agrees with them, and finds what was changed."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rezero_ray.models.tiny import make_tiny_llama
from tests.record_builders import SMOLLM2

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("deepspeed"), reason="deepspeed is not installed"),
]

ROOT = Path(__file__).parents[2]


def python(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def replayed(run: Path, *arguments: str, status: int) -> str:
    done = python("rezero_ray.cli", "replay", run, *arguments)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def column(table: str, number: int) -> dict[str, str]:
    """A column of the printed table by the quantities' names."""
    rows = [line.split() for line in table.splitlines()]
    return {row[0]: row[number] for row in rows if len(row) > number}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Steps 1 to 3, with a checkpoint of step 1."""
    folder = tmp_path_factory.mktemp("replay")
    model = make_tiny_llama(folder / "model", tokenizer_from=SMOLLM2)
    done = python("tests.learning.three_steps", model, folder / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "run"


def test_the_steps_behind_a_checkpoint_are_retaken_and_agree_and_another_loss_is_shown_beside(
    run: Path,
) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    table = replayed(run, "--step", "3", "--loss", "dapo", status=0)
    assert "step 3, replayed from the checkpoint of step 1" in table
    assert "step 3 agrees within 0.001" in table
    recorded, retaken, other = (column(table, number) for number in (1, 2, 4))
    row = json.loads((run / "metrics.jsonl").read_text().splitlines()[2])
    for name in ("loss", "grad_norm", "entropy", "lr"):
        assert float(recorded[name]) == pytest.approx(row[name], rel=1e-5)
        assert float(retaken[name]) == pytest.approx(row[name], rel=1e-3)
    assert other["entropy"] == retaken["entropy"]  # the same state
    assert float(other["loss"]) != pytest.approx(row["loss"], rel=0.05)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_steps_on_both_sides_of_a_resume_are_retaken_each_under_its_own_config(run: Path) -> None:
    """Between steps 2 and 3 learning rate, betas and the bound of the gradient changed."""
    assert [path.name for path in sorted((run / "configs").iterdir())] == [
        "from_step_000001.toml",
        "from_step_000003.toml",
    ]
    rates = [json.loads(line)["lr"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rates[2] < 0.6 * rates[1]
    assert "step 2 agrees within 0.001" in replayed(run, "--step", "2", status=0)


def test_the_first_step_is_retaken_from_the_seeded_start(run: Path) -> None:
    table = replayed(run, "--step", "1", "--loss", "grpo", status=0)
    assert "step 1, replayed from the start of the run" in table
    assert float(column(table, 4)["grad_norm"]) > 0


def test_a_reward_that_was_changed_is_found_by_its_advantage(run: Path, tmp_path: Path) -> None:
    changed = tmp_path / "run"
    shutil.copytree(run, changed)
    path = changed / "rollouts" / "step_000003.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[5]["reward"] += 5  # the second rollout of the second prompt
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = replayed(changed, "--step", "3", status=1)
    assert "step 3 differs: loss, grad_norm, advantage (furthest off: prompt 1, rollout 2)" in table
    assert "differs already" not in table
