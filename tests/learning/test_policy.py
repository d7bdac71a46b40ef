"""Claims about `PolicyModel`: a packed micro-batch gives what each of its sequences gives alone.

The yardstick is transformers' own sdpa and eager attention on one sequence at a time, adapter and all.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from actors.deepspeed_learner import DeepSpeedLearner
from rezero_ray.batch import build_batch, micro_batches, single_sequence
from rezero_ray.config.schema import Config
from rezero_ray.learning.policy import PolicyModel, build_policy, encode_adapter, micro_batch_tensors
from rezero_ray.logprob_scale import PROBE_TEMPERATURE
from rezero_ray.models.tiny import make_tiny_deepseek_v3, make_tiny_llama, make_tiny_nemotron_h
from rezero_ray.records import Group, MicroBatch
from tests.record_builders import SMOLLM2, make_config, make_group, make_rollout

torch.set_num_threads(1)

MODELS = {
    "llama": (make_tiny_llama, ["q_proj", "v_proj", "o_proj", "down_proj"]),
    "deepseek_v3": (make_tiny_deepseek_v3, ["q_a_proj", "q_b_proj", "kv_b_proj", "o_proj"]),
    "nemotron_h": (make_tiny_nemotron_h, ["q_proj", "v_proj", "o_proj", "in_proj"]),
}
TEMPERATURE = 0.8
ATTENTIONS = ("sdpa", "eager")


def random_ids(seed: int, count: int) -> list[int]:
    return torch.randint(49_152, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def two_groups() -> list[Group]:
    """Shared prompts of 9 and 4 tokens; completions of different lengths, some of several turns."""
    long, short = random_ids(1, 9), random_ids(2, 4)
    return [
        make_group(
            [
                make_rollout(long, random_ids(3, 7), reward=1.0),
                make_rollout(long, random_ids(4, 1), reward=0.0),
                make_rollout(long, random_ids(5, 10), mask=[1, 1, 0, 0, 0, 1, 1, 0, 0, 1], reward=0.25),
            ],
            index=0,
        ),
        make_group(
            [
                make_rollout(short, random_ids(6, 5), mask=[0, 0, 1, 1, 0], reward=1.0),
                make_rollout(short, random_ids(7, 12), reward=0.0),
            ],
            index=1,
        ),
    ]


class Models:
    """The policy and, with the same weights, transformers' model of the same architecture."""

    def __init__(self, kind: str, folder: Path) -> None:
        make, targets = MODELS[kind]
        self.config = make_config(
            model__name=str(make(folder / kind, tokenizer_from=SMOLLM2)),
            trainer__model__lora={"rank": 8, "alpha": 32.0, "target_modules": targets},
            trainer__model__logits_chunk=7,
            trainer__micro_batch_tokens=1000,
            orchestrator__sampling={"temperature": TEMPERATURE},
        )
        self.policy = build_policy(self.config)
        random = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in self.policy.adapter_parameters():
                if ".lora_B." in name:  # B is zero at first; then A would get no gradient
                    parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.05)

        self._adapter = folder / f"{kind}-adapter"
        self._adapter.mkdir()
        adapter = encode_adapter(dict(self.policy.adapter_parameters()), self.config)
        (self._adapter / "adapter_model.safetensors").write_bytes(adapter.weights)
        (self._adapter / "adapter_config.json").write_bytes(adapter.config)
        self.yardsticks = {name: self._published(name) for name in ATTENTIONS}

    def _published(self, attention: str) -> nn.Module:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        base = AutoModelForCausalLM.from_pretrained(
            self.config.model.name, dtype=torch.float32, attn_implementation=attention
        )
        return PeftModel.from_pretrained(base, self._adapter, is_trainable=True)

    def alone(
        self, token_ids: list[int], attention: str = "sdpa", temperature: float = TEMPERATURE
    ) -> Tensor:
        """Logprobs [T - 1] of all tokens but the first, by transformers' own attention."""
        logits = self.yardsticks[attention](input_ids=torch.as_tensor(token_ids)[None]).logits[0, :-1]
        logits = logits / temperature
        return torch.log_softmax(logits, dim=-1).gather(1, torch.tensor(token_ids[1:])[:, None]).squeeze(1)

    def gradients(self, value: Tensor, model: nn.Module | None = None) -> dict[str, Tensor]:
        """Of the adapter's parameters, the policy's unless another model is named."""
        named = (model or self.policy.peft_model).named_parameters()
        adapter = {name: parameter for name, parameter in named if ".lora_" in name}
        return dict(zip(adapter, torch.autograd.grad(value, list(adapter.values())), strict=True))


@pytest.fixture(scope="module", params=list(MODELS))
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    if not SMOLLM2.exists():
        pytest.skip("needs SmolLM2's tokenizer: make models/SmolLM2-135M-Instruct")
    yield Models(request.param, tmp_path_factory.mktemp("models"))


def packed(config: Config, groups: list[Group]) -> MicroBatch:
    (micro,) = micro_batches(build_batch(groups, config, ranks=1).trees[0])
    return micro


def logprobs(policy: PolicyModel, micro: MicroBatch) -> Tensor:
    return policy(**micro_batch_tensors(micro, torch.device("cpu")))[0]


def trained_alone(models: Models, groups: list[Group], micro: MicroBatch, attention: str) -> Tensor:
    """Logprobs [N] of a micro-batch's trained tokens, each sequence computed by itself."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    by_token = {
        (number, at + 1): value
        for number, rollout in enumerate(rollouts)
        for at, value in enumerate(models.alone(rollout.token_ids, attention))
    }
    trained = {
        number: iter([at for at, m in enumerate(rollout.loss_mask) if m])
        for number, rollout in enumerate(rollouts)
    }
    return torch.stack([by_token[n, next(trained[n])] for n in micro.sequence_ids.tolist()])


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_packed_sequences_with_shared_prompts_have_the_logprobs_they_have_alone(
    models: Models, attention: str
) -> None:
    groups = two_groups()
    micro = packed(models.config, groups)
    assert sum(s[2] == s[3] for s in micro.segments) == 2  # the prompts
    assert sum(s[2] != s[3] for s in micro.segments) == 5
    with torch.no_grad():
        found = logprobs(models.policy, micro)
        expected = trained_alone(models, groups, micro, attention)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_packed_sequences_with_shared_prompts_give_the_gradients_they_give_alone(
    models: Models, attention: str
) -> None:
    groups = two_groups()
    micro = packed(models.config, groups)
    weights = torch.randn(len(micro.targets), generator=torch.Generator().manual_seed(9))
    found = models.gradients(logprobs(models.policy, micro) @ weights)
    alone = trained_alone(models, groups, micro, attention) @ weights
    expected = models.gradients(alone, models.yardsticks[attention])
    assert found.keys() == expected.keys()
    for name in found:
        assert expected[name].abs().max() > 1e-3, name
        difference = (found[name] - expected[name]).abs().max()
        assert difference < 1e-5 * max(1.0, float(expected[name].abs().max())), name


def test_sharing_the_prompt_changes_nothing(models: Models) -> None:
    groups = two_groups()
    shared = packed(models.config, groups)
    trainer = models.config.trainer.model_copy(update={"share_prompts": False})
    separate = packed(models.config.model_copy(update={"trainer": trainer}), groups)
    assert len(separate.token_ids) > len(shared.token_ids)

    def in_order(micro: MicroBatch) -> Tensor:
        order = torch.argsort(torch.as_tensor(micro.sequence_ids), stable=True)
        return logprobs(models.policy, micro)[order]

    with torch.no_grad():
        torch.testing.assert_close(in_order(shared), in_order(separate), rtol=0, atol=1e-5)


def test_a_sequence_does_not_see_its_neighbours(models: Models) -> None:
    groups = two_groups()
    micro = packed(models.config, groups)
    changed = micro.token_ids.copy()
    start, end, *_ = micro.segments[1]
    changed[start:end] = (changed[start:end] + 1) % 49_152
    with torch.no_grad():
        before = logprobs(models.policy, micro)
        inputs: dict[str, Any] = micro_batch_tensors(micro, torch.device("cpu"))
        inputs["token_ids"] = torch.as_tensor(changed)
        after = models.policy(**inputs)[0]
    inside = torch.as_tensor((micro.sources >= start) & (micro.sources < end))
    assert inside.any()
    assert not torch.equal(before[inside], after[inside])
    torch.testing.assert_close(before[~inside], after[~inside], rtol=0, atol=1e-6)


def test_recomputing_activations_does_not_change_the_gradients(models: Models) -> None:
    micro = packed(models.config, two_groups())
    base = models.policy.peft_model.get_base_model()
    assert base.is_gradient_checkpointing
    found = models.gradients(logprobs(models.policy, micro).sum())
    base.gradient_checkpointing_disable()
    try:
        expected = models.gradients(logprobs(models.policy, micro).sum())
    finally:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_the_published_adapter_means_in_peft_what_it_means_to_the_learner(
    models: Models, attention: str
) -> None:
    ids = random_ids(11, 12)
    with torch.no_grad():
        found = logprobs(models.policy, single_sequence(ids))
        expected = models.alone(ids, attention)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_learner_scores_a_given_text_at_temperature_1_whatever_the_sampling_temperature_is(
    models: Models,
) -> None:
    """vLLM's prompt logprobs are at 1; what the policy wrote is scored at the sampling temperature."""
    ids = random_ids(12, 12)
    assert models.policy.head.chunk == models.config.trainer.model.logits_chunk == 7
    learner = DeepSpeedLearner.__new__(DeepSpeedLearner)  # without DeepSpeed: the module itself is its engine
    learner._engine = learner._policy = models.policy
    learner._device = torch.device("cpu")
    with torch.no_grad():
        model, sampled = models.alone(ids, temperature=PROBE_TEMPERATURE), models.alone(ids)
    assert (model - sampled).abs().max() > 0.1, "the two scales can be told apart"
    found = torch.tensor(learner.logprobs(single_sequence(ids)))
    torch.testing.assert_close(found, model, rtol=0, atol=1e-5)
    with torch.no_grad():
        trained = logprobs(models.policy, single_sequence(ids))
    torch.testing.assert_close(trained, sampled, rtol=0, atol=1e-5)


def test_the_adapter_begins_as_nothing_and_is_the_seeds(models: Models) -> None:
    first, again = (dict(build_policy(models.config).adapter_parameters()) for _ in range(2))
    assert first.keys() == again.keys()
    for name, parameter in first.items():
        assert torch.equal(parameter, again[name])
        assert (parameter.abs().sum() == 0) == (".lora_B." in name)
    other = build_policy(models.config.model_copy(update={"seed": 1})).adapter_parameters()
    assert any(not torch.equal(parameter, first[name]) for name, parameter in other)
