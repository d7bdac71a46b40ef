"""The resolved config as TOML, and the id of what it computes."""

import hashlib
import json
from typing import Any

import tomli_w

from rezero_ray.config.schema import Config

_NOT_SCIENCE = {
    *("output_dir", "max_steps", "device", "inference_gpu_ids", "trainer_gpu_ids"),
    *("wandb", "mlflow", "ckpt", "limits", "infra", "trust", "serve", "budget"),
}


def dump_toml(config: Config) -> str:
    """Every key with its value, defaults included; `load_config` of it gives an equal config.

    An environment's `name` that its id gives is left out, so that a file that is edited keeps one identity.
    """
    table = _names_left_out(config.model_dump(mode="python", exclude_none=True))
    return tomli_w.dumps(table, multiline_strings=False)


def _names_left_out(table: dict[str, Any]) -> dict[str, Any]:
    """A dumped config without the environment names that are the ids."""
    for env in table["orchestrator"]["env"]:
        if env["name"] == env["id"]:
            del env["name"]
    return table


def config_id(config: Config) -> str:
    """Twelve hex digits over what changes the result of training.

    Left out, because another value computes the same policy (up to rounding): where the run writes and
    reports (output_dir, wandb, mlflow, ckpt); how long it goes on (budget, and max_steps, which stays in where a
    schedule decays towards it); where it runs and how its work is split (device, GPU ids, infra, the engine's
    parallelism and memory, trainer.zero, micro_batch_tokens, env_workers); what only watches it (limits,
    trust, orchestrator.eval) or comes after it (serve).
    """
    science = _names_left_out(config.model_dump(mode="json", exclude=_NOT_SCIENCE))
    if config.trainer.optim.schedule != "constant":
        science["max_steps"] = config.max_steps
    del (
        science["trainer"]["zero"],
        science["trainer"]["micro_batch_tokens"],
        science["trainer"]["share_prompts"],
    )
    for key in ("gradient_checkpointing", "logits_chunk"):
        del science["trainer"]["model"][key]
    del science["orchestrator"]["env_workers"], science["orchestrator"]["eval"]
    inference = science.pop("inference")
    science["max_model_len"] = inference["model"]["max_model_len"] or config.seq_len
    science["tool_call_parser"] = inference["model"]["tool_call_parser"]
    text = json.dumps(science, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
