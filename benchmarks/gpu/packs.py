"""The two loads of the trial: many short one-turn rollouts, and a few long conversations."""

import numpy as np

from rezero_ray.batch import Branch, Tree, micro_batches
from rezero_ray.records import MicroBatch


def short_pack(vocabulary: int, *, trees: int = 20, prompt: int = 400, seed: int = 0) -> MicroBatch:
    """Trees of one prompt and four completions of about a quarter of its length: 16,000 tokens by default."""
    random = np.random.default_rng(seed)
    return _pack(
        random,
        vocabulary,
        [(prompt, random.integers(prompt // 5, 3 * prompt // 10, 4)) for _ in range(trees)],
    )


def long_pack(
    vocabulary: int, *, trees: int = 2, prompt: int = 200, turns: int = 1500, seed: int = 0
) -> MicroBatch:
    """Trees of one prompt and four conversations: 12,400 tokens in ten segments by default."""
    random = np.random.default_rng(seed)
    return _pack(
        random, vocabulary, [(prompt, random.integers(turns - 99, turns + 99, 4)) for _ in range(trees)]
    )


def _pack(random: np.random.Generator, vocabulary: int, shapes: list[tuple[int, np.ndarray]]) -> MicroBatch:
    number, packed = 0, []
    for prompt, lengths in shapes:
        branches = []
        for length in lengths:
            branches.append(
                Branch(
                    number=number,
                    advantage=float(random.normal()),
                    token_ids=random.integers(10, vocabulary, length).astype(np.int32),
                    logprobs=np.full(length, -1.0, dtype=np.float32),
                    loss_mask=np.ones(length, dtype=np.uint8),
                )
            )
            number += 1
        packed.append(
            Tree(prompt=random.integers(10, vocabulary, prompt).astype(np.int32), branches=branches)
        )
    (micro_batch,) = micro_batches([packed])
    return micro_batch
