"""Run directories with a checkpoint whose adapter is not zero, without a training run."""

import random
from pathlib import Path
from typing import Any

import numpy as np

from rezero_ray import checkpoint
from rezero_ray.checkpoint import RunState
from rezero_ray.config.schema import Config
from rezero_ray.preflight.model_facts import find_model
from rezero_ray.records import Adapter
from rezero_ray.run_directory import RunDirectory
from rezero_ray.sampler import SamplerState
from rezero_ray.schedule import ScheduleState
from tests.record_builders import SMOLLM2, make_config, make_group, make_rollout


def make_lora(config: Config, *, size: float, seed: int = 0) -> Adapter:
    """Normal noise on both matrices of every target module; `size` is the standard deviation of B."""
    import torch

    from rezero_ray.learning.policy import DTYPES, encode_adapter

    facts, lora = find_model(config.model.name), config.trainer.model.lora
    assert facts is not None
    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in facts.tensors.items():
        module = name.removesuffix(".weight")
        if module.rpartition(".")[2] in lora.target_modules:
            matrices = {"A": ((lora.rank, shape[1]), shape[1] ** -0.5), "B": ((shape[0], lora.rank), size)}
            for letter, (of_shape, spread) in matrices.items():
                tensor = spread * torch.randn(*of_shape, generator=draw)
                tensors[f"base_model.model.{module}.lora_{letter}.weight"] = tensor.to(
                    DTYPES[config.model.dtype]
                )
    return encode_adapter(tensors, config)


def write_trained_run(
    output: Path, *, steps: tuple[int, ...] = (4,), model: Path = SMOLLM2, size: float = 0.02, **changes: Any
) -> Config:
    """A run of `model` with a checkpoint of each of `steps`, no two alike, and rollouts. Returns its config."""
    config = make_config(output_dir=str(output), model__name=str(model), **changes)
    directory = RunDirectory(config, device="cpu")
    draw = random.Random(0)
    for step in steps:
        groups = [
            make_group(
                [make_rollout(draw.choices(range(100, 40_000), k=12), draw.choices(range(100, 40_000), k=20))]
            )
            for _ in range(4)
        ]
        directory.add_rollouts(step, groups, [[0.0]] * 4)
        state = RunState(
            step=step,
            seed=0,
            schedule=ScheduleState(
                sampler=SamplerState(position=step, taken={}), waiting=[], attempts={}, ready=[]
            ),
        )
        learner = np.frombuffer(b"nothing is learned further", dtype=np.uint8)
        adapter = make_lora(config, size=size, seed=step)
        checkpoint.save(output, state, learner, adapter, keep_last=len(steps))
    return config
