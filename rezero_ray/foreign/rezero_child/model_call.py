"""The policy, as the adapters see it: messages in, an answer out. Tokens stay with whoever answers."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

BASE_MODEL = "base"
"""Name of the frozen base model on the policy's engine, for an environment that asks its client for it."""

NO_BASE_MODEL = "the base model answers no environment that lives in an interpreter of its own"


@dataclass(frozen=True)
class Answer:
    """What the policy wrote. `call` names the model call; `overlong`: there was no room left to write."""

    call: int
    text: str
    finish_reason: str
    overlong: bool = False


class CallFailed(Exception):
    """The engine gave no answer. Whoever answers knows why."""


AskPolicy = Callable[[int, list[dict[str, Any]], list[Any]], Awaitable[Answer]]
"""(number of the rollout in its group, messages, tools) to an answer; raises CallFailed."""


def plain_message(message: Any) -> dict[str, Any]:
    """A message as a dict whose content is text."""
    record = dict(message) if isinstance(message, dict) else message.model_dump(exclude_none=True)
    if not isinstance(record.get("content"), str):
        parts = record.get("content") or []
        record["content"] = "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))
    return record
