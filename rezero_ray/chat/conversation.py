"""Which earlier model call a list of messages continues. Pure.

A rollout is one sequence of ids, so a conversation may only grow: a model call sees the messages of the call before,
the policy's reply in the next position, and then whatever the environment adds. Other calls of the same rollout (a
side question, another agent's conversation) begin a sequence of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rezero_ray.chat.messages import Message, call_record


@dataclass(frozen=True)
class Call:
    """One model call: the messages and tools that the policy was shown, and its reply as it was told to the
    environment. `turn`: whatever the caller keeps with it."""

    messages: list[Message]
    tools: list[dict[str, Any]]
    reply: Message
    turn: Any = None


@dataclass
class Conversation:
    """The model calls of one rollout, in their order."""

    calls: list[Call] = field(default_factory=list)

    def continued(
        self, messages: Sequence[Message], tools: Sequence[Any]
    ) -> tuple[Call, list[Message]] | None:
        """The latest call that these messages continue, and the messages behind its reply; None where they continue
        none."""
        for call in reversed(self.calls):
            if _difference(call, messages, tools) is None:
                return call, list(messages[len(call.messages) + 1 :])
        return None

    def rewritten(self, messages: Sequence[Message], tools: Sequence[Any]) -> str | None:
        """What these messages say differently from the last call; None where they continue it or it is the first."""
        return _difference(self.calls[-1], messages, tools) if self.calls else None


def _difference(call: Call, messages: Sequence[Message], tools: Sequence[Any]) -> str | None:
    length = len(call.messages)
    for number, (before, now) in enumerate(zip(call.messages, messages, strict=False)):
        if before != now:
            return f"message {number} ({before['role']}) was changed or replaced"
    if len(messages) < length:
        return f"{length - len(messages)} of {length} messages are gone"
    if len(messages) == length or messages[length]["role"] != "assistant":
        return f"the policy's reply, message {length}, was left out"
    if not _same_reply(call.reply, messages[length]):
        return f"the policy's reply, message {length}, was changed"
    return None if list(tools) == call.tools else "the tools are other ones"


def _same_reply(said: Message, told: Message) -> bool:
    """White space around a reply does not count: older versions of verifiers write a space for an empty one."""
    if str(said["content"]).strip() != str(told["content"]).strip():
        return False
    return _calls(said) == _calls(told)


def _calls(message: Message) -> list[tuple[str, Any]]:
    records = [call_record(call) for call in message.get("tool_calls") or ()]
    return [(record["name"], record["arguments"]) for record in records]
