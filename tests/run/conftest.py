"""One real run of the trainer on the CPU, shared by the tests that look at it: SmolLM2, vLLM, DeepSpeed, Ray."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rezero_ray.models.tiny import make_tiny_llama
from tests.run.train_process import (
    BASE_DEFENDS,
    ENVIRONMENTS,
    ROOT,
    ObservedRun,
    TrainProcess,
    ask,
    status_without_token,
)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return make_tiny_llama(folder, tokenizer_from=ROOT / "models/SmolLM2-135M-Instruct")


@pytest.fixture(scope="session")
def toys() -> Iterator[None]:
    """The toy environments of these tests can be imported by the runs that they start."""
    with pytest.MonkeyPatch.context() as changes:
        changes.setenv("PYTHONPATH", str(ENVIRONMENTS))
        yield


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObservedRun]:
    """Three steps of redteam-attack against the base model, not disturbed; two held-out tasks are scored before the
    first and after the last."""
    keys = {f"orchestrator.env.0.args.{name}": value for name, value in BASE_DEFENDS.items()}
    evaluation = {"interval": 3, "num_examples": 2, "rollouts_per_example": 2}
    keys |= {f"orchestrator.eval.{name}": value for name, value in evaluation.items()}
    flags = [f"--{key}={value}" for key, value in keys.items()]
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
