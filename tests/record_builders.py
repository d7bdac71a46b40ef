"""Configurations, rollouts, groups and adapters for tests: small and complete."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rezero_ray.config.schema import Config
from rezero_ray.models.smollm2 import DEFAULT_OUTPUT
from rezero_ray.records import Adapter, Group, Prompt, Rollout

SMOLLM2 = Path(__file__).parents[1] / DEFAULT_OUTPUT
"""The model whose tokenizer the tests use (`make models/SmolLM2-135M-Instruct` puts it there)."""


def make_config(**changes: Any) -> Config:
    """A right configuration for the CPU; changes by dotted key, `__` for the dot: `ckpt__interval=1`."""
    tables: dict[str, Any] = {
        "max_steps": 10,
        "seq_len": 64,
        "output_dir": "outputs/run",
        "device": "cpu",
        "model": {"name": "model", "dtype": "float32"},
        "orchestrator": {
            "batch_size": 2,
            "rollouts_per_example": 2,
            "sampling": {"max_tokens": 16},
            "env": [{"id": "phishing-detection"}],
        },
    }
    for key, value in changes.items():
        *path, last = key.split("__")
        table = tables
        for name in path:
            table = table.setdefault(name, {})
        table[last] = value
    return Config.model_validate(tables)


def make_rollout(
    prompt: Sequence[int],
    tail: Sequence[int],
    *,
    mask: Sequence[int] | None = None,
    reward: float = 0.0,
    logprobs: Sequence[float] | None = None,
    policy_version: int = 0,
    turns: int = 1,
    truncated: bool = False,
    components: Mapping[str, float] | None = None,
) -> Rollout:
    """A rollout that continues `prompt` by `tail`; the policy wrote what `mask` says, all of it by default.

    Unless given, the logprob of the token at position p is -(p + 1) / 64, so that none is like another.
    """
    trained = [1] * len(tail) if mask is None else list(mask)
    if logprobs is None:
        logprobs = [-(len(prompt) + i + 1) / 64 for i in range(len(tail))]
    return Rollout(
        token_ids=np.array([*prompt, *tail], dtype=np.int32),
        logprobs=np.array(
            [0.0] * len(prompt) + [p if m else 0.0 for p, m in zip(logprobs, trained, strict=True)],
            dtype=np.float32,
        ),
        loss_mask=np.array([0] * len(prompt) + trained, dtype=np.uint8),
        prompt_length=len(prompt),
        turns=turns,
        policy_version=policy_version,
        reward=reward,
        components=dict(components or {}),
        text=[{"role": "assistant", "content": "text"}],
        truncated=truncated,
    )


def make_group(
    rollouts: Sequence[Rollout],
    *,
    index: int = 0,
    environment: str = "phishing-detection",
) -> Group:
    prompt = Prompt(index=index, environment=environment, example=index)
    return Group(prompt=prompt, rollouts=list(rollouts), seconds=1.0)


def make_adapter(content: bytes = b"weights") -> Adapter:
    import hashlib

    weights = np.frombuffer(content, dtype=np.uint8)
    return Adapter(weights=weights, config=b'{"r": 8}', digest=hashlib.sha256(content).hexdigest())
