"""Tokens per second of our rollout path against vLLM's bare engine, both on this machine, in one run.

    python benchmarks/rollout.py [--rounds 3] [--dotted.key value ...]

Three figures, each in processes of its own, one after the other; a warm-up round, then `--rounds` timed ones
whose median counts. A round is 8 prompts x 8 completions x 64 tokens, other prompts in every round:

- `bare`: `AsyncLLM` without adapter support, called directly with token ids.
- `ours`: environment worker actor -> rollout engine actor, every request on a rank-16 adapter that is not
  zero; chat template, detokenisation, scoring and the way through Ray are in the time.
- `vllm_lora`: `ours` with vLLM's own LoRA operation in place of ours (`VLLM_PLUGINS=""`).

All three have the same model, precision, engine arguments (adapters apart), threads and sampling parameters,
logprobs and seeds included. Exit status 1 when `ours` is below 0.8 of `bare`.
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fixed_prompts import ENVIRONMENT_ID
from measurement import cpus, hand_in, machine, measure_apart, print_table, versions, write_result
from workload import COMPLETIONS, MODEL, PROMPTS, TOKENS, benchmark_config

from rezero_ray.config import Config
from rezero_ray.records import Adapter, Group, Prompt
from rezero_ray.schedule import Send

TARGET = 0.8
FIGURES = {
    "bare": "AsyncLLM, no adapter",
    "ours": "worker -> engine, adapter",
    "vllm_lora": "the same, vLLM's own LoRA operation",
}
NOISE = 0.02
"""Standard deviation of the adapter's B matrices: far from zero, and the text stays text."""


def prompts_of(number: int) -> list[Prompt]:
    """The prompts of round `number`."""
    first = number * PROMPTS
    return [Prompt(index=i, environment=ENVIRONMENT_ID, example=i) for i in range(first, first + PROMPTS)]


def timed_rounds(rounds: int, run: Callable[[int], list[int]]) -> list[dict[str, Any]]:
    """Time `run(number)`, which returns the lengths of the completions; round 0 warms up and is left out."""
    found = []
    for number in range(rounds + 1):
        started = time.monotonic()
        lengths = run(number)
        seconds = time.monotonic() - started
        found.append({"tokens": sum(lengths), "seconds": seconds, "full": min(lengths) == TOKENS})
    return found[1:]


def measure_actors(config: Config, rounds: int) -> dict[str, Any]:
    """The way of a run: environment worker and rollout engine as Ray actors, on their seats of a run."""
    from infra.bootstrap import start_cluster

    adapter = noisy_adapter(config)
    with start_cluster(config, gpus=0), seated(config) as (engines, environments):
        engines.publish(0, adapter)

        def run(number: int) -> list[int]:
            for prompt in prompts_of(number):
                environments.begin(Send(prompt, engine=0, version=0, attempt=1))
            return [sum(rollout.loss_mask) for group in received(environments) for rollout in group.rollouts]

        return {"rounds": timed_rounds(rounds, run), "lora_operation": lora_operation()}


def received(environments: Any) -> list[Group]:
    """All groups under way, when they are there."""
    import ray

    groups = []
    while environments.references:
        there, _ = ray.wait(environments.references, num_returns=1)
        _, result = environments.receive(there[0])
        if not isinstance(result, Group):
            raise result
        groups.append(result)
    return groups


@contextmanager
def seated(config: Config) -> Iterator[tuple[Any, Any]]:
    """Engine and environment worker of a run, without its learner ranks."""
    from ray.util.placement_group import remove_placement_group

    from actors.engine_group import EngineGroup
    from actors.environment_group import EnvironmentGroup
    from actors.environment_worker import EnvironmentWorker
    from actors.placement import nodes_of_cluster, reserve, seat, seating
    from actors.rollout_engine import RolloutEngine

    plan = seating(config, "cpu", nodes_of_cluster())
    group = reserve(plan, config.limits.cluster)
    engines = EngineGroup([seat(RolloutEngine, group, plan.engines[0]).remote(config, 0, "cpu")], config)
    worker = seat(EnvironmentWorker, group, plan.workers[0], max_concurrency=1000).remote(
        config, config.orchestrator.env[0]
    )
    environments = EnvironmentGroup({ENVIRONMENT_ID: [worker]}, engines.handles, config)
    try:
        engines.started(engines.start())
        environments.sizes()
        yield engines, environments
    finally:
        engines.stop()
        remove_placement_group(group)


def noisy_adapter(config: Config) -> Adapter:
    """An adapter on the configured modules whose product is not zero."""
    import torch

    from rezero_ray.learning.policy import build_policy, encode_adapter

    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randn(parameter.shape, generator=generator) * NOISE if ".lora_B." in name else parameter
        for name, parameter in build_policy(config).adapter_parameters()
    }
    return encode_adapter(tensors, config)


def lora_operation() -> str:
    """The class that adds adapters in this process and in those that it has started."""
    from vllm.platforms import current_platform

    return str(current_platform.get_punica_wrapper())


def measure_bare(config: Config, rounds: int) -> dict[str, Any]:
    """vLLM by itself: the engine's arguments without those of LoRA, the threads of the engine's seat."""
    from actors.placement import Node, seating
    from actors.rollout_engine import engine_arguments, engine_environment

    seat = seating(config, "cpu", [Node({"CPU": cpus()})]).engines[0]
    os.environ.update({"TOKENIZERS_PARALLELISM": "false", **seat.environment, **engine_environment("cpu")})
    arguments = engine_arguments(config, "cpu", 0)
    arguments = {name: value for name, value in arguments.items() if "lora" not in name}
    with asyncio.Runner() as runner:
        engine = runner.run(_bare_engine(arguments))
        ids = _prompt_ids(config)
        found = timed_rounds(rounds, lambda number: runner.run(_bare_round(engine, config, ids, number)))
        engine.shutdown()
    return {"rounds": found, "lora_operation": None}


async def _bare_engine(arguments: dict[str, Any]) -> Any:
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    return AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))


def _prompt_ids(config: Config) -> list[list[int]]:
    """Token ids of all prompts, as the environment worker makes them."""
    from fixed_prompts import prompts

    from rezero_ray.chat import ChatTokenizer

    chat = ChatTokenizer.load(config.model.name)
    return [chat.prompt_ids(messages) for messages in prompts()]


async def _bare_round(engine: Any, config: Config, ids: list[list[int]], number: int) -> list[int]:
    """One round with the sampling parameters of `RolloutEngine.generate`; returns the lengths."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    from rezero_ray.sampler import sampling_seed

    async def complete(prompt: Prompt, rollout: int) -> int:
        params = SamplingParams(
            max_tokens=config.orchestrator.sampling.max_tokens,
            temperature=config.orchestrator.sampling.temperature,
            seed=sampling_seed(config.seed, prompt.index, rollout, 0),
            logprobs=0,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        length = 0
        request = {"prompt_token_ids": list(ids[prompt.example])}
        async for output in engine.generate(request, params, f"bare/{prompt.index}/{rollout}"):
            length = len(output.outputs[0].token_ids)
        return length

    requests = [complete(prompt, r) for prompt in prompts_of(number) for r in range(COMPLETIONS)]
    return list(await asyncio.gather(*requests))


def summary(figure: dict[str, Any]) -> dict[str, Any]:
    """The figure with its median in tokens per second."""
    rates = [entry["tokens"] / entry["seconds"] for entry in figure["rounds"]]
    return {
        "tokens_per_s": round(statistics.median(rates), 1),
        "of_each_round": [round(rate, 1) for rate in rates],
        "tokens_a_round": [entry["tokens"] for entry in figure["rounds"]],
        "every_completion_full": all(entry["full"] for entry in figure["rounds"]),
        "lora_operation": figure["lora_operation"],
    }


def compare(rounds: int, overrides: list[str]) -> int:
    """Measure all figures, print and write them. Returns the exit status."""
    config = benchmark_config(overrides)
    about = machine()
    figures = {}
    for name in FIGURES:
        print(f"measuring {name}: {FIGURES[name]}", file=sys.stderr, flush=True)
        variables = {"VLLM_PLUGINS": ""} if name == "vllm_lora" else None
        arguments = ["--measure", name, "--rounds", str(rounds), *overrides]
        figures[name] = summary(measure_apart(__file__, arguments, variables))
    bare = figures["bare"]["tokens_per_s"]
    ratios = {name: round(figure["tokens_per_s"] / bare, 3) for name, figure in figures.items()}
    print_table(
        ["", "tokens/s", "of bare"],
        [[FIGURES[n], f"{f['tokens_per_s']:.0f}", f"{ratios[n]:.2f}"] for n, f in figures.items()],
    )
    reached = ratios["ours"] >= TARGET
    print(f"target: ours / bare >= {TARGET}: {'reached' if reached else 'MISSED'}")
    load = {"prompts": PROMPTS, "completions": COMPLETIONS, "max_tokens": TOKENS, "timed_rounds": rounds}
    load |= {"model": MODEL.name, "dtype": config.model.dtype, "lora_rank": config.trainer.model.lora.rank}
    result = {"load": load, "figures": figures, "of_bare": ratios, "target": TARGET, "reached": reached}
    write_result("rollout", {**result, "versions": versions(), "machine": about})
    return 0 if reached else 1


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds of each figure (%(default)s)")
    parser.add_argument("--measure", choices=FIGURES, help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options, overrides = parser.parse_known_args()
    if options.measure is None:
        return compare(options.rounds, overrides)
    measure = measure_bare if options.measure == "bare" else measure_actors
    hand_in(options.into, measure(benchmark_config(overrides), options.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
