"""Messages to token ids, without ever re-tokenising what the policy wrote."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rezero_ray.chat.control_tokens import ControlTokens, without_guard
from rezero_ray.chat.messages import (
    Message,
    MessageRefused,
    call_record,
    policy_messages,
    policy_tools,
    template_messages,
)

_MARKER = "rezero-end-of-reply"
_END_OF_THOUGHT = "</think>"
_PROBE: Message = {"role": "user", "content": "-"}


class ChatTokenizer:
    """A model's chat template: the first prompt as ids, and the ids between one reply and the next.

    Messages pass through `policy_messages`, and control tokens that they spell are encoded as text.

    Args:
        tokenizer: a `transformers` tokenizer with a chat template.
        thinking: whether a template that lets the model think before it answers may do so.
    """

    def __init__(self, tokenizer: Any, *, thinking: bool = True) -> None:
        self._tokenizer, self._thinking = tokenizer, thinking
        self.eos_ids: frozenset[int] = frozenset({tokenizer.eos_token_id} - {None})
        self._control = ControlTokens(tokenizer)
        self._special_ids = self.eos_ids | self._control.ids
        self._steady: bool | None = None

    @classmethod
    def load(cls, model: str, *, trust_remote_code: bool = False, thinking: bool = True) -> "ChatTokenizer":
        from transformers import AutoTokenizer

        return cls(
            AutoTokenizer.from_pretrained(model, trust_remote_code=trust_remote_code), thinking=thinking
        )

    def prompt_ids(
        self, messages: Any, tools: Sequence[Any] | None = None, *, thinking: bool | None = None
    ) -> list[int]:
        """Ids of a conversation that the assistant is to answer; at once, without `thinking`, if it can.

        `thinking` is the tokenizer's own when None.

        Raises:
            MessageRefused: a message cannot be shown to the policy, or the template leaves it out.
        """
        messages = policy_messages(messages)
        thinks = self._thinking if thinking is None else thinking
        rendered, guard = self._render(messages, policy_tools(tools), thinks)
        _require_shown(messages, rendered, guard)
        return self._control.encode(rendered, guard)

    def next_prompt_ids(
        self,
        prompt_ids: Sequence[int],
        completion_ids: Sequence[int],
        new_messages: Sequence[Any],
        tool_calls: Sequence[Any] = (),
    ) -> list[int]:
        """Ids of the next turn's prompt: those of the last turn, exactly, then the template's text.

        Args:
            prompt_ids: what the policy saw in the last turn.
            completion_ids: what it wrote, the end token included if it wrote one.
            new_messages: what the environment added behind the reply, of any role.
            tool_calls: that were read out of what it wrote.

        Raises:
            MessageRefused: a message cannot be shown to the policy, or the template leaves it out, or a reply is
                nothing that this template can be continued behind.
        """
        last = completion_ids[-1] if completion_ids else None
        messages = policy_messages(new_messages) if new_messages else []
        self._require_steady_template()
        behind = self._behind_reply(messages, tool_calls, last)
        if behind and behind[0] == last and last in self._special_ids:
            behind = behind[1:]
        return [*prompt_ids, *completion_ids, *behind]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def _behind_reply(
        self, new_messages: Sequence[Message], tool_calls: Sequence[Any], last: int | None
    ) -> list[int]:
        """Ids behind a reply of the assistant, its end token first if it has one.

        A reply that called tools is rendered with calls of the same names and ids too, because a template may ask for
        them. What stands behind the calls is what stands behind a reply without any; where it is not, or the template
        refuses answers of tools that were not called, it begins with the end token.
        """
        marker = _MARKER
        while any(marker in str(message) for message in (*new_messages, *tool_calls)):
            marker += "-"
        reply: Message = {"role": "assistant", "content": marker}
        calls = [{**call_record(call), "arguments": {"text": marker}} for call in tool_calls]
        behind: list[tuple[str, str] | None] = []
        refusal: Exception | None = None
        for each in [reply, {**reply, "tool_calls": calls}] if calls else [reply]:
            try:
                behind.append(self._behind(marker, [_PROBE, each], new_messages))
            except (_template_error(), MessageRefused) as problem:
                behind.append(None)
                refusal = problem
        plain, called = behind[0], behind[-1]
        if plain is not None and (called is None or without_guard(*called).endswith(without_guard(*plain))):
            return self._control.encode(*plain)
        if called is None:
            assert refusal is not None
            raise refusal
        ids = self._control.encode(*called)
        ends = [end for end in (last, *self.eos_ids) if end in ids and end in self._special_ids]
        if not ends:
            raise MessageRefused(
                "the chat template ends a reply with tool calls by no token that can be found"
            )
        return ids[ids.index(ends[0]) :]

    def _behind(
        self, marker: str, history: Sequence[Message], new_messages: Sequence[Message]
    ) -> tuple[str, str]:
        """What the template writes behind the last marker, with its guard.

        Raises:
            MessageRefused: it does not write the reply with the marker, or leaves a new message out.
        """
        rendered, guard = self._render([*history, *new_messages], [], self._thinking)
        _, found, behind = rendered.rpartition(marker)
        if not found:
            raise MessageRefused(
                "the chat template does not write the assistant's replies into a conversation"
            )
        _require_shown(new_messages, behind, guard)
        return behind, guard

    def _require_steady_template(self) -> None:
        """
        Raises:
            MessageRefused: the template does not write a second turn as it writes the first, or repeats a reply: a
                conversation cannot be continued by the text behind its last reply.
        """
        if self._steady is None:
            reply: Message = {"role": "assistant", "content": _MARKER}
            asked: Message = {"role": "user", "content": "?"}
            once = [_PROBE, reply]
            try:
                first = self._behind(_MARKER, once, [asked])
                second = self._behind(_MARKER, [_PROBE, {**reply, "content": "-"}, *once], [asked])
                rendered, _ = self._render([*once, asked], [], self._thinking)
                self._steady = first == second and rendered.count(_MARKER) == 1
            except _template_error():  # a template that takes no second turn says so where one comes
                self._steady = True
        if not self._steady:
            raise MessageRefused(
                "the chat template does not write a later turn as it writes an earlier one, so a conversation of "
                "several turns cannot be continued token by token"
            )

    def _render(self, messages: Sequence[Message], tools: Sequence[Any], thinking: bool) -> tuple[str, str]:
        """The rendered conversation, and the guard in what its messages spell."""
        options = {} if thinking else {"enable_thinking": False}
        guarded, guarded_tools, guard = self._control.guarded(template_messages(messages), tools)
        rendered = self._tokenizer.apply_chat_template(
            guarded, tools=guarded_tools or None, add_generation_prompt=True, tokenize=False, **options
        )
        return str(rendered), guard


def _require_shown(messages: Sequence[Message], rendered: str, guard: str) -> None:
    """
    Raises:
        MessageRefused: the template left a message out, or changed it by more than the white space around it.
    """
    shown = without_guard(rendered, guard)
    wanted: Counter[str] = Counter()
    for number, message in enumerate(messages):
        text = message["content"]
        if message["role"] == "assistant":  # templates leave out what was thought before an earlier answer
            text = text.rpartition(_END_OF_THOUGHT)[2]
        names = [str(call_record(call)["name"]) for call in message.get("tool_calls") or ()]
        for part in (text.strip(), *names):
            wanted[part] += 1
            if part and not any(shown.count(each) >= wanted[part] for each in _spellings(part)):
                what = "its tool calls" if part in names and part != text.strip() else "its text"
                raise MessageRefused(
                    f"the chat template leaves out or changes message {number} ({message['role']}): {what}"
                )


def _spellings(text: str) -> list[str]:
    """As it is, and as `tojson` writes it."""
    return [text, json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1]]


def _template_error() -> type[Exception]:
    from jinja2 import TemplateError

    return TemplateError
