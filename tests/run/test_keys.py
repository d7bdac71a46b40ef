"""What each key of the runs in `key_runs` does. `tests/keys/table.py` points here."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from rezero_ray.config import Config, load_config
from rezero_ray.sampler import PromptSampler
from tests.run.key_runs import KINDS, SYNCHRONOUS, make_model, write_toml
from tests.run.published_policy import assert_versions_are_those_named
from tests.run.train_process import TrainProcess, descendants, read_lines

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@dataclass
class KeyRun:
    """A run that has ended, and what was seen of it from outside."""

    output: Path
    request: Path
    text: str
    status: int
    processes: Counter[str] = field(default_factory=Counter)
    marks: set[str] = field(default_factory=set)

    @property
    def config(self) -> Config:
        return load_config([self.output / "config.toml"])

    @property
    def run_json(self) -> dict[str, Any]:
        return dict(json.loads((self.output / "run.json").read_text("utf-8")))

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        return read_lines(self.output / "metrics.jsonl")

    @cached_property
    def rollouts(self) -> dict[int, list[dict[str, Any]]]:
        return {
            row["step"]: read_lines(self.output / f"rollouts/step_{row['step']:06d}.jsonl")
            for row in self.metrics
        }

    @cached_property
    def quarantine(self) -> list[dict[str, Any]]:
        return read_lines(self.output / "rollouts/quarantine.jsonl")

    @cached_property
    def engine_log(self) -> str:
        """What vLLM said, of all engines."""
        found = re.search(r"logs of the actors: (\S+)", self.text)
        assert found, self.text
        logs = [path.read_text("utf-8", errors="replace") for path in Path(found[1]).glob("worker-*")]
        return "\n".join(log for log in logs if ":actor_name:RolloutEngine" in log)

    def tensors(self, step: int, file: str) -> dict[str, Any]:
        import safetensors.torch

        return dict(safetensors.torch.load_file(self.output / f"checkpoints/step_{step:06d}" / file))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, toys: None) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("keys")
    make_model(folder / "model")
    with pytest.MonkeyPatch.context() as changes:
        changes.setenv("HF_MODULES_CACHE", str(folder / "modules"))
        yield folder


def start(folder: Path, name: str, keys: dict[str, Any]) -> tuple[TrainProcess, Path]:
    """The run of `keys`, on the folder's model; it leaves marks in `NAME-marks`."""
    marks = folder / f"{name}-marks"
    marks.mkdir(exist_ok=True)
    request = write_toml(keys | {"model.name": str(folder / "model")}, folder / f"{name}.toml")
    with pytest.MonkeyPatch.context() as changes:
        changes.setenv("KEYS_MARKS", str(marks))
        return TrainProcess(folder / name, request=request), request


def ended(run: TrainProcess, request: Path, processes: Counter[str] | None = None) -> KeyRun:
    status, marks = run.wait(900), run.output.parent / f"{run.output.name}-marks"
    names = {mark.name for mark in marks.iterdir()}
    return KeyRun(run.output, request, run.text, status, processes or Counter(), names)


def actors_of(run: TrainProcess) -> Counter[str]:
    """Ray's names of the processes below the run, counted."""
    titles = [Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in descendants(run.process.pid)]
    return Counter(re.findall(r"^ray::(\w+)", title)[0] for title in titles if title.startswith("ray::"))


@pytest.fixture(scope="module")
def synchronous(folder: Path) -> Iterator[KeyRun]:
    store = {"mlflow.tracking_uri": f"sqlite:///{folder / 'named.db'}"}
    run, request = start(folder, "synchronous", SYNCHRONOUS | store)
    try:
        run.wait_for("Trainer Step 1:", 900)
        yield ended(run, request, actors_of(run))
    finally:
        run.end()


def test_it_takes_max_steps_on_the_device_and_writes_into_output_dir(synchronous: KeyRun) -> None:
    assert synchronous.status == 0, synchronous.text
    assert [row["step"] for row in synchronous.metrics] == [1, 2]
    assert synchronous.run_json["hardware"]["device"] == "cpu"
    assert synchronous.config.output_dir == str(synchronous.output)


def test_two_engines_two_ranks_and_two_workers_for_each_environment(synchronous: KeyRun) -> None:
    wanted = {"RolloutEngine": 2, "LearnerRank": 2, "EnvironmentWorker": 4}
    assert synchronous.processes.items() >= wanted.items()


def test_at_temperature_0_6_canary_and_steps_match_and_the_rollouts_are_sampled_at_it(
    synchronous: KeyRun,
) -> None:
    for module in ("q_proj", "down_proj"):
        assert f"canary {module}: engine moved" in synchronous.text
    assert all(0 <= row["mismatch_kl"] < 1e-4 for row in synchronous.metrics)
    rows = [row for rows in synchronous.rollouts.values() for row in rows]
    assert_versions_are_those_named(synchronous.output, rows[::3])


def test_a_step_has_batch_size_groups_of_rollouts_per_example(synchronous: KeyRun) -> None:
    for rows in synchronous.rollouts.values():
        assert sorted(Counter(row["prompt"]["index"] for row in rows).values()) == [3] * 4


def test_prompts_are_the_seeds_with_each_environments_weight(synchronous: KeyRun) -> None:
    sampler = PromptSampler({"first": 64, "keyed": 64}, {"first": 3.0, "keyed": 1.0}, seed=11)
    wanted = {prompt.index: (prompt.environment, prompt.example) for prompt in sampler.take(12)}
    found = {
        row["prompt"]["index"]: (row["prompt"]["environment"], row["prompt"]["example"])
        for rows in synchronous.rollouts.values()
        for row in rows
    }
    assert {index: wanted[index] for index in found} == found
    assert {name for name, _ in found.values()} == {"first", "keyed"}, "the entries have their names"
    assert "reward/first/mean" in synchronous.metrics[0]


def test_groups_without_signal_are_replaced_within_half_a_batch(synchronous: KeyRun) -> None:
    """The kinds 0 to 2 of the first environment give every answer the same reward."""
    assert [row["rollouts/resampled"] for row in synchronous.metrics] == [2 * 3, 2 * 3]
    for rows in synchronous.rollouts.values():
        equal = [
            row
            for row in rows
            if row["prompt"]["environment"] == "first" and row["prompt"]["example"] % 4 != 3
        ]
        assert equal and all(row["advantage"] == 0 for row in equal), (
            "beyond the budget they are trained as they are"
        )


def test_turns_tokens_and_lengths_are_bounded(synchronous: KeyRun) -> None:
    rows = [row for rows in synchronous.rollouts.values() for row in rows]
    first = [row for row in rows if row["prompt"]["environment"] == "first"]
    keyed = [row for row in rows if row["prompt"]["environment"] == "keyed"]
    assert {row["turns"] for row in first} == {2}, "max_turns, where the environment's args say 9"
    assert max(len(row["token_ids"]) for row in keyed) <= 96
    assert all(len(row["token_ids"]) > 96 - 30 for row in keyed), "they go on until seq_len is full"
    assert max(longest_turn(row) for row in rows) == 10


def longest_turn(row: dict[str, Any]) -> int:
    mask = "".join(map(str, row["loss_mask"]))
    return max(len(run) for run in re.findall("1+", mask))


def test_the_template_is_told_not_to_think(synchronous: KeyRun) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(synchronous.config.model.name)
    row = synchronous.rollouts[1][0]
    prompt = tokenizer.decode(row["token_ids"][: row["prompt_length"]])
    assert prompt.endswith("<|im_start|>assistant\n<think></think>\n")


def test_rewards_reach_the_top_of_reward_range_and_advantages_have_epsilon(synchronous: KeyRun) -> None:
    import statistics

    rows = [row for rows in synchronous.rollouts.values() for row in rows]
    assert max(row["reward"] for row in rows) == 3.0
    groups: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["prompt"]["index"], []).append(row)
    assert any(len({row["reward"] for row in group}) > 1 for group in groups.values())
    for group in groups.values():
        rewards = [row["reward"] for row in group]
        spread = statistics.stdev(rewards) + 0.5
        wanted = [(reward - statistics.fmean(rewards)) / spread for reward in rewards]
        assert [row["advantage"] for row in group] == pytest.approx(wanted, abs=1e-5)


def test_a_reward_function_that_raises_counts_as_zero_and_is_recorded(synchronous: KeyRun) -> None:
    """It does for kind 3 of the first environment; of the second one nothing does."""
    rows = [row for rows in synchronous.rollouts.values() for row in rows]
    broken = [row for row in rows if row["zeroed"]]
    assert broken and all("no score for" in row["zeroed"]["breaks"] for row in broken)
    assert {row["prompt"]["index"] for row in broken} == {
        row["prompt"]["index"]
        for row in rows
        if row["prompt"]["environment"] == "first" and row["prompt"]["example"] % KINDS == 3
    }


def test_held_out_tasks_are_scored_as_the_eval_table_says(synchronous: KeyRun) -> None:
    scores = read_lines(synchronous.output / "evaluations.jsonl")
    assert {(score["policy_version"], score["environment"]) for score in scores} == {
        (version, name) for version in (0, 2) for name in ("first", "keyed")
    }
    for score in scores:
        rewards = list(score["rewards"].values())
        assert [len(each) for each in rewards] == [2] * 3
        passed = [max(each) >= 0.25 for each in rewards]
        assert score["passed"]["mean"] == pytest.approx(sum(passed) / 3)
    low = [max(each) for s in scores for each in s["rewards"].values()]
    assert any(0.25 <= reward < 0.5 for reward in low) or any(reward < 0.25 for reward in low)


def test_the_learning_rate_warms_up_and_decays_to_its_least(synchronous: KeyRun) -> None:
    assert [row["lr"] for row in synchronous.metrics] == pytest.approx([2e-3, 0.25 * 2e-3])


def test_the_first_update_is_adamws_with_these_betas_this_decay_and_a_clipped_gradient(
    synchronous: KeyRun,
) -> None:
    """After one step exp_avg = (1 - beta1) g and exp_avg_sq = (1 - beta2) g^2, of the clipped gradient g. B is zero
    before it, so A has no gradient and is what the seed drew, times 1 - lr * weight_decay."""
    import torch

    from rezero_ray.learning.policy import build_policy

    state = synchronous.tensors(1, "state/learner.safetensors")
    moments = {name.removeprefix("exp_avg/"): t for name, t in state.items() if name.startswith("exp_avg/")}
    squared = 0.0
    for name, moment in moments.items():
        second = state[f"exp_avg_sq/{name}"]
        torch.testing.assert_close(second, (moment / 0.2).square() * 0.05, rtol=1e-3, atol=1e-12)
        squared += float((moment.double() / 0.2).square().sum())
    assert synchronous.metrics[0]["grad_norm"] > 0.01
    assert math.sqrt(squared) == pytest.approx(0.01, rel=1e-2)
    trainer = synchronous.config.trainer
    plain = trainer.model.model_copy(update={"trust_remote_code": False})
    trainer = trainer.model_copy(update={"model": plain})
    policy = build_policy(synchronous.config.model_copy(update={"trainer": trainer}))
    for name, drawn in policy.adapter_parameters():
        if ".lora_A." in name:
            decayed = drawn.detach() * (1 - 2e-3 * 0.5)
            torch.testing.assert_close(state[f"param/{name}"], decayed, rtol=1e-5, atol=1e-7)


def test_the_adapter_has_rank_alpha_modules_and_dtype(synchronous: KeyRun) -> None:
    import torch

    folder = synchronous.output / "checkpoints/step_000002/adapter"
    described = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    assert (described["r"], described["lora_alpha"]) == (8, 24.0)
    tensors = synchronous.tensors(2, "adapter/adapter_model.safetensors")
    assert {name.split(".")[-3] for name in tensors} == {"q_proj", "down_proj"}
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert {tensor.shape[0] for name, tensor in tensors.items() if ".lora_A." in name} == {8}


def test_the_loss_is_grpos_with_its_penalty(synchronous: KeyRun) -> None:
    """At step 1 the policy is the reference, at step 2 no more. The options one by one, and the value of the loss:
    tests/keys/test_losses_on_the_learner.py."""
    assert synchronous.config.trainer.loss.type == "grpo"
    first, second = synchronous.metrics
    assert first["loss/kl"] == pytest.approx(0, abs=1e-9)
    assert second["loss/kl"] > 1e-9


def test_the_step_is_cut_into_micro_batches_as_the_trainer_table_says(synchronous: KeyRun) -> None:
    from rezero_ray.batch import build_batch, micro_batches
    from rezero_ray.step_record import read_step

    def cut(**changes: Any) -> tuple[int, int]:
        """Micro-batches of a rank, and tokens of all of them."""
        trainer = synchronous.config.trainer.model_copy(update=changes)
        config = synchronous.config.model_copy(update={"trainer": trainer})
        trees = build_batch(read_step(synchronous.output, 1).groups, config, ranks=2).trees
        work = [micro_batches(each) for each in trees]
        return len(work[0]), sum(len(micro_batch.token_ids) for each in work for micro_batch in each)

    row = synchronous.metrics[0]
    assert (row["micro_batches"], row["tokens/computed"]) == cut()
    assert cut(micro_batch_tokens=96)[0] > row["micro_batches"]
    assert cut(share_prompts=True)[1] < row["tokens/computed"]


def test_no_layer_is_computed_twice(synchronous: KeyRun) -> None:
    """With gradient_checkpointing a layer is computed again in the backward pass."""
    lines = (synchronous.output.parent / "synchronous-marks/passes").read_text("utf-8").split("\n")
    passes = Counter(line.split()[1] for line in lines if line)
    assert passes["model"] > 0 and passes["layer"] == passes["model"]


def test_mlflow_has_the_run_under_the_names_of_the_wandb_table_in_the_named_store(
    synchronous: KeyRun,
) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{synchronous.output.parent / 'named.db'}")
    run = client.get_run(synchronous.run_json["mlflow_run_id"])
    assert client.get_experiment(run.info.experiment_id).name == "keys-project"
    assert run.info.run_name == "keys-name"
    text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/rollouts/step_000001.txt")
    assert len(re.findall(r"^\w+ #\d+  reward", text, re.MULTILINE)) == 2


def test_every_step_has_a_checkpoint(synchronous: KeyRun) -> None:
    names = sorted(path.name for path in (synchronous.output / "checkpoints").iterdir())
    assert names == ["step_000001", "step_000002"]


def test_the_models_code_runs_in_the_learner_and_not_in_the_engine(synchronous: KeyRun) -> None:
    assert "ray::LearnerRank" in synchronous.marks
    assert not {mark for mark in synchronous.marks if "Engine" in mark}


def test_vllm_has_the_settings_of_the_inference_table(synchronous: KeyRun) -> None:
    log = synchronous.engine_log
    assert "enable_prefix_caching=False" in log and "enable_prefix_caching=True" not in log
    assert "max_seq_len=96" in log and "dtype=torch.float32" in log
    assert re.search(r"'compile_ranges_endpoints': \[320\]", log), "max_num_batched_tokens"
    assert re.search(r"Explicitly set \(0\.25/", log), "the KV cache is 0.25 GiB and not a whole one"


def test_ray_has_the_cpus_and_the_store_of_the_infra_table_and_no_dashboard(synchronous: KeyRun) -> None:
    assert "Ray takes 4 CPUs, 0 GPUs, 0.5 GiB of shared memory for objects" in synchronous.text
    assert "Ray dashboard:" not in synchronous.text


def test_an_hour_costs_what_the_table_says(synchronous: KeyRun) -> None:
    for row in synchronous.metrics:
        assert row["cost/usd"] == pytest.approx(36.0 * row["cost/hours"], rel=1e-6)
