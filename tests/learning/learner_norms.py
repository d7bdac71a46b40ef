"""Program: gradient norms of our learner for the fixed step, one rank of `world`.

    python -m tests.learning.learner_norms MODEL ADAPTER RANK WORLD PORT RESULT

Writes {loss: {split: norm}}. A split is a way of cutting the same work into micro-batches.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from actors.rendezvous import join
from rezero_ray.records import Bytes
from tests.learning.fixed_step import LOSSES, config_of, groups_of

SPLITS: dict[str, dict[str, Any]] = {
    "large micro-batches": {"trainer__micro_batch_tokens": 1024},
    "small micro-batches": {"trainer__micro_batch_tokens": 40},
    "prompts not shared": {"trainer__micro_batch_tokens": 64, "trainer__share_prompts": False},
}


def norms(model: str, state: Bytes, rank: int, world: int) -> dict[str, dict[str, float]]:
    """Every loss and split from the same adapter and optimizer state."""
    from actors.deepspeed_learner import DeepSpeedLearner
    from rezero_ray.batch import build_batch, micro_batches, single_sequence

    found: dict[str, dict[str, float]] = {}
    groups = None
    for loss in LOSSES:
        learner = DeepSpeedLearner(config_of(model, loss), "cpu", world)
        learner.load_state(state)
        groups = groups or groups_of(lambda ids, learner=learner: learner.logprobs(single_sequence(ids)))
        found[loss] = {}
        for name, changes in SPLITS.items():
            learner.load_state(state)
            batch = build_batch(groups, config_of(model, loss, **changes), ranks=world)
            report = learner.step(micro_batches(batch.trees[rank]), batch.normalizers, 1)
            found[loss][name] = report.grad_norm
    return found


def main() -> None:
    model, adapter, rank, world, port, result = sys.argv[1:]
    join("127.0.0.1", int(port), rank=int(rank), world_size=int(world))
    state = np.fromfile(Path(adapter, "state"), dtype=np.uint8)
    Path(result).write_text(json.dumps(norms(model, state, int(rank), int(world))))


if __name__ == "__main__":
    main()
