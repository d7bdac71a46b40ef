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
from rezero_ray.records import Array, Group, Logprobs, Mask, MicroBatch, Rollout, TokenIds


class Branch(msgspec.Struct, frozen=True, eq=False):
    """A rollout behind its prompt, its last T tokens; `number` is unique within the step, the arrays are [T]."""

    number: int
    advantage: float
    token_ids: TokenIds
    logprobs: Logprobs
    loss_mask: Mask


class Tree(msgspec.Struct, frozen=True, eq=False):
    """A shared prompt and the rollouts behind it."""

    prompt: TokenIds
    branches: list[Branch]

    def begins(self, rollout: Rollout) -> bool:
        """Whether the rollout has this tree's prompt. An environment may vary the prompt within a group."""
        return np.array_equal(self.prompt, rollout.token_ids[: rollout.prompt_length])

    @property
    def tokens(self) -> int:
        return len(self.prompt) + sum(len(branch.token_ids) for branch in self.branches)


class TrainingBatch(msgspec.Struct, frozen=True, eq=False):
    """One optimizer step's work.

    Attributes:
        trees: [rank][round], of one micro-batch each; every rank has the same number of rounds.
        normalizers: trained `tokens` and `sequences` of the whole step, those left out of the computation included.
        advantages: of each rollout of each group.
        computed_sequences: sequences that are computed; those whose advantage is zero have no gradient.
    """

    trees: list[list[list[Tree]]]
    normalizers: dict[str, int]
    advantages: list[list[float]]
    computed_sequences: int


def build_batch(groups: Sequence[Group], config: Config, *, ranks: int) -> TrainingBatch:
    """Deal the rollouts of a step out to `ranks` learner ranks; each makes its micro-batches of them itself."""
    options = config.orchestrator.advantage
    advantages = [
        group_advantages(
            [rollout.reward for rollout in group.rollouts],
            normalize=options.normalize,
            epsilon=options.epsilon,
        ).tolist()
        for group in groups
    ]
    trained = [[int(np.count_nonzero(rollout.loss_mask)) for rollout in group.rollouts] for group in groups]
    normalizers = {
        "tokens": sum(map(sum, trained)),
        "sequences": sum(tokens > 0 for group in trained for tokens in group),
    }
    trees = _trees(groups, advantages, trained, config, ranks)
    limit = config.trainer.micro_batch_tokens or config.seq_len
    plan = pack([tree.tokens for tree in trees], ranks=ranks, max_tokens=limit)
    rounds = plan.micro_batches if plan.rounds else [[()] for _ in range(ranks)]
    return TrainingBatch(
        trees=[[[trees[i] for i in items] for items in rank] for rank in rounds],
        normalizers=normalizers,
        advantages=advantages,
        computed_sequences=sum(len(tree.branches) for tree in trees),
    )


def _trees(
    groups: Sequence[Group],
    advantages: Sequence[Sequence[float]],
    trained: Sequence[Sequence[int]],
    config: Config,
    ranks: int,
) -> list[Tree]:
    """Cut the groups into trees that fit a micro-batch and are small enough to spread over the ranks."""
    skip_zero = config.trainer.loss.kl_coef == 0 and any(a != 0 for group in advantages for a in group)
    limit = config.trainer.micro_batch_tokens or config.seq_len
    computed: list[list[tuple[int, Rollout, float]]] = []
    number = 0
    for group, of_group, tokens in zip(groups, advantages, trained, strict=True):
        computed.append([])
        for rollout, advantage, count in zip(group.rollouts, of_group, tokens, strict=True):
            if count and not (skip_zero and advantage == 0):
                computed[-1].append((number, rollout, advantage))
            number += 1
    total = sum(len(rollout.token_ids) for group in computed for _, rollout, _ in group)
    target = min(limit, max(1, math.ceil(total / ranks)))
    shared = config.trainer.share_prompts
    return [tree for group in computed for tree in _group_trees(group, target if shared else 0)]


def _group_trees(rollouts: list[tuple[int, Rollout, float]], target: int) -> list[Tree]:
    trees: list[Tree] = []
    for number, rollout, advantage in rollouts:
        prefix = rollout.prompt_length
        branch = Branch(
            number=number,
            advantage=advantage,
            token_ids=rollout.token_ids[prefix:],
            logprobs=rollout.logprobs[prefix:],
            loss_mask=rollout.loss_mask[prefix:],
        )
        if trees and trees[-1].tokens + len(branch.token_ids) <= target and trees[-1].begins(rollout):
            trees[-1].branches.append(branch)
        else:
            trees.append(Tree(prompt=rollout.token_ids[:prefix], branches=[branch]))
    return trees


def micro_batches(rounds: Sequence[Sequence[Tree]]) -> list[MicroBatch]:
    """The micro-batches of one rank, of its part of `TrainingBatch.trees`."""
    return [_micro_batch(trees) if trees else padding_micro_batch() for trees in rounds]


def _micro_batch(trees: Sequence[Tree]) -> MicroBatch:
    tokens, positions, sources, targets = _Column(), _Column(), _Column(), _Column()
    logprobs, advantages, numbers = _Column(np.float32), _Column(np.float32), _Column()
    segments: list[tuple[int, int, int, int]] = []
    for tree in trees:
        prefix = len(tree.prompt)
        prompt_start, prompt_end = tokens.length, tokens.length + prefix
        tokens.add(tree.prompt)
        positions.add(np.arange(prefix))
        segments.append((prompt_start, prompt_end, prompt_start, prompt_start))
        for branch in tree.branches:
            start, length = tokens.length, len(branch.token_ids)
            segments.append((start, start + length, prompt_start, prompt_end))
            tokens.add(branch.token_ids)
            positions.add(np.arange(prefix, prefix + length))
            trained = np.flatnonzero(branch.loss_mask)
            sources.add(np.where(trained == 0, prompt_end - 1, start + trained - 1))
            targets.add(branch.token_ids[trained])
            logprobs.add(branch.logprobs[trained])
            advantages.add(np.full(len(trained), branch.advantage))
            numbers.add(np.full(len(trained), branch.number))
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

    def add(self, piece: Array) -> None:
        self._pieces.append(piece.astype(self._dtype, copy=False))
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


def single_sequence(token_ids: Sequence[int] | TokenIds) -> MicroBatch:
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
