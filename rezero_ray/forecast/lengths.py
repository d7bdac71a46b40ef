"""How long the rollouts of a step are: what a forecast rests on, assumed beforehand, known afterwards. Pure."""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from rezero_ray.config import Config
from rezero_ray.packing import pack

if TYPE_CHECKING:  # these import torch and numpy, and a plan is made without
    from rezero_ray.batch import TrainingBatch
    from rezero_ray.records import Group


@dataclass(frozen=True)
class Lengths:
    """The rollouts of one step, in tokens.

    Attributes:
        prompts: of each group, its first prompt.
        completions: of each rollout, all that the policy wrote in it.
        replies: of all rollouts, what the environment wrote between the turns.
        turns: of all rollouts.
        computed: what a learner rank computes, where it waits for the fullest of each round; the prompt of a tree
            counts once.
        trained: of a rank, tokens whose logprob is needed.
        micro_batches: of a rank.
        fullest: tokens of the fullest micro-batch.
    """

    prompts: tuple[int, ...]
    completions: tuple[int, ...]
    replies: int
    turns: int
    computed: int
    trained: int
    micro_batches: int
    fullest: int

    @property
    def context(self) -> float:
        """Positions that a token of a completion attends to, on average: the prompt, and half of what follows."""
        written = sum(self.completions) + self.replies
        return sum(self.prompts) / len(self.prompts) + written / len(self.completions) / 2


REPLY_TOKENS = 32
"""What an environment is taken to write between two turns, the chat template's part included: redteam-attack's bot
writes 26."""


def full_lengths(config: Config, *, prompt: int, turns: int) -> Lengths:
    """Every rollout has a prompt of `prompt` tokens and `turns` turns of `max_tokens`, `REPLY_TOKENS` between two of
    them, cut off at `seq_len`."""
    orchestrator, ranks = config.orchestrator, max(1, len(config.trainer_gpu_ids))
    groups, each = orchestrator.batch_size, orchestrator.rollouts_per_example
    completion = min(turns * orchestrator.sampling.max_tokens, config.seq_len - prompt)
    replies = min((turns - 1) * REPLY_TOKENS, config.seq_len - prompt - completion)
    branch = completion + replies
    most = config.trainer.micro_batch_tokens or config.seq_len
    room = min(most, -(-groups * each * (prompt + branch) // ranks)) - prompt
    branches = max(1, room // branch) if config.trainer.share_prompts else 1
    trees = [min(branches, each - first) for first in range(0, each, branches)] * groups
    plan = pack([prompt + tree * branch for tree in trees], ranks=ranks, max_tokens=most)
    return Lengths(
        prompts=(prompt,) * groups,
        completions=(completion,) * (groups * each),
        replies=groups * each * replies,
        turns=groups * each * turns,
        computed=_in_lockstep(plan.tokens),
        trained=-(-groups * each * completion // ranks),
        micro_batches=plan.rounds,
        fullest=max(map(max, plan.tokens)),
    )


def lengths_that_came(groups: "Sequence[Group]", batch: "TrainingBatch") -> Lengths:
    """Of the groups that a step was trained on."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    written = [int(rollout.loss_mask.sum()) for rollout in rollouts]
    behind = sum(len(rollout.token_ids) - rollout.prompt_length for rollout in rollouts)
    tokens = [[sum(tree.tokens for tree in trees) for trees in rank] for rank in batch.trees]
    trained = [
        sum(int(branch.loss_mask.sum()) for trees in rank for tree in trees for branch in tree.branches)
        for rank in batch.trees
    ]
    return Lengths(
        prompts=tuple(group.rollouts[0].prompt_length for group in groups),
        completions=tuple(written),
        replies=behind - sum(written),
        turns=sum(rollout.turns for rollout in rollouts),
        computed=_in_lockstep(tokens),
        trained=max(trained),
        micro_batches=len(batch.trees[0]),
        fullest=max(map(max, tokens)),
    )


def _in_lockstep(tokens: Sequence[Sequence[int]]) -> int:
    """Of tokens[rank][round]: every rank waits for the fullest of each round."""
    return sum(max(of_round) for of_round in zip(*tokens, strict=True))


def decoding(completions: Sequence[int], slots: int) -> Iterator[tuple[int, int]]:
    """How many iterations an engine decodes how many sequences at once: pairs (iterations, sequences).

    A sequence gets one token an iteration, and the next one waiting takes the slot of one that ends.
    """
    ends: list[int] = [0] * min(slots, len(completions))
    changes: dict[int, int] = {}
    for tokens in completions:
        begin = heapq.heappop(ends) if ends else 0
        heapq.heappush(ends, begin + tokens)
        changes[begin] = changes.get(begin, 0) + 1
        changes[begin + tokens] = changes.get(begin + tokens, 0) - 1
    running = 0
    for at, following in pairwise(sorted(changes)):
        running += changes[at]
        yield following - at, running
