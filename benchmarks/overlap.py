"""Seconds a step against those of rollouts and training alone, for `max_async_level` 0, 1 and 2; and the controller's
own share of a step of 512 rollouts.

    python benchmarks/overlap.py [--steps 8]

Two cores cannot show an overlap: engine and learner would take the same cores from one another. So both are slowed
by fixed sleeps and compute nothing. The controller is the real one (`rezero_ray.training` with the real groups,
schedule, records and checkpoints on a real Ray cluster); the actors behind it, `SleepingEngine`, `SleepingWorker` and
`SleepingRank`, are stand-ins that sleep and hand back records of the size of a real run's: 128 prompts x 4 rollouts x
1,024 tokens.

- A batch's rollouts by themselves take `ROLLOUT` seconds, log-normally spread over its groups; a step of the learner
  takes `TRAIN` seconds.
- `controller` is the CPU time of the driver process, all of its threads, over the wall time of the steps.

Exit status 1 when a step at level 1 or 2 takes more than 1.1 of the longer of the two, or the controller has more
than 2 % of a step.
"""

import argparse
import asyncio
import hashlib
import json
import math
import random
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import ray
from measurement import hand_in, machine, measure_apart, print_table, versions, write_result
from workload import RECIPES

from rezero_ray.codec import encode
from rezero_ray.config import Config
from rezero_ray.config.loading import load_config
from rezero_ray.cost import NO_RATE
from rezero_ray.forecast.place import Place
from rezero_ray.records import Adapter, Bytes, Group, Rollout, Sizes, StepReport
from rezero_ray.schedule import Send

ROLLOUT, TRAIN, SPREAD = 20.0, 20.0, 0.3
"""Seconds, seconds, and the sigma of the log-normal distribution of the groups' seconds."""
PROMPTS, COMPLETIONS, TOKENS = 128, 4, 1024
LEVELS = (0, 1, 2)
LONGER, SHARE = 1.1, 0.02


class SleepingEngine:
    """Knows its version and nothing else; its logprobs are its version's."""

    def start(self) -> int:
        return 0

    def publish(self, version: int, adapter: Adapter) -> int:
        return 0

    def retire(self, version: int) -> None: ...

    def stop(self) -> None: ...

    def logprobs(self, version: int, token_ids: list[int]) -> list[float]:
        return [-1.0 - version / 1000] * (len(token_ids) - 1)


class SleepingWorker:
    """Sleeps as long as a group takes, many at a time, and hands back rollouts of full length."""

    def sizes(self) -> Sizes:
        return Sizes(1000, 0)

    async def run_group(self, send: Send, engine: Any) -> bytes:
        draw = random.Random(f"{send.prompt.index}")
        await asyncio.sleep(seconds_of_group(draw))
        rollouts = [
            Rollout(
                token_ids=np.arange(TOKENS, dtype=np.int32),
                logprobs=np.array(
                    [0.0] * (TOKENS // 2) + [draw.random() - 2 for _ in range(TOKENS // 2)], dtype=np.float32
                ),
                loss_mask=np.array([0] * (TOKENS // 2) + [1] * (TOKENS // 2), dtype=np.uint8),
                prompt_length=TOKENS // 2,
                turns=1,
                policy_version=send.version,
                reward=draw.random(),
                components={},
                text=[],
            )
            for _ in range(COMPLETIONS)
        ]
        return encode(Group(prompt=send.prompt, rollouts=rollouts, seconds=0.0))


class SleepingRank:
    """Sleeps as long as a step takes; its adapter is its number of steps."""

    def __init__(self, rank: int) -> None:
        self.rank, self.steps = rank, 0

    def address(self) -> tuple[str, int]:
        return "127.0.0.1", 1

    def start(self, address: str, port: int) -> dict[str, int]:
        return {"adapter": 1, "model": 1}

    def place(self, shape: dict[str, int]) -> Place:
        return Place("a place that sleeps", "", ((1.0, 1e12),), 1.0, 1.0, 1e12, 1e12, 0.0, None)

    def step(self, work: bytes, normalizers: dict[str, int], step: int) -> StepReport:
        time.sleep(TRAIN)
        self.steps = step
        metrics = {"mismatch_kl": 0.0, "entropy": 1.0}
        return StepReport(step, 0.0, 1.0, 1e-5, metrics, 1, 0, TRAIN)

    def logprobs(self, micro_batch: Any, *, use_adapter: bool = True) -> list[float]:
        return [-1.0 - self.steps / 1000] * len(micro_batch.targets)

    def adapter(self) -> Adapter:
        weights = np.full(20_000_000, self.steps % 256, dtype=np.uint8)
        return Adapter(weights=weights, config=b"{}", digest=hashlib.sha256(weights).hexdigest())

    def state(self) -> Bytes | None:
        return np.zeros(120_000_000, dtype=np.uint8) if self.rank == 0 else None


def seconds_of_group(draw: random.Random) -> float:
    """So that the slowest of a batch takes about `ROLLOUT`: the median of the largest of n log-normal ones is
    exp(sigma z), z being the quantile of 0.5 ** (1 / n)."""
    slowest = statistics.NormalDist().inv_cdf(0.5 ** (1 / PROMPTS))
    return ROLLOUT * draw.lognormvariate(0.0, SPREAD) / math.exp(SPREAD * slowest)


def sleeping_config(level: int, steps: int, output: str) -> Config:
    flags = {
        "max_steps": steps,
        "output_dir": output,
        "seq_len": TOKENS,
        "inference.model.max_model_len": TOKENS,
        "mlflow.enabled": "false",
        "trust.canary": "false",
        "ckpt.interval": 5,
        "orchestrator.batch_size": PROMPTS,
        "orchestrator.rollouts_per_example": COMPLETIONS,
        "orchestrator.max_async_level": level,
        "inference.model.max_num_seqs": PROMPTS * COMPLETIONS,
        "inference.model.max_num_batched_tokens": PROMPTS * COMPLETIONS,
    }
    return load_config(RECIPES, [part for key, value in flags.items() for part in (f"--{key}", str(value))])


def measure(level: int, steps: int) -> dict[str, Any]:
    """A run of the controller with sleeping actors; the first two steps are left out."""
    from actors.crew import Crew
    from actors.engine_group import EngineGroup
    from actors.environment_group import EnvironmentGroup
    from actors.learner_rank import LearnerGroup
    from infra.bootstrap import start_cluster
    from rezero_ray.checkpoint_writer import CheckpointWriter
    from rezero_ray.interruption import StopRequest
    from rezero_ray.reporting.reporter import Reporter
    from rezero_ray.run_directory import RunDirectory
    from rezero_ray.spending import Spending
    from rezero_ray.training import Training

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        config = sleeping_config(level, steps, str(Path(folder, "run")))
        directory = RunDirectory(config, device="cpu")
        reporter = stack.enter_context(Reporter(config, directory))
        stack.enter_context(start_cluster(config, gpus=0))
        stop = stack.enter_context(StopRequest())
        engines = EngineGroup([ray.remote(SleepingEngine).options(num_cpus=0).remote()], config)
        rank = ray.remote(SleepingRank).options(num_cpus=0)
        learners = LearnerGroup(
            lambda: [rank.remote(i) for i in range(len(config.trainer_gpu_ids))], lambda: None, config
        )
        worker = ray.remote(SleepingWorker).options(num_cpus=0, max_concurrency=1000).remote()
        environments = EnvironmentGroup({config.orchestrator.env[0].id: [worker]}, engines.handles, config)
        crew = Crew(engines, learners, environments, learners.start(), [])
        marks: list[tuple[float, float]] = []

        class TimedTraining(Training):
            def _step(self) -> None:
                super()._step()
                marks.append((time.monotonic(), time.process_time()))

        saver = stack.enter_context(CheckpointWriter(directory.path, 3, reporter.checkpoint))
        spending = stack.enter_context(Spending(config, NO_RATE, directory))
        TimedTraining(config, crew, directory, reporter, saver, stop, spending).run(resume=False)
        rows = directory.metrics()
    (begun, cpu_begun), (ended, cpu_ended) = marks[1], marks[-1]
    return {
        "step": statistics.fmean(row["time/step"] for row in rows[2:]),
        "rollout": statistics.fmean(row["time/rollout"] for row in rows[2:]),
        "train": statistics.fmean(row["time/train"] for row in rows[2:]),
        "staleness_max": max(row["staleness/max"] for row in rows),
        "controller": (cpu_ended - cpu_begun) / (ended - begun),
    }


def compare(steps: int) -> int:
    """Measure every level, print and write the figures. Returns the exit status."""
    about, figures = machine(), {}
    for level in LEVELS:
        print(f"measuring max_async_level = {level}", file=sys.stderr, flush=True)
        figures[level] = measure_apart(__file__, ["--measure", str(level), "--steps", str(steps)])
    longer = max(figures[0]["rollout"], figures[0]["train"])
    print_table(
        ["level", "s/step", "rollout", "train", "of the longer", "staleness", "controller"],
        [
            [
                str(level),
                *(f"{figure[part]:.1f}" for part in ("step", "rollout", "train")),
                f"{figure['step'] / longer:.2f}",
                f"{figure['staleness_max']:.0f}",
                f"{figure['controller']:.2%}",
            ]
            for level, figure in figures.items()
        ],
    )
    reached = all(figures[level]["step"] <= LONGER * longer for level in LEVELS[1:])
    reached = reached and all(figure["controller"] <= SHARE for figure in figures.values())
    print(f"targets: {LONGER} of the longer, {SHARE:.0%} of a step: {'reached' if reached else 'MISSED'}")
    load = {"prompts": PROMPTS, "completions": COMPLETIONS, "tokens": TOKENS, "steps": steps}
    load |= {"rollout_sleep": ROLLOUT, "train_sleep": TRAIN}
    result = {"load": load, "figures": figures, "reached": reached, "versions": versions(), "machine": about}
    write_result("overlap", result)
    return 0 if reached else 1


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--steps", type=int, default=8, help="steps of each run, the first two left out (%(default)s)"
    )
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is None:
        return compare(options.steps)
    figure = measure(options.measure, options.steps)
    if options.into is None:
        print(json.dumps(figure))
    else:
        hand_in(options.into, figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
