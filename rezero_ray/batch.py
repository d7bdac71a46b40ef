"""From scored groups to packed micro-batches: advantages, prompt sharing, padding. Pure code, no torch modules.

A *tree* is a prompt and the completions of its group that are packed with it. Completions attend to their own
tree's prompt alone, so packing changes nothing of the result.
"""

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from rezero_ray.advantages import group_advantages
from rezero_ray.config.schema import Config
from rezero_ray.packing import pack
from rezero_ray.records import Array, Group, MicroBatch, Rollout


class TrainingBatch(msgspec.Struct, frozen=True):
    """One optimizer step's work.

    Attributes:
        micro_batches: [rank][round]; every rank has the same number of rounds.
        normalizers: trained `tokens` and `sequences` of the whole step, those left out of the computation included.
        advantages: of each rollout of each group.
        computed_sequences: sequences that are computed; those whose advantage is zero have no gradient.
    """

    micro_batches: list[list[MicroBatch]]
    normalizers: dict[str, int]
    advantages: list[list[float]]
    computed_sequences: int


class Tree(msgspec.Struct, frozen=True):
    """A shared prompt of `prefix` tokens and the rollouts (number, rollout, advantage) behind it."""

    prefix: int
    branches: list[tuple[int, Rollout, float]]

    def begins(self, rollout: Rollout) -> bool:
        """Whether the rollout has this tree's prompt. An environment may vary the prompt within a group."""
        first = self.branches[0][1]
        return first.token_ids[: self.prefix] == rollout.token_ids[: rollout.prompt_length]

    @property
    def tokens(self) -> int:
        return self.prefix + sum(len(rollout.token_ids) - self.prefix for _, rollout, _ in self.branches)


def build_batch(groups: Sequence[Group], config: Config, *, ranks: int) -> TrainingBatch:
    """Pack the rollouts of a step for `ranks` learner ranks."""
    options = config.orchestrator.advantage
    advantages = [
        group_advantages(
            [rollout.reward for rollout in group.rollouts],
            normalize=options.normalize,
            epsilon=options.epsilon,
        ).tolist()
        for group in groups
    ]
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    normalizers = {
        "tokens": sum(sum(rollout.loss_mask) for rollout in rollouts),
        "sequences": sum(any(rollout.loss_mask) for rollout in rollouts),
    }
    trees = _trees(groups, advantages, config, ranks)
    limit = config.trainer.micro_batch_tokens or config.seq_len
    plan = pack([tree.tokens for tree in trees], ranks=ranks, max_tokens=limit)
    rounds = plan.micro_batches if plan.rounds else [[()] for _ in range(ranks)]
    return TrainingBatch(
        micro_batches=[[_micro_batch([trees[i] for i in items]) for items in rank] for rank in rounds],
        normalizers=normalizers,
        advantages=advantages,
        computed_sequences=sum(len(tree.branches) for tree in trees),
    )


def _trees(
    groups: Sequence[Group], advantages: Sequence[Sequence[float]], config: Config, ranks: int
) -> list[Tree]:
    """Cut the groups into trees that fit a micro-batch and are small enough to spread over the ranks."""
    skip_zero = config.trainer.loss.kl_coef == 0 and any(a != 0 for group in advantages for a in group)
    limit = config.trainer.micro_batch_tokens or config.seq_len
    shared = config.trainer.share_prompts
    branches: list[list[tuple[int, Rollout, float]]] = []
    number = 0
    for group, group_advantage in zip(groups, advantages, strict=True):
        branches.append([])
        for rollout, advantage in zip(group.rollouts, group_advantage, strict=True):
            if any(rollout.loss_mask) and not (skip_zero and advantage == 0):
                branches[-1].append((number, rollout, advantage))
            number += 1
    total = sum(len(rollout.token_ids) for group in branches for _, rollout, _ in group)
    target = min(limit, max(1, math.ceil(total / ranks)))
    return [tree for group in branches for tree in _group_trees(group, target if shared else 0)]


def _group_trees(branches: list[tuple[int, Rollout, float]], target: int) -> list[Tree]:
    trees: list[Tree] = []
    for number, rollout, advantage in branches:
        tail = len(rollout.token_ids) - rollout.prompt_length
        if trees and trees[-1].tokens + tail <= target and trees[-1].begins(rollout):
            trees[-1].branches.append((number, rollout, advantage))
        else:
            trees.append(Tree(prefix=rollout.prompt_length, branches=[(number, rollout, advantage)]))
    return trees


def _micro_batch(trees: Sequence[Tree]) -> MicroBatch:
    if not trees:
        return padding_micro_batch()
    tokens, positions, sources, targets = _Column(), _Column(), _Column(), _Column()
    logprobs, advantages, numbers = _Column(np.float32), _Column(np.float32), _Column()
    segments: list[tuple[int, int, int, int]] = []
    for tree in trees:
        prompt_start, prompt_end = tokens.length, tokens.length + tree.prefix
        tokens.add(tree.branches[0][1].token_ids[: tree.prefix])
        positions.add(np.arange(tree.prefix))
        segments.append((prompt_start, prompt_end, prompt_start, prompt_start))
        for number, rollout, advantage in tree.branches:
            start, tail = tokens.length, np.asarray(rollout.token_ids[tree.prefix :], dtype=np.int64)
            segments.append((start, start + len(tail), prompt_start, prompt_end))
            tokens.add(tail)
            positions.add(np.arange(tree.prefix, tree.prefix + len(tail)))
            trained = np.flatnonzero(rollout.loss_mask[tree.prefix :])
            sources.add(np.where(trained == 0, prompt_end - 1, start + trained - 1))
            targets.add(tail[trained])
            logprobs.add(np.asarray(rollout.logprobs[tree.prefix :], dtype=np.float32)[trained])
            advantages.add(np.full(len(trained), advantage))
            numbers.add(np.full(len(trained), number))
    return MicroBatch(
        token_ids=tokens.whole(),
        position_ids=positions.whole(),
        segments=segments,
        sources=sources.whole(),
        targets=targets.whole(),
        inference_logprobs=logprobs.whole(),
        advantages=advantages.whole(),
        loss_mask=np.ones(targets.length, dtype=np.float32),
        sequence_ids=numbers.whole(),
    )


class _Column:
    """An array that is put together piece by piece."""

    def __init__(self, dtype: type = np.int64) -> None:
        self.length = 0
        self._dtype = dtype
        self._pieces: list[Array] = [np.zeros(0, dtype=dtype)]

    def add(self, piece: Sequence[int] | Array) -> None:
        self._pieces.append(np.asarray(piece, dtype=self._dtype))
        self.length += len(piece)

    def whole(self) -> Array:
        return np.concatenate(self._pieces)


def padding_micro_batch() -> MicroBatch:
    """Two tokens that train nothing: keeps a rank that has run out of work in step with the others."""
    zero = np.zeros(1, dtype=np.int64)
    return MicroBatch(
        token_ids=np.zeros(2, dtype=np.int64),
        position_ids=np.arange(2, dtype=np.int64),
        segments=[(0, 2, 0, 0)],
        sources=zero,
        targets=zero,
        inference_logprobs=np.zeros(1, dtype=np.float32),
        advantages=np.zeros(1, dtype=np.float32),
        loss_mask=np.zeros(1, dtype=np.float32),
        sequence_ids=zero,
    )


def single_sequence(token_ids: Sequence[int]) -> MicroBatch:
    """One sequence whose every token but the first is scored: for canary and agreement checks."""
    length = len(token_ids)
    return MicroBatch(
        token_ids=np.asarray(token_ids, dtype=np.int64),
        position_ids=np.arange(length, dtype=np.int64),
        segments=[(0, length, 0, 0)],
        sources=np.arange(length - 1, dtype=np.int64),
        targets=np.asarray(token_ids[1:], dtype=np.int64),
        inference_logprobs=np.zeros(length - 1, dtype=np.float32),
        advantages=np.zeros(length - 1, dtype=np.float32),
        loss_mask=np.ones(length - 1, dtype=np.float32),
        sequence_ids=np.zeros(length - 1, dtype=np.int64),
    )
