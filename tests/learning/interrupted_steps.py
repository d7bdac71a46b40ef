"""Program: three recorded steps taken by one rank of `world`, whole or from a saved state on.

    python -m tests.learning.interrupted_steps MODEL FOLDER RANK WORLD PORT RESULT

One rank alone records the rollouts, takes the steps, and takes them again from the states after the first and the
second, each time in a new learner: FOLDER/states/*.safetensors. Several ranks go on from the lone one's first state.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from actors.rendezvous import join
from rezero_ray.codec import decode, encode
from rezero_ray.records import Bytes, Group
from tests.learning.fixed_step import config_of, groups_of

STEPS = 3


def take(
    state: Bytes | None, first: int, config: Any, groups: list[Group], rank: int, world: int
) -> list[Bytes | None]:
    """States after each step from `first` on, by a new learner that begins with `state`."""
    from actors.deepspeed_learner import DeepSpeedLearner
    from rezero_ray.batch import build_batch, micro_batches

    learner = DeepSpeedLearner(config, "cpu", world)
    if state is not None:
        learner.load_state(state)
    states = []
    for step in range(first, STEPS + 1):
        batch = build_batch(groups, config, ranks=world)
        learner.step(micro_batches(batch.trees[rank]), batch.normalizers, step)
        states.append(learner.state())
    return states


def main() -> None:
    model, folder, rank, world, port, result = sys.argv[1:]
    join("127.0.0.1", int(port), rank=int(rank), world_size=int(world))
    from actors.deepspeed_learner import DeepSpeedLearner
    from rezero_ray.batch import single_sequence

    config = config_of(model, "dapo", trainer__optim__lr=0.02, trainer__optim__schedule="linear")
    recorded, states = Path(folder, "groups.msgpack"), Path(folder, "states")
    if int(world) == 1:
        states.mkdir()
        learner = DeepSpeedLearner(config, "cpu", 1)
        groups = groups_of(lambda ids: learner.logprobs(single_sequence(ids)))
        recorded.write_bytes(encode(groups))
        whole = take(None, 1, config, groups, 0, 1)
        for step, state in enumerate(whole, start=1):
            (states / f"whole-{step}.safetensors").write_bytes(state)
        for step in range(1, STEPS):
            resumed = take(whole[step - 1], step + 1, config, groups, 0, 1)
            (states / f"interrupted-after-{step}.safetensors").write_bytes(resumed[-1])
    else:
        groups = decode(recorded.read_bytes(), list[Group])
        first = np.fromfile(states / "whole-1.safetensors", dtype=np.uint8)
        resumed = take(first, 2, config, groups, int(rank), int(world))
        if int(rank) == 0:
            (states / f"{world}-ranks.safetensors").write_bytes(resumed[-1])
    Path(result).write_text("{}")


if __name__ == "__main__":
    main()
