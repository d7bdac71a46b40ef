"""The canary on a tiny MLA model: what vLLM applies passes, what it ignores stops the run."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from rezero_ray.models import smollm2
from rezero_ray.models.tiny import make_tiny_deepseek_v3

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
TOKENIZER = ROOT / smollm2.DEFAULT_OUTPUT

PAST_THE_PREFLIGHT = """
import sys
from pathlib import Path
from rezero_ray.config import load_config
from rezero_ray.run import run_training
if __name__ == "__main__":
    files = [Path("configs/phishing.toml"), Path("configs/overlays/cpu.toml")]
    sys.exit(run_training(load_config(files, sys.argv[1:]), resume=False))
"""


@pytest.fixture(scope="module")
def tiny_mla_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_deepseek_v3(tmp_path_factory.mktemp("models") / "tiny-mla", tokenizer_from=TOKENIZER)


def arguments(model: Path, output: Path, modules: list[str]) -> list[str]:
    return [
        *(
            "--model.name",
            str(model),
            "--output_dir",
            str(output),
            "--max_steps",
            "1",
            "--mlflow.enabled",
            "false",
        ),
        *("--trainer.model.lora.target_modules", json.dumps(modules), "--trainer_gpu_ids", "[1]"),
        *("--orchestrator.batch_size", "1", "--orchestrator.rollouts_per_example", "4"),
        *("--orchestrator.sampling.max_tokens", "8"),
    ]


@dataclass
class Ended:
    """A run that has ended."""

    output: Path
    status: int
    text: str


@pytest.fixture(scope="module")
def ended(tiny_mla_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """A run that trains q_b_proj and o_proj, and one that trains kv_b_proj, side by side."""
    folder = tmp_path_factory.mktemp("canary")
    script = folder / "run.py"
    script.write_text(PAST_THE_PREFLIGHT, "utf-8")
    started = {}
    for name, modules in {"right": ["q_b_proj", "o_proj"], "wrong": ["kv_b_proj"]}.items():
        started[name] = subprocess.Popen(
            [sys.executable, str(script), *arguments(tiny_mla_model, folder / name, modules)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        texts = {name: process.communicate(timeout=500)[0] for name, process in started.items()}
    finally:
        for process in started.values():
            process.kill()
    return {name: Ended(folder / name, process.returncode, texts[name]) for name, process in started.items()}


def test_q_b_proj_and_o_proj_pass_and_the_step_is_trained(ended: dict[str, Ended]) -> None:
    done = ended["right"]
    assert done.status == 0, done.text
    assert "canary q_b_proj: engine moved" in done.text
    assert "canary o_proj: engine moved" in done.text
    row = json.loads((done.output / "metrics.jsonl").read_text("utf-8"))
    assert 0 <= row["mismatch_kl"] < 1e-3


def test_kv_b_proj_past_the_preflight_is_stopped_by_the_canary(ended: dict[str, Ended]) -> None:
    refused = ended["wrong"]
    assert refused.status == 1
    assert "canary: the engine ignores the adapter on 'kv_b_proj'" in refused.text
    assert not (refused.output / "metrics.jsonl").read_text("utf-8")


def test_kv_b_proj_is_refused_by_the_preflight(tiny_mla_model: Path, tmp_path: Path) -> None:
    files = ["configs/phishing.toml", "configs/overlays/cpu.toml"]
    refused = subprocess.run(
        [
            *(sys.executable, "-m", "rezero_ray.train", *files),
            *arguments(tiny_mla_model, tmp_path / "run", ["q_b_proj", "kv_b_proj"]),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert refused.returncode == 2
    assert "kv_b_proj" in refused.stderr
    assert "merged" in refused.stderr
    assert not (tmp_path / "run").exists()
