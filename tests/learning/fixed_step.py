"""One optimizer step's data, the same for two trainers: token ids, rewards, starting adapter."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rezero_ray.config.schema import Config
from rezero_ray.records import Group, Prompt
from tests.record_builders import make_config, make_rollout

LOSSES = ("grpo", "dapo", "dr_grpo")
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj")
RANK, ALPHA = 8, 16.0
COMPLETIONS = 4
MAX_TOKENS = 24
UNCLIPPED = 1e9
"""A bound that no gradient norm reaches."""

_random = random.Random(0)


def _ids(length: int) -> list[int]:
    return [_random.randrange(100, 40_000) for _ in range(length)]


PROMPT_IDS = [_ids(length) for length in (5, 14, 9, 7)]
COMPLETION_IDS = [
    [_ids(length) for length in _random.choices(range(1, MAX_TOKENS + 1), k=COMPLETIONS)] for _ in PROMPT_IDS
]
REWARDS = [[round(_random.uniform(-1, 1), 3) for _ in range(COMPLETIONS)] for _ in PROMPT_IDS]
REWARDS[2] = [0.5] * COMPLETIONS  # no advantage: nothing to learn, and yet counted in every mean


def config_of(model: str, loss: str, **changes: Any) -> Config:
    """The learner's configuration; `changes` as in `make_config`."""
    return make_config(
        **{
            "model__name": model,
            "seq_len": 40,
            "orchestrator__sampling__max_tokens": MAX_TOKENS,
            "trainer__loss__type": loss,
            "trainer__optim__max_grad_norm": UNCLIPPED,
            "trainer__model__lora__rank": RANK,
            "trainer__model__lora__alpha": ALPHA,
            "trainer__model__lora__target_modules": list(MODULES),
            **changes,
        }
    )


def groups_of(logprobs: Callable[[list[int]], Sequence[float]]) -> list[Group]:
    """The rollouts, with what `logprobs(token_ids)` says of `token_ids[1:]` as the engine's logprobs."""
    groups = []
    for index, (prompt, tails, rewards) in enumerate(zip(PROMPT_IDS, COMPLETION_IDS, REWARDS, strict=True)):
        rollouts = [
            make_rollout(
                prompt, tail, reward=reward, logprobs=list(logprobs([*prompt, *tail]))[len(prompt) - 1 :]
            )
            for tail, reward in zip(tails, rewards, strict=True)
        ]
        task = Prompt(index=index, environment="fixed", example=index)
        groups.append(Group(prompt=task, rollouts=rollouts, seconds=0.0))
    return groups


def write_adapter(model: Path, folder: Path) -> None:
    """A starting adapter whose A and B are noise: as the learner's state and, beside it, in PEFT's format."""
    import safetensors.torch
    import torch

    from rezero_ray.learning.policy import build_policy, encode_adapter

    config = config_of(str(model), "grpo")
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: 0.1 * torch.randn(parameter.shape, generator=generator)
        for name, parameter in build_policy(config).adapter_parameters()
    }
    state = {f"param/{name}": tensor for name, tensor in tensors.items()}
    for moment in ("exp_avg", "exp_avg_sq"):
        state |= {f"{moment}/{name}": torch.zeros_like(tensor) for name, tensor in tensors.items()}
    state["step"] = torch.tensor(0, dtype=torch.int64)
    folder.mkdir(parents=True)
    (folder / "state").write_bytes(safetensors.torch.save(state))
    adapter = encode_adapter(tensors, config)
    (folder / "adapter_model.safetensors").write_bytes(adapter.weights)
    (folder / "adapter_config.json").write_bytes(adapter.config)
