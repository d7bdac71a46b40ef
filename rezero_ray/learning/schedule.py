"""Learning rate by step: a pure function, so that a resumed run needs no scheduler state."""

import math

from rezero_ray.config.schema import OptimConfig


def learning_rate(optim: OptimConfig, step: int, max_steps: int) -> float:
    """Learning rate of optimizer step `step`, counted from 1.

    Linear warm-up over `warmup_steps` (its last step has the full rate), then constant, linear or cosine decay
    that reaches `min_lr_ratio * lr` at `max_steps`.
    """
    if step <= optim.warmup_steps:
        return optim.lr * step / optim.warmup_steps
    if optim.schedule == "constant":
        return optim.lr
    progress = (step - optim.warmup_steps) / max(1, max_steps - optim.warmup_steps)
    remaining = 1 - progress if optim.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return optim.lr * (optim.min_lr_ratio + (1 - optim.min_lr_ratio) * max(0.0, remaining))
