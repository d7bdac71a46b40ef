"""Program: one step of a real learner for every option of every loss, and what the pure loss says of the same tokens.

    python -m tests.keys.loss_variants MODEL ADAPTER RESULT

Writes [{"loss", "grad_norm", "pure"}] for the plain table and the changed one of each variant. The engine's logprobs
are the learner's with noise on them, so that ratios reach every mask and clip.
"""

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.learning.fixed_step import config_of, groups_of

PENALTY = {"kl_coef": 0.1}

VARIANTS: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
    ("importance_sampling", {}, {"token_mask_low": 0.7}),
    ("importance_sampling", {}, {"token_mask_high": 1.4}),
    ("importance_sampling", {}, {"geo_mask_low": 0.97}),
    ("importance_sampling", {}, {"geo_mask_high": 1.03}),
    ("importance_sampling", {}, {"sequence_mask_low": 0.5}),
    ("importance_sampling", {}, {"sequence_mask_high": 1.8}),
    ("grpo", {}, {"clip_low": 0.05}),
    ("grpo", {}, {"clip_high": 0.05}),
    ("grpo", {}, {"tis_cap": 1.2}),
    ("grpo", {}, {"dual_clip": 1.3}),
    ("grpo", {}, PENALTY),
    ("grpo", PENALTY, PENALTY | {"kl_estimator": "k1"}),
    ("dapo", {}, {"clip_low": 0.05}),
    ("dapo", {}, {"clip_high": 0.05}),
    ("dr_grpo", {}, {"clip_low": 0.05}),
    ("dr_grpo", {}, {"constant_length": 100}),
    ("gspo", {}, {"clip_low": 0.2}),
    ("gspo", {}, {"clip_high": 0.2}),
    ("cispo", {}, {"ratio_max": 1.2}),
    ("sapo", {}, {"tau_pos": 3.0}),
    ("sapo", {}, {"tau_neg": 3.0}),
)
"""Type, the options that both tables have, and those of the second with the one that is looked at."""


def changed(plain: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """What the second table has besides the first."""
    return {key: value for key, value in options.items() if plain.get(key) != value}


def main() -> None:
    from actors.deepspeed_learner import DeepSpeedLearner, loss_options
    from actors.rendezvous import join, open_store
    from rezero_ray.batch import build_batch, micro_batches, single_sequence

    model, adapter, result = sys.argv[1:]
    store = open_store("127.0.0.1")
    join("127.0.0.1", store.port, rank=0, world_size=1)
    learner = DeepSpeedLearner(config_of(model, "grpo"), "cpu", 1)
    state = np.fromfile(Path(adapter, "state"), dtype=np.uint8)
    learner.load_state(state)
    noise = random.Random(1)
    groups = groups_of(
        lambda ids: [value + noise.uniform(-0.8, 0.8) for value in learner.logprobs(single_sequence(ids))]
    )

    def step(kind: str, options: dict[str, Any]) -> dict[str, float]:
        loss = {f"trainer__loss__{key}": value for key, value in options.items()}
        config = config_of(model, kind, trainer__micro_batch_tokens=64, **loss)
        learner.load_state(state)
        learner.use_loss(config)
        batch = build_batch(groups, config, ranks=1)
        work = micro_batches(batch.trees[0])
        pure = pure_loss(loss_options(config), work, batch.normalizers, learner)
        report = learner.step(work, batch.normalizers, 1)
        return {"loss": report.loss, "grad_norm": report.grad_norm, "pure": pure}

    found = [[step(kind, plain), step(kind, options)] for kind, plain, options in VARIANTS]
    Path(result).write_text(json.dumps(found))


def pure_loss(options: Any, work: Any, normalizers: dict[str, int], learner: Any) -> float:
    """Of all micro-batches, from logprobs that the learner gives for them."""
    import torch

    from rezero_ray.losses import build_loss

    loss, total = build_loss(options), 0.0
    for batch in work:
        own = torch.tensor(learner.logprobs(batch))
        arrays = (batch.inference_logprobs, batch.advantages, batch.loss_mask, batch.sequence_ids)
        output = loss(
            own,
            *map(torch.as_tensor, arrays),
            normalizer=float(normalizers[loss.normalizer_unit]),
            old_logprobs_T=own if options.tis_cap is not None else None,
            reference_logprobs_T=torch.tensor(learner.logprobs(batch, use_adapter=False))
            if options.kl_coef
            else None,
        )
        total += float(output.loss)
    return total


if __name__ == "__main__":
    main()
