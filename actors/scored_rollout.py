"""What an environment makes of a conversation, and the sequence that is trained on."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from actors.policy import Policy
from rezero_ray.chat import clean_text, shown_text
from rezero_ray.records import Prompt, Rollout, Sizes, Turn


@dataclass(frozen=True)
class ScoredRollout:
    """One rollout as its environment tells it.

    Attributes:
        scoring: wall seconds that its group was scored, where they can be told from the rest.
        zeroed: the reward functions that failed and count as 0.0, and why.
    """

    reward: float | None
    components: Mapping[str, float]
    turns: Sequence[Turn]
    text: list[dict[str, str]]
    truncated: bool
    error: str | None = None
    scoring: float | None = None
    zeroed: Mapping[str, str] = field(default_factory=dict)


class EnvironmentSource(Protocol):
    """An environment, wherever it lives. Many groups at a time."""

    async def sizes(self) -> Sizes:
        """How many tasks it has."""

    async def renew(self) -> None:
        """Build the environment afresh for the groups that begin from now on."""

    async def roll_out(self, prompt: Prompt, count: int, policy: Policy) -> list[ScoredRollout]:
        """One group, scored. Raises whatever the environment raises."""


def shown_message(message: Mapping[str, Any]) -> dict[str, str]:
    """A message for people: its role, and its text with the calls of tools behind it, a line each."""
    lines = [shown_text(message.get("content"))]
    for call in message.get("tool_calls") or []:
        record = json.loads(call) if isinstance(call, str) else call  # verifiers tells them as JSON
        function = record.get("function", record)
        lines.append(clean_text(f"{function['name']}({function['arguments']})"))
    role = clean_text(str(message.get("role", "")))
    return {"role": role, "content": "\n".join(line for line in lines if line)}


def first_break(turns: Sequence[Turn]) -> int | None:
    """The first turn, from 1, whose ids the next turn's prompt does not begin with."""
    for number, (turn, following) in enumerate(pairwise(turns), start=1):
        written = [*turn.prompt_ids, *turn.completion_ids]
        if following.prompt_ids[: len(written)] != written:
            return number
    return None


def merge_turns(turns: Sequence[Turn], **fields: Any) -> Rollout:
    """One sequence out of the turns of a trajectory.

    Raises:
        ValueError: a turn's prompt does not continue the turn before it, token by token.
    """
    if (broken := first_break(turns)) is not None:
        raise ValueError(f"turn {broken + 1} does not continue turn {broken}")
    trained, logprobs = [], []
    for turn in turns:
        trained.append(slice(len(turn.prompt_ids), len(turn.prompt_ids) + len(turn.completion_ids)))
        logprobs.append(turn.logprobs)
    token_ids = [*turns[-1].prompt_ids, *turns[-1].completion_ids]
    all_logprobs = np.zeros(len(token_ids), dtype=np.float32)
    mask = np.zeros(len(token_ids), dtype=np.uint8)
    for where, of_turn in zip(trained, logprobs, strict=True):
        all_logprobs[where] = of_turn
        mask[where] = 1
    return Rollout(
        token_ids=np.array(token_ids, dtype=np.int32),
        logprobs=all_logprobs,
        loss_mask=mask,
        prompt_length=len(turns[0].prompt_ids),
        turns=len(turns),
        **fields,
    )
