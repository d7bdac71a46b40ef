"""The load that all benchmarks share: 8 prompts x 8 completions x 64 tokens of SmolLM2-135M on a CPU.

Every completion has exactly 64 tokens, in every program that is measured: they read the model from a folder
whose declared end token is one that the model never writes. The weights are those of the model, hard-linked.
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fixed_prompts import ENVIRONMENT_ID

from rezero_ray.config import Config
from rezero_ray.config.loading import load_config
from rezero_ray.models.smollm2 import DEFAULT_OUTPUT, ensure_smollm2

ROOT = Path(__file__).parents[1]
MODEL = ROOT / DEFAULT_OUTPUT
RECIPES = (ROOT / "configs/phishing.toml", ROOT / "configs/overlays/cpu.toml")

PROMPTS, COMPLETIONS, TOKENS = 8, 8, 64

NEVER_WRITTEN = ("<empty_output>", 16)
"""A token of SmolLM2's vocabulary that stands for empty notebook cells in its pre-training data."""


def benchmark_config(overrides: Sequence[str] = (), *, output: str = "runs/benchmark") -> Config:
    """The phishing recipe on the CPU, with the benchmarks' model, environment and load; overrides win."""
    ours = {
        "model.name": str(endless_model()),
        "output_dir": output,
        "mlflow.enabled": "false",
        "orchestrator.batch_size": str(PROMPTS),
        "orchestrator.rollouts_per_example": str(COMPLETIONS),
        "orchestrator.sampling.max_tokens": str(TOKENS),
        "orchestrator.env.0.id": ENVIRONMENT_ID,
    }
    flags = [part for key, value in ours.items() for part in (f"--{key}", value)]
    return load_config(RECIPES, [*flags, *overrides])


def endless_model() -> Path:
    """The folder of the model that never ends a completion; made at the first call."""
    folder = MODEL.with_name(f"{MODEL.name}-endless")
    if folder.is_dir():
        return folder
    source = ensure_smollm2(MODEL)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.copytree(source, partial, copy_function=_link)
    token, number = NEVER_WRITTEN
    for name in ("config.json", "generation_config.json"):
        _change(partial / name, eos_token_id=number)
    _change(partial / "tokenizer_config.json", eos_token=token)
    partial.rename(folder)
    return folder


def _link(source: str, target: str) -> None:
    """Hard-link the weights where the file system can; copy everything else, which may be changed."""
    try:
        if source.endswith(".safetensors"):
            os.link(source, target)
            return
    except OSError:
        pass
    shutil.copyfile(source, target)


def _change(file: Path, **fields: Any) -> None:
    if file.exists():
        file.write_text(json.dumps(json.loads(file.read_text()) | fields, indent=2) + "\n")
