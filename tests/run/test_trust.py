"""Real runs in which engine and learner must be compared on one scale and with regard to rounding."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.run.published_policy import assert_versions_are_those_named
from tests.run.train_process import ObservedRun, TrainProcess, read_lines

pytestmark = [pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(900)]

IGNORES_VERSIONS_AFTER_1 = """
import sys
from actors.engine_group import EngineGroup
from rezero_ray.train import main

publish, adapters = EngineGroup.publish, {}

def publish_an_old_one(self, version, adapter):
    adapters.setdefault(version, adapter)
    publish(self, version, adapters[min(version, 1)])

if __name__ == "__main__":
    EngineGroup.publish = publish_an_old_one
    sys.exit(main())
"""
"""The main command with engines that know every version and apply none after version 1."""


def tiny_run(model: Path, marks: Path, **keys: object) -> list[str]:
    """Flags of a run that takes a step in about a second."""
    settled: dict[str, object] = {
        "model.name": model,
        "trainer_gpu_ids": "[1]",
        "orchestrator.batch_size": 2,
        "orchestrator.sampling.max_tokens": 16,
        "orchestrator.env.0.id": "slow_scoring",
        "orchestrator.env.0.args": f'{{ marks = "{marks}", seconds = 0.0 }}',
        "mlflow.enabled": "false",
        "infra.dashboard": "false",
        **{key.replace("__", "."): value for key, value in keys.items()},
    }
    return [f"--{key}={value}" for key, value in settled.items()]


@pytest.fixture(scope="module")
def runs(
    tiny_model: Path, toys: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, ObservedRun]]:
    """Side by side: a warm-up in bfloat16 that is stopped after its third step, and engines that ignore versions
    after the first, at a sampling temperature of 0.6, with rollouts one version old."""
    folder = tmp_path_factory.mktemp("trust")
    warm_up = {
        "model__dtype": "bfloat16",
        "max_steps": 200,
        "trainer__optim__lr": 1e-6,
        "trainer__optim__warmup_steps": 100,
    }
    ignored = {"orchestrator__sampling__temperature": 0.6, "orchestrator__max_async_level": 1}
    first = TrainProcess(folder / "warm_up", *tiny_run(tiny_model, folder, **warm_up))
    second = TrainProcess(
        folder / "ignored", *tiny_run(tiny_model, folder, **ignored), program=["-c", IGNORES_VERSIONS_AFTER_1]
    )
    try:
        first.wait_for("Trainer Step 3:")
        first.process.terminate()
        yield {run.output.name: ObservedRun(run.output, run.text, run.wait()) for run in (first, second)}
    finally:
        first.end()
        second.end()


def test_a_warm_up_in_bfloat16_trains_though_its_first_versions_move_no_logprob(
    runs: dict[str, ObservedRun],
) -> None:
    run = runs["warm_up"]
    assert run.status == 130, run.text
    rows = run.metrics()
    assert [row["step"] for row in rows[:3]] == [1, 2, 3]
    assert [row["lr"] for row in rows[:3]] == pytest.approx([1e-8, 2e-8, 3e-8])
    assert all(row["grad_norm"] > 0 and row["mismatch_kl"] < 0.01 for row in rows)
    adapters = sorted(run.output.glob("checkpoints/*/adapter/adapter_model.safetensors"))
    assert len({path.read_bytes() for path in adapters}) == len(adapters) >= 3, (
        "every step changes the adapter"
    )


def test_without_mlflow_there_is_no_run_in_it(runs: dict[str, ObservedRun]) -> None:
    for run in runs.values():
        assert json.loads((run.output / "run.json").read_text("utf-8"))["mlflow_run_id"] is None
        assert "MLflow:" not in run.text


def test_at_temperature_0_6_the_canary_passes_and_the_step_matches(runs: dict[str, ObservedRun]) -> None:
    run = runs["ignored"]
    for module in ("q_proj", "k_proj", "v_proj", "o_proj"):
        assert f"canary {module}: engine moved" in run.text
    (row,) = run.metrics()
    assert 0 <= row["mismatch_kl"] < 1e-4
    rollouts = read_lines(run.output / "rollouts/step_000001.jsonl")
    assert len(rollouts) == 8
    assert_versions_are_those_named(run.output, rollouts)


def test_a_version_that_the_engine_does_not_apply_ends_the_run_though_earlier_ones_were(
    runs: dict[str, ObservedRun],
) -> None:
    run = runs["ignored"]
    assert run.status == 1
    found = re.search(
        r"trust error: policy version (\d+) was published but the engine's logprobs did not change with it: since "
        r"version (\d+)",
        " ".join(run.text.split()),
    )
    assert found, run.text
    assert found.groups() == ("2", "1")
    assert json.loads((run.output / "run.json").read_text("utf-8"))["status"] == "failed"
