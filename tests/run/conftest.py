"""One real run of the trainer on the CPU, shared by the tests that look at it: SmolLM2, vLLM, DeepSpeed, Ray."""

import re
from collections.abc import Iterator

import pytest

from tests.run.train_process import ObservedRun, TrainProcess, ask, status_without_token


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObservedRun]:
    """Three steps of redteam-attack, not disturbed; two held-out tasks are scored before the first and after the
    last."""
    evaluation = {"interval": 3, "num_examples": 2, "rollouts_per_example": 2}
    flags = [word for key, value in evaluation.items() for word in (f"--orchestrator.eval.{key}", str(value))]
    run = TrainProcess(tmp_path_factory.mktemp("runs") / "undisturbed", *flags)
    try:
        run.wait_for("Orchestrator Step 1:")
        address = re.search(r"Ray dashboard: (http://\S+)", run.text)
        assert address, run.text
        actors = ask(address[1], "actors")
        groups = ask(address[1], "placement_groups")
        refused = status_without_token(address[1])
        status = run.wait()
        yield ObservedRun(run.output, run.text, status, actors, groups, refused)
    finally:
        run.end()
