"""Seconds of one whole training step, ours against TRL's `GRPOTrainer`, both on this machine, in one run.

    python benchmarks/step_vs_trl.py [--steps 3] [--trl 64 16] [--dotted.key value ...]

SmolLM2-135M-Instruct (bfloat16 where the processor multiplies it, else float32), LoRA of rank 16 on q, k, v, o,
8 prompts x 8 completions x 64 tokens. One step warms up, then `--steps` timed ones whose median counts.

- `ours`: `run_training` with the CPU overlay: one engine and one ZeRO-3 rank a CPU, at most three. The step is
  `time/step` of metrics.jsonl: rollouts with rewards, training, publishing the adapter and the proof that it
  took effect.
- `trl_<n>`: TRL without vLLM, as it is used on a CPU, with n sequences a micro-batch and all CPUs as threads,
  no gradient checkpointing, no KL term. The step is what lies between the callbacks on_step_begin and
  on_step_end: generation, rewards, update. The fastest n stands for TRL.

Both read the model from the same folder, see the same prompts and reward, and write exactly 64 tokens a
completion (see workload.py). The ratio is of seconds per completion token, which is that of the steps. Exit
status 1 when ours takes more than 0.7 of TRL's.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fixed_prompts import prompts, vowel_share
from measurement import cpus, hand_in, machine, measure_apart, print_table, versions, write_result
from workload import COMPLETIONS, MODEL, PROMPTS, TOKENS, benchmark_config

from rezero_ray.config import Config
from rezero_ray.vllm_cpu.processor import native_dtype, processor_flags

TARGET = 0.7
MICRO_BATCHES = (64, 16)
"""Sequences that TRL takes at a time: all of them, for which it wants some 12 GiB, or fewer."""


def step_config(overrides: Sequence[str], *, output: str = "runs/benchmark") -> Config:
    """The benchmarks' load, set up as one would train it on this machine; overrides win."""
    ranks = list(range(1, 1 + min(3, cpus())))
    ours = {
        "trainer_gpu_ids": str(ranks),
        "trainer.micro_batch_tokens": "2048",  # a rank's whole share of a step in one or two passes
        "model.dtype": native_dtype(processor_flags()),
    }
    flags = [part for key, value in ours.items() for part in (f"--{key}", value)]
    return benchmark_config([*flags, *overrides], output=output)


def measure_ours(steps: int, overrides: list[str]) -> dict[str, Any]:
    """A run of 1 + `steps` steps; every figure is read from its metrics.jsonl."""
    from rezero_ray.run import run_training

    with tempfile.TemporaryDirectory() as folder:
        output = str(Path(folder, "run"))
        config = step_config(["--max_steps", str(steps + 1), *overrides], output=output)
        if run_training(config, resume=False) != 0:
            raise RuntimeError("the run failed")
        rows = [json.loads(line) for line in Path(output, "metrics.jsonl").read_text().splitlines()]
    parts = ("rollout", "train", "sync")
    return {
        "seconds": [row["time/step"] for row in rows[1:]],
        "tokens": [row["tokens/completion"] for row in rows[1:]],
        "parts": {part: statistics.median(row[f"time/{part}"] for row in rows[1:]) for part in parts},
    }


def measure_trl(steps: int, overrides: list[str], micro_batch: int) -> dict[str, Any]:
    """`GRPOTrainer.train()` for 1 + `steps` steps, timed by a callback."""
    import torch
    from transformers import AutoTokenizer, TrainerCallback
    from trl import GRPOTrainer

    torch.set_num_threads(cpus())
    config = step_config(overrides)

    class Clock(TrainerCallback):
        seconds: list[float] = []  # noqa: RUF012
        started = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.started = time.monotonic()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.seconds.append(time.monotonic() - self.started)

    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=_trl_model(config),
            reward_funcs=_trl_reward,
            args=_trl_arguments(config, folder, steps + 1, micro_batch),
            train_dataset=_trl_prompts(),
            processing_class=AutoTokenizer.from_pretrained(config.model.name),
            peft_config=_trl_lora(config),
            callbacks=[clock],
        )
        trainer.train()
    rows = [row for row in trainer.state.log_history if "completions/mean_length" in row]
    tokens = [round(row["completions/mean_length"] * PROMPTS * COMPLETIONS) for row in rows]
    return {"seconds": clock.seconds[1:], "tokens": tokens[1:]}


def _trl_model(config: Config) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(config.model.name, dtype=getattr(torch, config.model.dtype))


def _trl_reward(completions: list[Any], **_: Any) -> list[float]:
    """The environment's own."""
    return [vowel_share(completion[-1]["content"]) for completion in completions]


def _trl_prompts() -> Any:
    from datasets import Dataset

    return Dataset.from_list([{"prompt": prompt} for prompt in prompts()])


def _trl_lora(config: Config) -> Any:
    from peft import LoraConfig

    lora = config.trainer.model.lora
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=0.0,
        target_modules=list(lora.target_modules),
        task_type="CAUSAL_LM",
    )


def _trl_arguments(config: Config, folder: str, steps: int, micro_batch: int) -> Any:
    """TRL's settings for the same work; everything that would only cost time is off."""
    from trl import GRPOConfig

    return GRPOConfig(
        output_dir=folder,
        max_steps=steps,
        use_cpu=True,
        bf16=config.model.dtype == "bfloat16",
        gradient_checkpointing=False,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=PROMPTS * COMPLETIONS // micro_batch,
        num_generations=COMPLETIONS,
        max_completion_length=TOKENS,
        temperature=config.orchestrator.sampling.temperature,
        learning_rate=config.trainer.optim.lr,
        lr_scheduler_type="constant",
        beta=0.0,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        seed=config.seed,
    )


def summary(figure: dict[str, Any]) -> dict[str, Any]:
    """The figure with its medians."""
    pairs = list(zip(figure["seconds"], figure["tokens"], strict=True))
    found = {
        "seconds_a_step": round(statistics.median(figure["seconds"]), 2),
        "seconds_per_1000_tokens": round(statistics.median(1000 * s / t for s, t in pairs), 3),
        "seconds_of_each_step": [round(seconds, 2) for seconds in figure["seconds"]],
        "completion_tokens_of_each_step": figure["tokens"],
    }
    if "parts" in figure:
        found["seconds_of_each_part"] = {part: round(s, 2) for part, s in figure["parts"].items()}
    return found


def compare(steps: int, micro_batches: Sequence[int], overrides: list[str]) -> int:
    """Measure ours and TRL's, print and write them. Returns the exit status."""
    config, about = step_config(overrides), machine()
    common = ["--steps", str(steps), *overrides]
    figures = {}
    for name in ("ours", *(f"trl_{size}" for size in micro_batches)):
        print(f"measuring {name}", file=sys.stderr, flush=True)
        threads = {} if name == "ours" else {"OMP_NUM_THREADS": str(cpus())}
        figures[name] = summary(measure_apart(__file__, ["--measure", name, *common], threads))
    cost = {name: figure["seconds_per_1000_tokens"] for name, figure in figures.items()}
    fastest = min((name for name in figures if name != "ours"), key=cost.__getitem__)
    ratio = round(cost["ours"] / cost[fastest], 3)
    _print_figures(figures, cost[fastest])
    reached = ratio <= TARGET
    print(f"target: ours / {fastest} <= {TARGET}: {ratio}, {'reached' if reached else 'MISSED'}")
    load = {"prompts": PROMPTS, "completions": COMPLETIONS, "tokens": TOKENS, "timed_steps": steps}
    load |= {
        "ranks": len(config.trainer_gpu_ids),
        "model": MODEL.name,
        "dtype": config.model.dtype,
        "lora_rank": config.trainer.model.lora.rank,
    }
    result = {"load": load, "figures": figures, "fastest_trl": fastest, "ours_of_trl": ratio}
    result |= {"target": TARGET, "reached": reached, "versions": versions(), "machine": about}
    write_result("step_vs_trl", result)
    return 0 if reached else 1


def _print_figures(figures: dict[str, dict[str, Any]], reference: float) -> None:
    header = ["", "s/step", "tokens/step", "s/1000 tokens", "of TRL"]
    rows = [
        [
            name,
            f"{figure['seconds_a_step']:.1f}",
            f"{statistics.median(figure['completion_tokens_of_each_step']):.0f}",
            f"{figure['seconds_per_1000_tokens']:.2f}",
            f"{figure['seconds_per_1000_tokens'] / reference:.2f}",
        ]
        for name, figure in figures.items()
    ]
    print_table(header, rows)
    parts = figures["ours"]["seconds_of_each_part"]
    print("ours: " + ", ".join(f"{part} {seconds:.1f} s" for part, seconds in parts.items()))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each figure (%(default)s)")
    parser.add_argument("--trl", type=int, nargs="+", default=MICRO_BATCHES, help="TRL's micro-batches")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options, overrides = parser.parse_known_args()
    if options.measure is None:
        return compare(options.steps, options.trl, overrides)
    if options.measure == "ours":
        figure = measure_ours(options.steps, overrides)
    else:
        figure = measure_trl(options.steps, overrides, int(options.measure.removeprefix("trl_")))
    hand_in(options.into, figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
