"""Program: gradients of one bfloat16 step in many micro-batches, together and one by one, on one rank.

    python -m tests.learning.bfloat16_gradients MODEL ADAPTER PORT RESULT

Writes the relative distance between the gradient of the step and the float64 sum of its micro-batches' gradients.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from actors.rendezvous import join
from rezero_ray.records import Bytes, MicroBatch
from tests.learning.fixed_step import config_of, groups_of


def main() -> None:
    model, adapter, port, result = sys.argv[1:]
    join("127.0.0.1", int(port), rank=0, world_size=1)
    state = np.fromfile(Path(adapter, "state"), dtype=np.uint8)
    Path(result).write_text(json.dumps(distance(model, state)))


def distance(model: str, state: Bytes) -> dict[str, float]:
    import safetensors.torch
    import torch

    from actors.deepspeed_learner import DeepSpeedLearner
    from rezero_ray.batch import build_batch, micro_batches, single_sequence

    config = config_of(model, "grpo", model__dtype="bfloat16", trainer__micro_batch_tokens=40)
    learner = DeepSpeedLearner(config, "cpu", 1)
    learner.load_state(state)
    groups = groups_of(lambda ids: learner.logprobs(single_sequence(ids)))
    batch = build_batch(groups, config, ranks=1)
    parts = micro_batches(batch.trees[0])

    def gradient(of: Sequence[MicroBatch]) -> torch.Tensor:
        """After one step from zero moments AdamW's first moment is the gradient times 1 - beta1."""
        learner.load_state(state)
        learner.step(of, batch.normalizers, 1)
        after = learner.state()
        assert after is not None
        tensors = safetensors.torch.load(after.tobytes())
        moments = [tensors[name].flatten() for name in sorted(tensors) if name.startswith("exp_avg/")]
        return torch.cat(moments).double() / (1 - config.trainer.optim.betas[0])

    alone = torch.stack([gradient([part]) for part in parts]).sum(0)
    together = gradient(parts)
    return {
        "micro_batches": len(parts),
        "distance": ((together - alone).norm() / alone.norm()).item(),
        "norm": alone.norm().item(),
    }


if __name__ == "__main__":
    main()
