"""A run of the main command, seen from outside."""

import json
import os
import re
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rezero_ray.recorded_run import RecordedRun
from rezero_ray.spending import attempts_of
from tests.run.published_policy import assert_base_model_defended, assert_versions_are_those_named
from tests.run.train_process import (
    BASE_DEFENDS,
    ObservedRun,
    TrainProcess,
    descendants,
    noise,
    read_lines,
    still_alive,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CONTRACT_KEYS = [
    "step",
    "policy_version",
    "reward/mean",
    "reward/std",
    "reward/redteam-attack/mean",
    "loss",
    "entropy",
    "mismatch_kl",
    "grad_norm",
    "lr",
    "tokens/prompt",
    "tokens/completion",
    "time/step",
    "time/rollout",
    "time/train",
    "time/sync",
    "throughput/tokens_per_s",
    "staleness/mean",
    "staleness/max",
    "rollouts/trained",
    "rollouts/dropped",
    "errors/environment",
]


def rollouts_of(run: ObservedRun) -> list[dict[str, Any]]:
    return [row for path in sorted(run.output.glob("rollouts/step_*.jsonl")) for row in read_lines(path)]


def test_the_run_ends_with_0_and_one_line_a_step(finished_run: ObservedRun) -> None:
    assert finished_run.status == 0, finished_run.text
    rows = finished_run.metrics()
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert not [key for key in CONTRACT_KEYS if key not in row]
        assert row["rollouts/trained"] == 8
        assert row["staleness/max"] == 0


def test_its_hours_are_told_and_no_dollars_where_nobody_named_a_price(finished_run: ObservedRun) -> None:
    (attempt,) = attempts_of(finished_run.output)
    assert attempt.start_up is not None and attempt.checkpoint is not None
    hours = [row["cost/hours"] for row in finished_run.metrics()]
    assert attempt.start_up / 3600 < hours[0] < hours[1] < hours[2] < attempt.seconds / 3600
    assert "cost/usd" not in finished_run.metrics()[-1]
    assert "dollars" not in finished_run.text


def test_one_engine_and_three_ranks_sit_in_one_placement_group(finished_run: ObservedRun) -> None:
    alive = [actor for actor in finished_run.actors if actor["state"] == "ALIVE"]
    names = sorted(actor["class_name"] for actor in alive)
    assert names == ["EnvironmentWorker", "LearnerRank", "LearnerRank", "LearnerRank", "RolloutEngine"]
    assert len({actor["placement_group_id"] for actor in alive}) == 1
    created = [group for group in finished_run.placement_groups if group["state"] == "CREATED"]
    assert len(created) == 1
    assert len(created[0]["bundles"]) == 5


def test_the_dashboard_refuses_who_has_no_token(finished_run: ObservedRun) -> None:
    assert finished_run.status_without_token == 401


def test_the_four_console_lines_are_there(finished_run: ObservedRun) -> None:
    for step, row in enumerate(finished_run.metrics(), start=1):
        assert f"Orchestrator Step {step}: Reward={row['reward/mean']:.2f}" in finished_run.text
        assert (
            f"Trainer Step {step}: Loss={row['loss']:.2f}, Entropy={row['entropy']:.2f}" in finished_run.text
        )
    assert finished_run.text.count("Mismatch KL=") == 3
    assert finished_run.text.count(" tokens/s") == 3


def test_engine_and_learner_agree_at_every_step(finished_run: ObservedRun) -> None:
    assert all(0 <= row["mismatch_kl"] < 1e-4 for row in finished_run.metrics())
    for module in ("q_proj", "k_proj", "v_proj", "o_proj"):
        assert f"canary {module}: engine moved" in finished_run.text


def test_the_run_directory_is_the_contracts(finished_run: ObservedRun) -> None:
    output = finished_run.output
    run = json.loads((output / "run.json").read_text("utf-8"))
    assert run["status"] == "done"
    assert run["ended"] is not None
    assert run["run_id"].startswith(run["config_id"])
    for name in ("config.toml", "metrics.jsonl", "report.html", "rollouts/step_000003.jsonl"):
        assert (output / name).stat().st_size > 0
    assert sorted(path.name for path in (output / "checkpoints").iterdir()) == [
        f"step_{step:06d}" for step in (1, 2, 3)
    ]
    complete = json.loads((output / "checkpoints/step_000003/COMPLETE.json").read_text("utf-8"))
    assert "adapter/adapter_model.safetensors" in complete["sha256"]


def test_the_run_says_how_its_forecast_did(finished_run: ObservedRun) -> None:
    record = json.loads((finished_run.output / "forecast.json").read_text("utf-8"))
    assert "3 turns with replies of 32 tokens, every completion of max_tokens = 24" in record["assumption"]
    assert record["steps_compared"] == [2, 3], "the first step does much for the first time"
    compared = {each["what"]: each for each in record["compared"]}
    assert list(compared) == ["step", "rollouts", "training", "publishing", "memory/engine", "memory/learner"]
    rows = finished_run.metrics()
    assert compared["step"]["measured"] == statistics.median(row["time/step"] for row in rows[1:])
    assert compared["memory/learner"]["measured"] == max(row["memory/learner_gib"] for row in rows)
    for kind in ("engine", "learner"):
        assert 0.7 < compared[f"memory/{kind}"]["ratio"] < 1.4
    assert compared["step"]["planned"] >= compared["step"]["forecast"] > 0, "completions ended early"
    assert "forecast against measured, step 2:" in finished_run.text
    assert "forecast against measured, the median of steps 2 to 3:" in finished_run.text


def test_every_rollout_holds_ids_logprobs_and_its_version(finished_run: ObservedRun) -> None:
    for step in (1, 2, 3):
        rows = read_lines(finished_run.output / "rollouts" / f"step_{step:06d}.jsonl")
        assert len(rows) == 8
        for row in rows:
            assert row["policy_version"] == step - 1
            assert len(row["token_ids"]) == len(row["logprobs"]) == len(row["loss_mask"])
            assert -1 <= row["reward"] <= 1
            assert all(logprob <= 0 for logprob in row["logprobs"])
            assert sum(row["loss_mask"]) > 0


def test_mlflow_holds_the_metrics_and_the_adapter(finished_run: ObservedRun) -> None:
    import mlflow

    run = json.loads((finished_run.output / "run.json").read_text("utf-8"))
    client = mlflow.MlflowClient(f"sqlite:///{finished_run.output.parent / 'mlflow.db'}")
    recorded = client.get_run(run["mlflow_run_id"])
    assert client.get_experiment(recorded.info.experiment_id).name == "re-zero"
    assert recorded.info.run_name == "cpu", "both are in configs/overlays/cpu.toml"
    history = client.get_metric_history(run["mlflow_run_id"], "reward/mean")
    rewards = [metric.value for metric in sorted(history, key=lambda metric: metric.step)]
    assert rewards == pytest.approx([row["reward/mean"] for row in finished_run.metrics()])
    names = {artifact.path for artifact in client.list_artifacts(run["mlflow_run_id"], "adapter")}
    assert "adapter/adapter_model.safetensors" in names


def test_a_second_run_into_the_same_directory_is_refused(finished_run: ObservedRun) -> None:
    before = (finished_run.output / "run.json").read_bytes()
    again = TrainProcess(finished_run.output)
    assert again.wait(120) == 2
    assert "holds another run" in again.text
    assert (finished_run.output / "run.json").read_bytes() == before


def test_the_adapter_is_not_zero_and_peft_and_vllm_agree_on_it(
    finished_run: ObservedRun, tmp_path: Path
) -> None:
    import safetensors.torch
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapter = finished_run.output / "checkpoints/step_000003/adapter"
    weights = safetensors.torch.load_file(adapter / "adapter_model.safetensors")
    changed = [name for name, tensor in weights.items() if ".lora_B." in name and tensor.abs().max() > 0]
    assert len(changed) == 30 * 4, "every layer's q, k, v and o have learned"
    row = read_lines(finished_run.output / "rollouts/step_000003.jsonl")[0]
    ids = row["token_ids"]
    model_path = str(Path(__file__).parents[2] / "models/SmolLM2-135M-Instruct")
    base = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    inputs = torch.tensor([ids])

    def logprobs(model: Any) -> torch.Tensor:
        with torch.no_grad():
            scores = model(inputs).logits[0, :-1].log_softmax(-1)
        return scores.gather(1, inputs[0, 1:, None]).squeeze(1)

    without = logprobs(base)
    peft = logprobs(PeftModel.from_pretrained(base, str(adapter)))
    script = tmp_path / "engine.py"
    script.write_text(ENGINE, "utf-8")
    answer = tmp_path / "logprobs.json"
    subprocess.run(
        [sys.executable, str(script), model_path, str(adapter), json.dumps(ids), str(answer)],
        check=True,
        timeout=400,
        env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"},
    )
    vllm = torch.tensor(json.loads(answer.read_text("utf-8")))
    assert (peft - without).abs().max() > 0.01
    torch.testing.assert_close(vllm, peft, atol=2e-3, rtol=0)


ENGINE = """
import json, os, sys
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest
if __name__ == "__main__":
    model, adapter, ids, answer = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), sys.argv[4]
    llm = LLM(model, dtype="float32", enforce_eager=True, max_model_len=512, max_num_seqs=4,
              enable_lora=True, max_lora_rank=16)
    params = SamplingParams(max_tokens=1, prompt_logprobs=0)
    result = llm.generate({"prompt_token_ids": ids}, params, use_tqdm=False,
                          lora_request=LoRARequest("policy", 1, adapter))[0]
    found = [entry[token].logprob for token, entry in zip(ids[1:], result.prompt_logprobs[1:])]
    with open(answer, "w") as file:
        json.dump(found, file)
    llm.llm_engine.engine_core.shutdown()
    os._exit(0)  # vLLM 0.30's threads sometimes abort an interpreter that ends by itself
"""


@pytest.fixture(scope="module")
def resumed_run(
    tiny_model: Path, toys: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ObservedRun]:
    """Rollouts up to two versions old; killed after step 2. The command again with --resume and another seed is
    refused, with another learning rate it continues."""
    folder = tmp_path_factory.mktemp("resumed")
    output = folder / "run"
    command = (
        *noise(tiny_model, folder),
        *("--max_steps", "8", "--orchestrator.max_async_level", "2", "--ckpt.keep_last", "8"),
    )
    first = TrainProcess(output, *command)
    try:
        first.wait_for(str(output / "checkpoints" / "step_000002"))
        processes = descendants(first.process.pid)
        assert len(processes) > 8
    finally:
        first.end()
    assert not still_alive(processes, 60), "what the controller started ends with it"
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    another = TrainProcess(output, *command, "--resume", "--seed", "7")
    assert another.wait(120) == 2, another.text
    assert "--seed 7: the run has 0" in another.text
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    second = TrainProcess(output, *command, "--resume", "--trainer.optim.lr", "2e-4")
    try:
        status = second.wait()
        yield ObservedRun(output, second.text, status)
    finally:
        second.end()


def test_killed_after_step_2_the_same_command_goes_on(resumed_run: ObservedRun) -> None:
    assert resumed_run.status == 0, resumed_run.text
    assert re.search(r"resumed after step [2-4]\b", resumed_run.text), "it may have gone on before it died"
    assert [row["step"] for row in resumed_run.metrics()] == list(range(1, 9))


def test_each_step_keeps_the_config_it_was_taken_under(resumed_run: ObservedRun) -> None:
    resumed = int(re.search(r"resumed after step (\d+)", resumed_run.text)[1])  # type: ignore[index]
    names = ["from_step_000001.toml", f"from_step_{resumed + 1:06d}.toml"]
    assert sorted(path.name for path in (resumed_run.output / "configs").iterdir()) == names
    assert f"--resume, from step {resumed + 1} on: trainer.optim.lr = 0.0002, was" in resumed_run.text
    rates = [row["lr"] for row in resumed_run.metrics()]
    assert set(rates[resumed:]) == {2e-4} and 2e-4 not in rates[:resumed]
    run = RecordedRun(resumed_run.output)
    for row in resumed_run.metrics():
        assert run.request(row["step"]).config.trainer.optim.lr == row["lr"]


def test_the_seconds_of_the_attempt_that_was_killed_count(resumed_run: ObservedRun) -> None:
    first, second = attempts_of(resumed_run.output)
    assert first.start_up is not None and first.seconds > first.start_up
    resumed = [row["cost/hours"] for row in resumed_run.metrics()][-1]
    assert first.seconds / 3600 < resumed < (first.seconds + second.seconds) / 3600


def test_every_prompt_is_trained_on_once_whatever_was_killed(resumed_run: ObservedRun) -> None:
    trained = Counter(row["prompt"]["index"] for row in rollouts_of(resumed_run))
    assert trained == Counter(dict.fromkeys(range(16), 4))


def test_rollouts_are_as_old_as_the_bound_allows_and_no_older(resumed_run: ObservedRun) -> None:
    assert max(row["staleness/max"] for row in resumed_run.metrics()) == 2


def test_the_defender_is_the_base_model_without_the_adapter(finished_run: ObservedRun) -> None:
    learned = [
        row for row in rollouts_of(finished_run) if row["policy_version"] > 0 and row["text"][1]["content"]
    ]
    assert len(learned) >= 8
    assert_base_model_defended(finished_run.output, learned[::2], BASE_DEFENDS)


@pytest.mark.parametrize("run", ["finished_run", "resumed_run"])
def test_the_logprobs_of_a_rollout_are_those_of_the_version_it_names(
    run: str, request: pytest.FixtureRequest
) -> None:
    found: ObservedRun = request.getfixturevalue(run)
    assert_versions_are_those_named(found.output, rollouts_of(found)[::4])
