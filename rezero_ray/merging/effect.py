"""What is left of an adapter in the merged model, on what the policy wrote: logprobs by Transformers, in fp32."""

import gc
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch

from rezero_ray.records import Rollout

ROUNDING_NATS = 1e-5
"""Logprobs of two orders of summation in fp32 differ by less (4e-6 on SmolLM2); no loss is told from that."""


class Effect(msgspec.Struct, frozen=True):
    """Root mean squares over `tokens`, in nats: how far the adapter moves the base, and how far the merged model is
    from base and adapter."""

    tokens: int
    move: float
    difference: float

    @property
    def lost_share(self) -> float:
        return self.difference / self.move if self.move else math.inf if self.difference else 0.0

    def within(self, limit: float) -> bool:
        """Whether at most `limit` of the adapter's effect is lost."""
        return self.difference <= max(limit * self.move, ROUNDING_NATS)


def measure_effect(
    base: Path,
    adapter: Path,
    merged: Path,
    rollouts: Sequence[Rollout],
    *,
    device: str,
    trust_remote_code: bool,
) -> Effect:
    """Compare on the tokens that the policy wrote. One model is in memory at a time.

    Args:
        base, adapter, merged: directories of the models and of the adapter, in PEFT's format.
        device: "cuda" spreads the model over the GPUs, and the rest of the memory if it must.
    """
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    def load(path: Path) -> Any:
        return AutoModelForCausalLM.from_pretrained(
            path,
            dtype=torch.float32,
            device_map="auto" if device == "cuda" else None,
            trust_remote_code=trust_remote_code,
        ).eval()

    def with_adapter() -> Any:
        return PeftModel.from_pretrained(load(base), str(adapter)).eval()

    makers: tuple[Callable[[], Any], ...] = (lambda: load(base), with_adapter, lambda: load(merged))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # what Transformers says of PEFT's calls
        plain, adapted, found = (_logprobs(make, rollouts) for make in makers)
    return Effect(len(plain), _root_mean_square(adapted - plain), _root_mean_square(found - adapted))


def _logprobs(make: Callable[[], Any], rollouts: Sequence[Rollout]) -> torch.Tensor:
    """[N], of all tokens with loss mask 1, at temperature 1."""
    model = make()
    found = []
    with torch.inference_mode():
        for rollout in rollouts:
            ids = torch.as_tensor(rollout.token_ids.astype("int64"), device=model.device)
            logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1].float()
            targets = logits.gather(1, ids[1:, None])[:, 0] - logits.logsumexp(1)
            found.append(targets[torch.as_tensor(rollout.loss_mask[1:] == 1, device=targets.device)].cpu())
    del model
    gc.collect()
    return torch.cat(found).double()


def _root_mean_square(values: torch.Tensor) -> float:
    return float(values.square().mean().sqrt())
