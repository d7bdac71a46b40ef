"""What training on two cores does to the held-out reward of each built-in environment, with SmolLM2-135M-Instruct.

    python benchmarks/learning.py [RECIPE ...] [--steps 24] [--keep FOLDER]

Each recipe is trained by the main command with configs/overlays/cpu.toml and `[orchestrator.eval]`: the same held-out
tasks are scored before the first step and after the last, eight rollouts each, with the same seeds. The table and
benchmarks/results/learning.json say the mean rewards with intervals of 95 % over the tasks, their difference task by
task, the share of the tasks whose eight rewards differ before training, and the minutes of the whole command.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
from measurement import machine, versions, write_result

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from rezero_ray.evaluation import Score, difference  # noqa: E402
from rezero_ray.vllm_cpu.processor import native_dtype, processor_flags  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "learning.json"

RECIPES = {
    "phishing": {"orchestrator.sampling.max_tokens": 64},
    "network-logs": {"orchestrator.sampling.max_tokens": 64},
    "config-verification": {"orchestrator.sampling.max_tokens": 80},
    "redteam": {"orchestrator.sampling.max_tokens": 48},
    "codevuln": {
        "orchestrator.sampling.max_tokens": 64,
        "seq_len": 768,
        "inference.model.max_model_len": 768,
    },
}
"""Keys that a recipe's answers and prompts need beside those of `SETTINGS`."""

SETTINGS = {
    "model.dtype": native_dtype(processor_flags()),
    "trainer_gpu_ids": [1],
    "ckpt.interval": 1000,
    "mlflow.enabled": False,
    "orchestrator.batch_size": 4,
    "orchestrator.eval.interval": 1000,
    "orchestrator.eval.num_examples": 32,
    "orchestrator.eval.rollouts_per_example": 8,
}
"""One learner rank: three on two cores would compute the frozen base three times. bfloat16 where the
processor multiplies it: that is faster, and half the KV cache is read."""


def main() -> None:
    arguments = _parser().parse_args()
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"recipes": {}}
    for recipe in arguments.recipes or RECIPES:
        with tempfile.TemporaryDirectory(prefix="learning-") as scratch:
            folder = (arguments.keep or Path(scratch)) / recipe
            before = machine()
            found["recipes"][recipe] = train(recipe, folder, arguments.steps) | {"machine": before}
        found["versions"] = versions()
        write_result(RESULTS.stem, found)
    print(table(found["recipes"]))


def train(recipe: str, folder: Path, steps: int) -> dict[str, Any]:
    """One run, and what its evaluations say."""
    settings = SETTINGS | RECIPES[recipe] | {"max_steps": steps}
    flags = [
        word
        for key, value in (settings | {"output_dir": str(folder)}).items()
        for word in (f"--{key}", json.dumps(value))
    ]
    files = [f"configs/{recipe}.toml", "configs/overlays/cpu.toml"]
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "rezero_ray.train", *files, *flags], cwd=ROOT, check=True)
    minutes = (time.monotonic() - started) / 60
    rows = [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]
    start, end = (msgspec.convert(row, Score, strict=False) for row in rows)
    gain = difference(start, end)
    return {
        "environment": start.environment,
        "steps": steps,
        "tasks": len(start.rewards),
        "k": start.k,
        "start": msgspec.to_builtins(start.average),
        "end": msgspec.to_builtins(end.average),
        "difference": msgspec.to_builtins(gain),
        "varied_at_start": start.varied,
        "minutes": minutes,
        "evaluation_seconds": [row["seconds"] for row in rows],
        "settings": settings,
    }


def table(recipes: dict[str, Any]) -> str:
    """The results as a Markdown table."""
    lines = [
        "| environment | steps | varied at start | start | end | difference | minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in recipes.values():
        cells = [
            f"`{each['environment']}`",
            str(each["steps"]),
            f"{each['varied_at_start']:.0%}",
            *(
                f"{each[name]['mean']:+.3f} [{each[name]['low']:+.3f}, {each[name]['high']:+.3f}]"
                for name in ("start", "end", "difference")
            ),
            f"{each['minutes']:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help=f"of {', '.join(RECIPES)}; all if none")
    parser.add_argument("--steps", type=int, default=24, help="optimizer steps (default %(default)s)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the run directories there")
    return parser


if __name__ == "__main__":
    main()
