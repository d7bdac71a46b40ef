"""Program: a run directory of three real learner steps on a tiny model, with a checkpoint after the first. Before the
third the run resumes with another learning rate, other betas and another bound of the gradient.

    python -m tests.learning.three_steps MODEL OUTPUT

The groups are the fixed step's; at each step their logprobs are those of the adapter as it stands.
"""

import sys
from pathlib import Path
from typing import Any

from actors.rendezvous import join, open_store
from tests.learning.fixed_step import config_of, groups_of

STEPS, SAVED, CHANGED = 3, 1, 3


def main() -> None:
    model, output = sys.argv[1:]
    store = open_store("127.0.0.1")
    join("127.0.0.1", store.port, rank=0, world_size=1)
    record(model, output)


def record(model: str, output: str) -> None:
    """Take the steps and record them as a run does."""
    from actors.deepspeed_learner import DeepSpeedLearner
    from rezero_ray import checkpoint
    from rezero_ray.batch import build_batch, micro_batches, single_sequence
    from rezero_ray.config import dump_toml
    from rezero_ray.config_history import record_config
    from rezero_ray.reporting.step_metrics import StepLosses, StepTimes, step_metrics
    from rezero_ray.run_directory import RunDirectory
    from rezero_ray.sampler import SamplerState
    from rezero_ray.schedule import ScheduleState

    # A learning rate at which each step moves the loss of the next, on a schedule that depends on max_steps.
    changes: dict[str, Any] = {
        "output_dir": output,
        "trainer__optim__lr": 0.02,
        "trainer__optim__schedule": "linear",
    }
    config = config_of(model, "importance_sampling", **changes)
    directory = RunDirectory(config, device="cpu")
    learner = DeepSpeedLearner(config, "cpu", 1)
    for step in range(1, STEPS + 1):
        if step == CHANGED:
            changes |= {"trainer__optim__lr": 0.01, "trainer__optim__betas": [0.5, 0.9]}
            changes["trainer__optim__max_grad_norm"] = 0.1
            config = config_of(model, "importance_sampling", **changes)
            before = learner.state()
            assert before is not None
            learner = DeepSpeedLearner(config, "cpu", 1)
            learner.load_state(before)
            record_config(directory.path, dump_toml(config), done=step - 1)
        groups = groups_of(lambda ids, learner=learner: learner.logprobs(single_sequence(ids)))
        batch = build_batch(groups, config, ranks=1)
        report = learner.step(micro_batches(batch.trees[0]), batch.normalizers, step)
        directory.add_rollouts(step, groups, batch.advantages)
        times = StepTimes(step=3.0, rollout=1.0, wait=1.0, train=1.0, sync=1.0)
        directory.add_metrics(step_metrics(groups, batch, report, times, StepLosses()))
        if step == SAVED:
            schedule = ScheduleState(SamplerState(position=0, taken={}), waiting=[], attempts={}, ready=[])
            run = checkpoint.RunState(step=step, seed=0, schedule=schedule)
            adapter, state = learner.adapter(), learner.state()
            assert adapter is not None
            assert state is not None
            checkpoint.save(Path(output), run, state, adapter, keep_last=1)


if __name__ == "__main__":
    main()
