"""The policy, as the adapters see it: messages in, an answer out. Tokens stay with whoever answers."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

BASE_MODEL = "base"
"""Name of the frozen base model on the policy's engine, for an environment that asks its client for it."""

NO_BASE_MODEL = "the base model answers no environment that lives in an interpreter of its own"


@dataclass(frozen=True)
class Answer:
    """What the policy wrote. `call` names the model call; `overlong`: there was no room left to write. `tool_calls`
    have `id`, `name` and `arguments` (JSON, as the policy wrote it) each."""

    call: int
    text: str
    finish_reason: str
    overlong: bool = False
    tool_calls: list[dict[str, str]] = field(default_factory=list)

    @property
    def finish_reason_of_api(self) -> str:
        """As the chat completions API has it, where a reply that calls tools ends with "tool_calls"."""
        return "tool_calls" if self.tool_calls and self.finish_reason != "length" else self.finish_reason


class CallFailed(Exception):
    """The engine gave no answer. Whoever answers knows why."""


AskPolicy = Callable[[int, list[dict[str, Any]], list[Any]], Awaitable[Answer]]
"""(number of the rollout in its group, messages, tools) to an answer; raises CallFailed."""


def plain_message(message: Any) -> dict[str, Any]:
    """A message as a dict, with its content as the environment wrote it: whoever shows it to the policy decides what
    of it can be shown (`rezero_ray.chat.policy_messages`)."""
    return dict(message) if isinstance(message, dict) else message.model_dump(exclude_none=True)
