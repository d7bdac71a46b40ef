"""The policy of a group that `rezero check` tries an environment with: it says what a script tells it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from rezero_ray.chat import Call, Conversation, MessageRefused, clean_text, policy_messages, policy_tools

NOT_SHOWN = "the policy cannot be shown what it says"
REWRITES = "it rewrites the conversation"
"""Beginnings of what is wrong with an environment that does so."""


class ScriptedPolicy:
    """What the policy of one group says, and what it was shown: the messages are built and held against those of the
    call before as in a run."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self._conversations: defaultdict[int, Conversation] = defaultdict(Conversation)
        self._continues: dict[int, int | None] = {}
        self._rewritten: dict[int, str | None] = {}
        self.refusal: str | None = None

    def answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """The next text of the question's rollout, or why the policy cannot be shown its messages."""
        conversation, call = self._conversations[int(question["rollout"])], int(question["call"])
        try:
            messages, tools = policy_messages(question["messages"]), policy_tools(question["tools"])
        except MessageRefused as problem:
            self.refusal = f"{NOT_SHOWN}: {problem}"
            return {"error": self.refusal}
        continued = conversation.continued(messages, tools)
        self._continues[call] = continued[0].turn if continued else None
        self._rewritten[call] = conversation.rewritten(messages, tools)
        text = clean_text(self._texts[min(len(conversation.calls), len(self._texts) - 1)])
        conversation.calls.append(Call(messages, tools, {"role": "assistant", "content": text}, turn=call))
        return {"text": text, "tool_calls": [], "finish_reason": "stop", "overlong": False}

    def require_sequence(self, calls: Sequence[int]) -> None:
        """
        Raises:
            ValueError: the policy was not shown a message, or a call does not continue the one before it.
        """
        if self.refusal is not None:
            raise ValueError(self.refusal)
        for before, call in pairwise(calls):
            if self._continues.get(call) != before:
                what = self._rewritten.get(call) or "it went back to an earlier turn"
                raise ValueError(f"{REWRITES}: {what}; a conversation may only grow")
