"""The canary on a tiny MLA model: what vLLM applies passes, what it ignores stops the run."""

import json
import os
import subprocess
import sys
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


def run(script: Path, *args: str) -> subprocess.CompletedProcess[str]:
    script.write_text(PAST_THE_PREFLIGHT, "utf-8")
    return subprocess.run(
        [sys.executable, str(script), *args],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def test_q_b_proj_and_o_proj_pass_and_the_step_is_trained(tiny_mla_model: Path, tmp_path: Path) -> None:
    done = run(tmp_path / "run.py", *arguments(tiny_mla_model, tmp_path / "run", ["q_b_proj", "o_proj"]))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "canary q_b_proj: engine moved" in done.stdout
    assert "canary o_proj: engine moved" in done.stdout
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text("utf-8"))
    assert 0 <= row["mismatch_kl"] < 1e-3


def test_kv_b_proj_past_the_preflight_is_stopped_by_the_canary(tiny_mla_model: Path, tmp_path: Path) -> None:
    refused = run(tmp_path / "run.py", *arguments(tiny_mla_model, tmp_path / "run", ["kv_b_proj"]))
    assert refused.returncode == 1
    assert "canary: the engine ignores the adapter on 'kv_b_proj'" in refused.stdout
    assert not (tmp_path / "run" / "metrics.jsonl").read_text("utf-8")


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
