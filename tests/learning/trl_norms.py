"""Program: gradient norms that TRL's `GRPOTrainer` logs for the fixed step.

    python -m tests.learning.trl_norms MODEL ADAPTER RESULT

Writes {loss: norm}. All but the sampling of completions is TRL's: advantages, padding, logprobs, loss, norm.
"""

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from tests.learning.fixed_step import (
    COMPLETION_IDS,
    COMPLETIONS,
    LOSSES,
    MAX_TOKENS,
    PROMPT_IDS,
    REWARDS,
    UNCLIPPED,
)


class ReplayTrainer(GRPOTrainer):
    """`GRPOTrainer` on completions that are given: a prompt is the number of its row, as text."""

    def _generate_single_turn(
        self, prompts: list[str]
    ) -> tuple[list[list[int]], list[list[int]], None, dict]:
        seen: Counter[str] = Counter()
        completions = []
        for prompt in prompts:
            completions.append(COMPLETION_IDS[int(prompt)][seen[prompt]])
            seen[prompt] += 1
        return [PROMPT_IDS[int(prompt)] for prompt in prompts], completions, None, {}


def fixed_reward(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [
        REWARDS[int(prompt)][COMPLETION_IDS[int(prompt)].index(list(ids))]
        for prompt, ids in zip(prompts, completion_ids, strict=True)
    ]


def norm(loss: str, model: str, adapter: str, folder: str) -> float:
    """One step on all rollouts at once, as one micro-batch; the norm before clipping."""
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    trainer = ReplayTrainer(
        model=PeftModel.from_pretrained(base, adapter, is_trainable=True),
        reward_funcs=fixed_reward,
        args=GRPOConfig(
            output_dir=folder,
            loss_type=loss,
            max_steps=1,
            per_device_train_batch_size=len(PROMPT_IDS) * COMPLETIONS,
            num_generations=COMPLETIONS,
            max_completion_length=MAX_TOKENS,
            max_grad_norm=UNCLIPPED,
            temperature=1.0,
            beta=0.0,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            logging_steps=1,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list([{"prompt": str(number)} for number in range(len(PROMPT_IDS))]),
        processing_class=AutoTokenizer.from_pretrained(model),
    )
    trainer.train()
    return float(next(row["grad_norm"] for row in trainer.state.log_history if "grad_norm" in row))


def main() -> None:
    model, adapter, result = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        found = {loss: norm(loss, model, adapter, folder) for loss in LOSSES}
    Path(result).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
