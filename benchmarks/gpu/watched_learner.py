"""The product's DeepSpeed learner, with a view of its gradients and of what ZeRO-3 does with its trace."""

import gc
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np
import torch

from rezero_ray.config.schema import Config
from rezero_ray.records import MicroBatch

Settings = dict[str, Any]


def as_configured(_: Settings) -> None:
    """DeepSpeed's settings as the product makes them."""


def accumulate_in_bfloat16(settings: Settings) -> None:
    """DeepSpeed's default for a bfloat16 model."""
    settings.pop("communication_data_type", None)
    settings.setdefault("data_types", {}).pop("grad_accum_dtype", None)


def accumulate_in_float32(settings: Settings) -> None:
    settings["communication_data_type"] = "fp32"
    settings.setdefault("data_types", {})["grad_accum_dtype"] = "fp32"


class WatchedLearner:
    """A `DeepSpeedLearner` of one rank. `counts` since it was last cleared: passes of the model, those that had a
    complete trace, and traces dropped."""

    def __init__(
        self, config: Config, device: str, change: Callable[[Settings], None] = as_configured
    ) -> None:
        from actors import deepspeed_learner

        product = deepspeed_learner.zero_settings

        def changed(config: Config) -> Settings:
            settings = product(config)
            change(settings)
            return settings

        self.counts: dict[str, int] = {}
        self.clear_counts()
        with patch.object(deepspeed_learner, "zero_settings", changed):
            self.learner = deepspeed_learner.DeepSpeedLearner(config, device, 1)
        _count(self.learner._engine.optimizer._get_param_coordinator(), self)
        self._steps = 0

    def clear_counts(self) -> None:
        self.counts = {"passes": 0, "with trace": 0, "dropped": 0}

    def step(self, batches: Sequence[MicroBatch]) -> Any:
        """One optimizer step; returns its `StepReport`."""
        self._steps += 1
        tokens = sum(len(batch.targets) for batch in batches)
        sequences = sum(len(np.unique(batch.sequence_ids)) for batch in batches)
        return self.learner.step(batches, {"tokens": tokens, "sequences": sequences}, self._steps)

    def on_policy(self, batches: Sequence[MicroBatch]) -> list[MicroBatch]:
        """The micro-batches with the learner's own logprobs as the engine's, so that no token is masked."""
        return [
            msgspec.structs.replace(
                batch, inference_logprobs=np.asarray(self.learner.logprobs(batch), dtype=np.float32)
            )
            for batch in batches
        ]

    def gradient(self, batches: Sequence[MicroBatch], normalizer: int) -> torch.Tensor:
        """What the optimizer would get for these micro-batches, float64 [adapter's parameters] on the CPU.

        `normalizer`: trained tokens and sequences of the step that they are a part of. The learning rate has to be
        next to nothing, so that the weights stay.
        """
        from deepspeed.utils import safe_get_full_grad

        engine, found = self.learner._engine, list[torch.Tensor]()

        def step() -> Any:
            found.extend(safe_get_full_grad(p).double().flatten().cpu() for p in self.learner._parameters)
            return type(engine).step(engine)

        with patch.object(engine, "step", step):
            self._steps += 1
            self.learner.step(batches, dict.fromkeys(("tokens", "sequences"), normalizer), self._steps)
        return torch.cat(found)

    def close(self) -> None:
        """Free the model's memory."""
        self.learner._engine.destroy()
        del self.learner
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _count(coordinator: Any, watched: WatchedLearner) -> None:
    """Count on this coordinator: DeepSpeed calls both methods by the instance."""
    invalidate, reset = coordinator._invalidate_trace, coordinator.reset_step

    def counted_invalidate() -> None:
        watched.counts["dropped"] += 1
        invalidate()

    def counted_reset() -> None:
        watched.counts["passes"] += 1
        watched.counts["with trace"] += coordinator.is_complete_trace()
        reset()

    coordinator._invalidate_trace, coordinator.reset_step = counted_invalidate, counted_reset


def joined(batches: Sequence[MicroBatch]) -> MicroBatch:
    """The micro-batches behind one another in one; no sequence sees another's tokens."""
    starts = np.cumsum([0, *(len(batch.token_ids) for batch in batches)]).tolist()
    numbers = np.cumsum([0, *(int(batch.sequence_ids.max()) + 1 for batch in batches)]).tolist()
    whole = {
        name: np.concatenate([getattr(batch, name) for batch in batches])
        for name in (
            "token_ids",
            "position_ids",
            "targets",
            "inference_logprobs",
            "advantages",
            "loss_mask",
        )
    }
    pairs = list(zip(batches, starts, strict=False))
    return MicroBatch(
        **whole,
        segments=[
            (a + start, b + start, c + start, d + start)
            for batch, start in pairs
            for a, b, c, d in batch.segments
        ],
        sources=np.concatenate([batch.sources + start for batch, start in pairs]),
        sequence_ids=np.concatenate(
            [batch.sequence_ids + number for batch, number in zip(batches, numbers, strict=False)]
        ),
    )
