"""A run whose keys are off their defaults, as data: `tests/keys/table.py` has a row for each of them, and
`tests/run/test_keys.py` holds what each does against it."""

from pathlib import Path
from typing import Any

from rezero_ray.models.tiny import make_tiny_llama
from tests.run.train_process import ROOT

TEMPLATE_WITH_THINKING = """
{%- for message in messages %}<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think></think>
{% endif %}{% endif %}"""
"""Of a model that thinks unless it is asked not to."""

CODE = """
import os
from pathlib import Path
import torch
from transformers import LlamaConfig, LlamaForCausalLM

title = Path("/proc/self/cmdline").read_bytes().split(b"\\0")[0].decode().partition(".")[0].replace("/", "_")
marks = Path(os.environ["KEYS_MARKS"])
(marks / (title or "unnamed")).touch()

class MarkedConfig(LlamaConfig):
    model_type = "llama"

class MarkedForCausalLM(LlamaForCausalLM):
    config_class = MarkedConfig

    def __init__(self, config):
        super().__init__(config)
        self.model.register_forward_pre_hook(lambda *_: note("model"))
        self.model.layers[0].register_forward_pre_hook(lambda *_: note("layer"))

def note(what):
    if torch.is_grad_enabled():
        with open(marks / "passes", "a") as file:
            file.write(f"{os.getpid()} {what}\\n")
"""
"""Code that ships with the model: leaves a file named after the process that runs it, and a line in `passes` for each
pass with gradients through the model and through its first layer."""


KINDS = 4
"""Of the tasks of the environment `keyed`: their numbers modulo this."""


def make_model(path: Path) -> Path:
    """A tiny Llama with code of its own and a template that knows `enable_thinking`."""
    import json

    make_tiny_llama(path, tokenizer_from=ROOT / "models/SmolLM2-135M-Instruct")
    (path / "chat_template.jinja").write_text(TEMPLATE_WITH_THINKING, "utf-8")
    (path / "marked.py").write_text(CODE, "utf-8")
    config = json.loads((path / "config.json").read_text("utf-8"))
    config["auto_map"] = {
        "AutoConfig": "marked.MarkedConfig",
        "AutoModelForCausalLM": "marked.MarkedForCausalLM",
    }
    (path / "config.json").write_text(json.dumps(config), "utf-8")
    return path


SYNCHRONOUS: dict[str, Any] = {
    "inference_gpu_ids": [0, 1],
    "trainer_gpu_ids": [2, 3],
    "max_steps": 2,
    "seq_len": 96,
    "device": "cpu",
    "seed": 11,
    "model.dtype": "float32",
    "wandb.project": "keys-project",
    "wandb.name": "keys-name",
    "wandb.offline": True,
    "mlflow.rollouts_per_step": 2,
    "ckpt.interval": 1,
    "trainer.micro_batch_tokens": 128,
    "trainer.share_prompts": False,
    "trainer.model.trust_remote_code": True,
    "trainer.model.gradient_checkpointing": False,
    "trainer.model.logits_chunk": 16,
    "trainer.model.lora.rank": 8,
    "trainer.model.lora.alpha": 24.0,
    "trainer.model.lora.target_modules": ["q_proj", "down_proj"],
    "trainer.optim.lr": 2e-3,
    "trainer.optim.weight_decay": 0.5,
    "trainer.optim.betas": [0.8, 0.95],
    "trainer.optim.max_grad_norm": 0.01,
    "trainer.optim.warmup_steps": 1,
    "trainer.optim.schedule": "linear",
    "trainer.optim.min_lr_ratio": 0.25,
    "trainer.loss.type": "grpo",
    "trainer.loss.kl_coef": 0.1,
    "trainer.loss.kl_estimator": "k2",
    "trainer.loss.tis_cap": 2.0,
    "trainer.loss.dual_clip": 3.0,
    "trainer.zero.param_persistence_threshold": 1000,
    "trainer.zero.prefetch_bucket_size": 10_000,
    "trainer.zero.max_live_parameters": 100_000,
    "orchestrator.batch_size": 4,
    "orchestrator.rollouts_per_example": 3,
    "orchestrator.filter_zero_advantage": True,
    "orchestrator.resample_budget": 0.5,
    "orchestrator.env_workers": 2,
    "orchestrator.sampling.max_tokens": 10,
    "orchestrator.sampling.temperature": 0.6,
    "orchestrator.sampling.thinking": False,
    "orchestrator.advantage.epsilon": 0.5,
    "orchestrator.env.0.id": "keyed",
    "orchestrator.env.0.name": "first",
    "orchestrator.env.0.args": {"turns": 9, "top": 3.0, "equal": [0, 1, 2], "fragile": [3]},
    "orchestrator.env.0.reward_errors": "zero",
    "orchestrator.env.0.weight": 3.0,
    "orchestrator.env.0.max_turns": 2,
    "orchestrator.env.0.reward_range": [0.0, 3.0],
    "orchestrator.env.1.id": "keyed",
    "orchestrator.env.1.args": {"turns": 9},
    "orchestrator.eval.interval": 2,
    "orchestrator.eval.num_examples": 3,
    "orchestrator.eval.rollouts_per_example": 2,
    "orchestrator.eval.pass_reward": 0.25,
    "inference.cpu_kv_cache_gib": 0.25,
    "inference.model.max_num_seqs": 8,
    "inference.model.enable_prefix_caching": False,
    "inference.model.max_num_batched_tokens": 320,
    "inference.parallel.dp": 2,
    "infra.num_cpus": 4,
    "infra.object_store_gib": 0.5,
    "infra.dashboard": False,
    "infra.usd_per_hour": 36.0,
}
"""Two engines, two ranks, two environments: what a synchronous run can show."""


def write_toml(keys: dict[str, Any], path: Path) -> Path:
    """The keys as a TOML file at `path`."""
    import tomli_w

    tables: dict[str, Any] = {}
    for key, value in keys.items():
        table, parts = tables, key.split(".")
        for part in parts[:-1]:
            table = table.setdefault(part, {})
        table[parts[-1]] = value
    environments = tables["orchestrator"]["env"]
    tables["orchestrator"]["env"] = [environments[number] for number in sorted(environments)]
    path.write_text(tomli_w.dumps(tables), "utf-8")
    return path
