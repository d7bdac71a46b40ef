"""Stage 3: vLLM beside the learner: the whole main job on one shared GPU, and what the engine does by itself.

    python -m benchmarks.gpu.stage3_engine --device cuda --out stage3.json --tokenizer FOLDER
    python -m benchmarks.gpu.stage3_engine --device cpu --small --out stage3.json

On top of stage 2 it needs vLLM, Ray and verifiers. Models are random: a tiny GLM-4.7-Flash with the attention sizes
of the real one, and a dense model of 1.5 billion parameters. On a CPU, where vLLM runs no experts under LoRA, a tiny
Llama takes the place of both.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu.engine_runs import publishing, quantized, routes, throughput
from benchmarks.gpu.model_folder import add_tokenizer, fast_folder, write_model
from benchmarks.gpu.trial import Rows, Trial, arguments
from rezero_ray.config.loading import load_config
from rezero_ray.config.schema import Config

ROOT = Path(__file__).parents[2]
TOKENIZER = ROOT / "models/SmolLM2-135M-Instruct"
VOCABULARY = {"vocab_size": 49_152, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
"""SmolLM2's, because the tokenizer is."""

PER_STEP = ("mismatch_kl", "grad_norm", "time/step", "time/rollout", "time/train", "time/sync")


class Stage:
    """Configurations of the trial's runs, and their models, each made when it is first asked for."""

    def __init__(self, trial: Trial, folder: Path, tokenizer: Path) -> None:
        self.trial, self.folder, self._tokenizer = trial, folder, tokenizer

    def model(self, name: str) -> Path:
        """`glm` or `dense`."""
        name = "llama" if self.trial.small else name
        path = self.folder / name
        if not path.exists():
            write_model(_CONFIGS[name](), path, self.trial.device)
            add_tokenizer(path, self._tokenizer)
        return path

    def flags(self, name: str) -> tuple[list[Path], list[str]]:
        """TOML files and flags of a run of `phishing-detection` on a model."""
        overlay = "cpu" if self.trial.small else "local-1gpu"
        glm = name == "glm" and not self.trial.small
        targets = ["q_b_proj", "o_proj"] if glm else ["q_proj", "v_proj", "o_proj"]
        own: dict[str, Any] = {
            "model.name": self.model(name),
            "model.dtype": "float32" if self.trial.small else "bfloat16",
            "trainer_gpu_ids": "[0]",
            "max_steps": 2 if self.trial.small else 4,
            "seq_len": 1024,
            "inference.model.max_model_len": 1024,
            "inference.model.enable_auto_tool_choice": "false",
            "trainer.micro_batch_tokens": 4096,
            "trainer.model.lora.target_modules": json.dumps(targets),
            "trainer.optim.lr": 1e-3,  # the policy has to move, so that a stale adapter would show
            "orchestrator.batch_size": 2 if self.trial.small else 16,
            "orchestrator.rollouts_per_example": 4,
            "orchestrator.max_async_level": 0,
            "orchestrator.sampling.max_tokens": 16 if self.trial.small else 128,
            "mlflow.enabled": "false",
            "infra.dashboard": "false",
            "output_dir": self.folder / f"run-{name}",
        }
        written = [part for key, value in own.items() for part in (f"--{key}", str(value))]
        return [ROOT / "configs/phishing.toml", ROOT / f"configs/overlays/{overlay}.toml"], written

    def config(self, name: str) -> Config:
        return load_config(*self.flags(name))


def main_job(stage: Stage) -> Rows:
    """`python -m rezero_ray.train` on one shared GPU: canary, rollouts, training, publication, checkpoint."""
    files, flags = stage.flags("glm")
    seconds = max(30.0, stage.trial.seconds_left - (10 if stage.trial.small else 60))
    command = [sys.executable, "-u", "-m", "rezero_ray.train", *map(str, files), *flags]
    output, log = stage.folder / "run-glm", Path(stage.trial.result["log"])
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, start_new_session=True)
        try:
            status = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    rows: Rows = [{"step": "all", "exit status": status}]
    metrics = output / "metrics.jsonl"
    for line in metrics.read_text().splitlines() if metrics.exists() else []:
        found = json.loads(line)
        rows.append({"step": found["step"], **{key: found.get(key) for key in PER_STEP}})
    if status != 0:
        text = log.read_text(errors="replace")
        what = f"within {seconds:.0f} s" if status is None else f"with {status}"
        raise RuntimeError(f"the main job did not end well {what}; rows: {rows}\n{text[-4000:]}")
    return rows


def _glm() -> Any:
    """The attention sizes are the real ones, which vLLM's MLA kernels are made for."""
    from transformers import Glm4MoeLiteConfig

    return Glm4MoeLiteConfig(
        **VOCABULARY,
        hidden_size=512,
        intermediate_size=1024,
        moe_intermediate_size=256,
        num_hidden_layers=3,
        n_routed_experts=16,
        initializer_range=512**-0.5,
        max_position_embeddings=4096,
    )


def _dense() -> Any:
    """Shapes of Qwen2.5-1.5B, with Qwen3's attention."""
    from transformers import Qwen3Config

    return Qwen3Config(
        **VOCABULARY,
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        head_dim=128,
        max_position_embeddings=4096,
    )


def _llama() -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        **VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,  # the least that vLLM's CPU attention has a kernel for
        initializer_range=0.125,
        max_position_embeddings=2048,
    )


_CONFIGS: dict[str, Callable[[], Any]] = {"glm": _glm, "dense": _dense, "llama": _llama}


def _publishing(stage: Stage) -> Rows:
    return publishing(stage.config("glm"), stage.trial.device.type)


def _quantized(stage: Stage) -> Rows:
    if stage.trial.small:
        return [{"weights": "fp8 needs a GPU"}]
    return quantized(stage.config("glm"), stage.trial.device.type)


def _routes(stage: Stage) -> Rows:
    if stage.trial.small:
        return [{"request": "routes need experts under LoRA, which vLLM has on GPUs"}]
    return routes(stage.config("glm"), stage.trial.device.type)


def _throughput(stage: Stage) -> Rows:
    prompts, tokens = (2, 8) if stage.trial.small else (64, 256)
    return throughput(stage.config("dense"), stage.trial.device.type, prompts=prompts, tokens=tokens)


STAGES: tuple[tuple[str, Callable[[Stage], Rows], float], ...] = (
    ("main_job", main_job, 60.0),
    ("publishing", _publishing, 40.0),
    ("quantized", _quantized, 60.0),
    ("routes", _routes, 40.0),
    ("throughput", _throughput, 50.0),
)


def main() -> int:
    import faulthandler

    options = arguments(
        __doc__ or "", more=lambda parser: parser.add_argument("--tokenizer", type=Path, default=TOKENIZER)
    )
    faulthandler.dump_traceback_later(options.seconds + 30, exit=True)
    os.environ.setdefault("VLLM_USE_DEEP_GEMM", "0")  # it compiles its kernels at first use
    trial = Trial("stage3_engine", options)
    trial.result["log"] = str(Path(options.out).with_suffix(".log"))
    with tempfile.TemporaryDirectory(prefix="rezero-trial-", dir=fast_folder(trial.device)) as folder:
        stage = Stage(trial, Path(folder), options.tokenizer)
        for name, measure, needed in STAGES:
            trial.section(name, partial(_on, stage, measure), 0.0 if trial.small else needed)
    print(f"\n{len(trial.failed)} sections failed: {', '.join(trial.failed) or 'none'}", flush=True)
    return 1 if trial.failed else 0


def _on(stage: Stage, measure: Callable[[Stage], Rows], _: Trial) -> Rows:
    return measure(stage)


if __name__ == "__main__":
    sys.exit(main())
