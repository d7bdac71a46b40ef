"""Seconds and memory of whole optimizer steps."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.gpu.slice import active_parameters, glm_config
from benchmarks.gpu.trial import Trial
from rezero_ray.records import MicroBatch


class Clock:
    """Wall seconds of the context, the device drained before and after."""

    def __init__(self, trial: Trial) -> None:
        self._cuda, self.seconds = trial.device.type == "cuda", 0.0

    def __enter__(self) -> "Clock":
        self._drain()
        self.seconds = -time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self._drain()
        self.seconds += time.perf_counter()

    def _drain(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()


def timed_steps(trial: Trial, step: Callable[[], Any], batches: Sequence[MicroBatch]) -> dict[str, Any]:
    """The median step after a first one. FLOPs as stage 1 counts them: recomputation and the head included."""
    step()
    if trial.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(1 if trial.small else 3):
        with Clock(trial) as clock:
            step()
        times.append(clock.seconds)
    seconds = sorted(times)[len(times) // 2]
    config = glm_config(trial.small)
    tokens = sum(len(batch.token_ids) for batch in batches)
    targets = sum(len(batch.targets) for batch in batches)
    head = 2 * config.vocab_size * config.hidden_size
    operations = 3 * 2 * tokens * active_parameters(config) + 2 * targets * head
    row: dict[str, Any] = {"tokens": tokens, "micro-batches": len(batches)}
    row |= {"seconds": seconds, "tokens/s": tokens / seconds, "TFLOP/s": operations / seconds / 1e12}
    if "peak_tflops" in trial.result:
        row["of peak"] = row["TFLOP/s"] / trial.result["peak_tflops"]
    if trial.device.type == "cuda":
        row["reserved GiB"] = torch.cuda.max_memory_reserved() / 2**30
        row["allocated GiB"] = torch.cuda.max_memory_allocated() / 2**30
    return row
