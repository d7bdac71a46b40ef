"""Which keys may change between a run's recorded config and a resume: one row a key, or a table whose keys are alike.

`docs/resuming.md` is generated from it. The comparison itself is in `rezero_ray.config.resume_changes`.
"""

import re
from dataclasses import dataclass
from enum import Enum
from functools import cache


class Verdict(Enum):
    """What a change of a key means for a run that resumes. The value is what the documentation says."""

    FREE = "may change"
    NOTED = "may change, with a note"
    AGAIN = "may change, with a note; rollouts that wait to be trained on are made again"
    FIXED = "may not change"


@dataclass(frozen=True)
class Row:
    """`*` in a key stands for the index of an array; `.*` at its end for every key of that table and the table
    itself."""

    keys: tuple[str, ...]
    verdict: Verdict
    reason: str


def _row(keys: str, verdict: Verdict, reason: str) -> Row:
    return Row(tuple(keys.split()), verdict, reason)


_ENV = "orchestrator.env.*"
_SPLIT = "It splits the same work in another way; the result is equal up to rounding."
_WATCH = "It watches the run or reports on it; the policy does not depend on it."
_OPTIMIZER = "The optimizer's state has no part of it; it applies from the next step on."
_ORDER = "It seeds the order of the prompts, which the checkpoint's position counts in."
_BASE = "The adapter is the difference from these weights."
_ADAPTER = "The checkpoint's adapter and optimizer state have this shape or scale."
_TASKS = "The checkpoint counts the prompts of this environment that were used."
_TRAINED_AS_RECORDED = "Rollouts that were made before keep their ids, logprobs and rewards."

ROWS = (
    _row("output_dir", Verdict.FREE, "A run directory may be moved."),
    _row(
        "max_steps",
        Verdict.NOTED,
        "The run becomes longer or shorter; a schedule that decays follows the new value.",
    ),
    _row("inference_gpu_ids trainer_gpu_ids device", Verdict.FREE, _SPLIT),
    _row("seed", Verdict.FIXED, _ORDER),
    _row("seq_len", Verdict.AGAIN, "Rollouts that wait may be longer than a micro-batch then."),
    _row("model.name", Verdict.FIXED, f"{_BASE} The same files under another path are the same model."),
    _row("model.dtype", Verdict.FIXED, f"{_BASE} In another precision they are others."),
    _row("wandb.* mlflow.*", Verdict.FREE, _WATCH),
    _row("ckpt.interval ckpt.keep_last ckpt.resume", Verdict.FREE, "It says when checkpoints are written."),
    _row(
        "trainer.model.trust_remote_code inference.model.trust_remote_code",
        Verdict.NOTED,
        "Other code may compute the same model.",
    ),
    _row(
        "trainer.model.gradient_checkpointing trainer.model.logits_chunk trainer.zero.* "
        "trainer.micro_batch_tokens trainer.share_prompts",
        Verdict.FREE,
        _SPLIT,
    ),
    _row(
        "trainer.model.lora.rank trainer.model.lora.alpha trainer.model.lora.target_modules",
        Verdict.FIXED,
        _ADAPTER,
    ),
    _row(
        "trainer.optim.lr trainer.optim.weight_decay trainer.optim.betas trainer.optim.max_grad_norm "
        "trainer.optim.warmup_steps trainer.optim.schedule trainer.optim.min_lr_ratio",
        Verdict.NOTED,
        _OPTIMIZER,
    ),
    _row("trainer.loss.*", Verdict.NOTED, "A loss has no state; it applies from the next step on."),
    _row(
        "orchestrator.batch_size orchestrator.max_async_level orchestrator.stale "
        "orchestrator.filter_zero_advantage orchestrator.resample_budget",
        Verdict.NOTED,
        "The schedule takes over; groups that it finds too old, or too many, are made again.",
    ),
    _row("orchestrator.env_workers", Verdict.FREE, _SPLIT),
    _row("orchestrator.rollouts_per_example", Verdict.AGAIN, "A step has groups of one size."),
    _row("orchestrator.sampling.max_tokens", Verdict.NOTED, _TRAINED_AS_RECORDED),
    _row(
        "orchestrator.sampling.temperature",
        Verdict.AGAIN,
        "The learner compares its logprobs with the engine's at one temperature.",
    ),
    _row("orchestrator.sampling.thinking", Verdict.NOTED, _TRAINED_AS_RECORDED),
    _row(
        "orchestrator.advantage.normalize orchestrator.advantage.epsilon",
        Verdict.NOTED,
        "Advantages are computed at the step.",
    ),
    _row("orchestrator.env", Verdict.FIXED, "No environment may be added, removed or renamed: " + _TASKS),
    _row(f"{_ENV}.id {_ENV}.name {_ENV}.args.*", Verdict.FIXED, _TASKS),
    _row(
        f"{_ENV}.weight",
        Verdict.NOTED,
        "The position within each environment is kept; the shares of later prompts change.",
    ),
    _row(
        f"{_ENV}.timeout {_ENV}.rollout_timeout {_ENV}.tool_timeout {_ENV}.score_timeout",
        Verdict.FREE,
        "It bounds a wait.",
    ),
    _row(f"{_ENV}.max_turns {_ENV}.dict_messages", Verdict.NOTED, _TRAINED_AS_RECORDED),
    _row(
        f"{_ENV}.requirements {_ENV}.python",
        Verdict.NOTED,
        "The environment's code may be another then. Its number of tasks must stay.",
    ),
    _row(f"{_ENV}.reward_errors", Verdict.NOTED, _TRAINED_AS_RECORDED),
    _row(f"{_ENV}.raw_reward_range {_ENV}.reward_range", Verdict.AGAIN, "Rewards may be on another scale."),
    _row("orchestrator.eval.*", Verdict.FREE, _WATCH),
    _row(
        "inference.gpu_memory_utilization inference.cpu_kv_cache_gib inference.parallel.* "
        "inference.model.enforce_eager inference.model.max_num_seqs inference.model.enable_prefix_caching "
        "inference.model.max_num_batched_tokens",
        Verdict.FREE,
        _SPLIT,
    ),
    _row(
        "inference.model.enable_auto_tool_choice inference.model.tool_call_parser inference.model.max_model_len",
        Verdict.NOTED,
        _TRAINED_AS_RECORDED,
    ),
    _row("weight_sync.mode", Verdict.NOTED, "The engine gets the same weights on another way."),
    _row("trust.* limits.* faults.*", Verdict.FREE, "It says when the run stops, waits or tries again."),
    _row("budget.*", Verdict.FREE, "The run's earlier attempts count under the new limit."),
    _row("infra.*", Verdict.FREE, "A run may move to another place."),
    _row("serve.*", Verdict.FREE, "Training does not read it."),
)


def row_of(key: str) -> Row:
    """The row of a dotted key, the one that names it before the one that names its table.

    Raises:
        KeyError: the table has none.
    """
    pattern = re.sub(r"\.\d+(?=\.|$)", ".*", key)
    exact, tables = _rows_by_key()
    parts = pattern.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        if length == len(parts) and name in exact:
            return exact[name]
        if name in tables:
            return tables[name]
    raise KeyError(f"{key} has no row in rezero_ray/config/resume_table.py: add one")


@cache
def _rows_by_key() -> tuple[dict[str, Row], dict[str, Row]]:
    """Rows of single keys, and of whole tables without the `.*`."""
    named = {key: row for row in ROWS for key in row.keys}
    tables = {key[:-2]: row for key, row in named.items() if key.endswith(".*")}
    return {key: row for key, row in named.items() if not key.endswith(".*")}, tables
