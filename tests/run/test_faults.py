"""An overlapped run whose processes are killed one after the other, and which is then asked to stop."""

import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.run.published_policy import assert_versions_are_those_named
from tests.run.train_process import TrainProcess, descendants, noise, read_lines, still_alive

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Run:
    """What is left of it."""

    def __init__(self, process: TrainProcess, status: int) -> None:
        self.output, self.text, self.status = process.output, process.text, status
        self.metrics = read_lines(self.output / "metrics.jsonl")
        self.rows = {
            row["step"]: read_lines(self.output / "rollouts" / f"step_{row['step']:06d}.jsonl")
            for row in self.metrics
        }

    @property
    def last(self) -> int:
        return int(self.metrics[-1]["step"])


def kill(run: TrainProcess, name: str) -> list[int]:
    """SIGKILL for one process that Ray calls `ray::NAME`. Returns the processes that it had started."""
    for pid in descendants(run.process.pid):
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(f"ray::{name}".encode()):
            started = descendants(pid)
            os.kill(pid, signal.SIGKILL)
            return started
    raise AssertionError(f"no process ray::{name}")


def next_step(run: TrainProcess) -> None:
    """Wait for the step after those that the console shows."""
    seen = max(map(int, re.findall(r"Orchestrator Step (\d+):", run.text)), default=0)
    run.wait_for(f"Orchestrator Step {seen + 1}:")


def wait_for_scoring(marks: Path, seconds: float = 60) -> None:
    """Wait until a rollout's scoring begins, which takes half a second."""
    mark, deadline = marks / "scoring", time.monotonic() + seconds
    mark.unlink(missing_ok=True)
    while not mark.exists():
        assert time.monotonic() < deadline, f"nothing was scored within {seconds} s"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def survivor(tiny_model: Path, toys: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Killed in turn: the engine, the environment worker, a learner rank. Then SIGTERM."""
    folder = tmp_path_factory.mktemp("faults")
    run = TrainProcess(
        folder / "run",
        *noise(tiny_model, folder),
        *("--max_steps", "400", "--orchestrator.max_async_level", "1", "--ckpt.keep_last", "400"),
    )
    try:
        next_step(run)
        started = kill(run, "RolloutEngine")
        assert started, "vLLM's core is a process of its own"
        run.wait_for("engine 0 was lost and starts again")
        assert not still_alive(started, 60), "what an engine holds ends with it"
        run.wait_for("engine 0 is back")
        next_step(run)
        wait_for_scoring(folder)  # a worker that nobody waits for comes back unnoticed
        kill(run, "EnvironmentWorker")
        run.wait_for("is sent again: environment worker")
        next_step(run)
        kill(run, "LearnerRank")
        run.wait_for("the learner was lost and starts again")
        run.wait_for("resumed after step")
        next_step(run)
        run.process.terminate()
        yield Run(run, run.wait())
    finally:
        run.end()


def test_sigterm_finishes_the_step_saves_and_leaves_with_130(survivor: Run) -> None:
    assert survivor.status == 130, survivor.text
    newest = max(path.name for path in (survivor.output / "checkpoints").iterdir())
    assert newest == f"step_{survivor.last:06d}"
    assert json.loads((survivor.output / "run.json").read_text("utf-8"))["status"] == "interrupted"


def test_every_step_is_there_once_and_the_faults_are_counted(survivor: Run) -> None:
    assert [row["step"] for row in survivor.metrics] == list(range(1, survivor.last + 1))
    faults = Counter[str]()
    for row in survivor.metrics:
        faults.update({k: row[f"errors/{k}"] for k in ("engine", "environment", "learner")})
    assert faults["engine"] >= 1, survivor.text
    assert faults["environment"] >= 1, survivor.text
    assert faults["learner"] >= 1, survivor.text
    assert not (survivor.output / "rollouts/quarantine.jsonl").exists()


def test_every_prompt_is_trained_once_or_still_to_be_trained(survivor: Run) -> None:
    trained = [index for rows in survivor.rows.values() for index in {row["prompt"]["index"] for row in rows}]
    schedule = json.loads(
        (survivor.output / f"checkpoints/step_{survivor.last:06d}/state/run.json").read_text("utf-8")
    )["schedule"]
    from rezero_ray.checkpoint import load_newest

    newest, passed_over = load_newest(survivor.output)
    assert newest is not None
    assert passed_over == []
    to_be_trained = [p.index for p in newest.run.schedule.waiting] + [
        group.prompt.index for group in newest.run.schedule.ready
    ]
    assert sorted([*trained, *to_be_trained]) == list(range(schedule["sampler"]["position"]))


def test_rollouts_are_at_most_one_version_old_and_some_are(survivor: Run) -> None:
    staleness = [row["staleness/max"] for row in survivor.metrics]
    assert max(staleness) == 1
    for step, rows in survivor.rows.items():
        assert all(step - 1 - row["policy_version"] in (0, 1) for row in rows)


def test_the_logprobs_of_a_rollout_are_those_of_the_version_it_names(survivor: Run) -> None:
    assert_versions_are_those_named(survivor.output, [rows[0] for rows in survivor.rows.values()])
