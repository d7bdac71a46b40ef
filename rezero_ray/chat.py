"""Messages to token ids, without ever re-tokenising what the policy wrote."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

Message = dict[str, Any]

_MARKER = "rezero-end-of-reply"


class ChatTokenizer:
    """A model's chat template: the first prompt as ids, and the ids between one reply and the next.

    Args:
        tokenizer: a `transformers` tokenizer with a chat template.
        thinking: whether a template that lets the model think before it answers may do so.
    """

    def __init__(self, tokenizer: Any, *, thinking: bool = True) -> None:
        self._tokenizer, self._thinking = tokenizer, thinking
        self.eos_ids: frozenset[int] = frozenset({tokenizer.eos_token_id} - {None})
        added = tokenizer.added_tokens_decoder.items()
        self._special_ids = self.eos_ids | {number for number, token in added if token.special}

    @classmethod
    def load(cls, model: str, *, trust_remote_code: bool = False, thinking: bool = True) -> "ChatTokenizer":
        from transformers import AutoTokenizer

        return cls(
            AutoTokenizer.from_pretrained(model, trust_remote_code=trust_remote_code), thinking=thinking
        )

    def prompt_ids(
        self, messages: Sequence[Message], tools: Sequence[Any] | None = None, *, thinking: bool | None = None
    ) -> list[int]:
        """Ids of a conversation that the assistant is to answer; at once, without `thinking`, if it can.

        `thinking` is the tokenizer's own when None.
        """
        return self._encode(self._render(messages, tools, self._thinking if thinking is None else thinking))

    def next_prompt_ids(
        self,
        prompt_ids: Sequence[int],
        completion_ids: Sequence[int],
        new_messages: Sequence[Message],
        tool_calls: Sequence[Any] = (),
    ) -> list[int]:
        """Ids of the next turn's prompt: those of the last turn, exactly, and the template's text behind them.

        Args:
            prompt_ids: what the policy saw in the last turn.
            completion_ids: what it wrote, the end token included if it wrote one.
            new_messages: what the environment answered (user or tool messages).
            tool_calls: that were read out of what it wrote.

        Raises:
            ValueError: where a reply with tool calls ends cannot be told from the template.
        """
        last = completion_ids[-1] if completion_ids else None
        behind = self._behind_reply(new_messages, tool_calls, last)
        if behind and behind[0] == last:
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
        while any(marker in str(message) for message in new_messages):
            marker += "-"
        reply: Message = {"role": "assistant", "content": marker}
        calls = [{**call_record(call), "arguments": {"text": marker}} for call in tool_calls]
        behind: list[str | None] = []
        refusal: Exception | None = None
        for each in [reply, {**reply, "tool_calls": calls}] if calls else [reply]:
            try:
                behind.append(self._behind(marker, each, new_messages))
            except _template_error() as problem:
                behind.append(None)
                refusal = problem
        plain, called = behind[0], behind[-1]
        if plain is not None and (called is None or called.endswith(plain)):
            return self._encode(plain)
        if called is None:
            assert refusal is not None
            raise refusal
        ids = self._encode(called)
        ends = [end for end in (last, *self.eos_ids) if end in ids and end in self._special_ids]
        if not ends:
            raise ValueError("the chat template ends a reply with tool calls by no token that can be found")
        return ids[ids.index(ends[0]) :]

    def _behind(self, marker: str, reply: Message, new_messages: Sequence[Message]) -> str:
        rendered = self._render(
            [{"role": "user", "content": "-"}, reply, *new_messages], None, self._thinking
        )
        return rendered.rpartition(marker)[2]

    def _render(self, messages: Sequence[Message], tools: Sequence[Any] | None, thinking: bool) -> str:
        options = {} if thinking else {"enable_thinking": False}
        return str(
            self._tokenizer.apply_chat_template(
                template_messages(messages),
                tools=[tool_record(tool) for tool in tools] if tools else None,
                add_generation_prompt=True,
                tokenize=False,
                **options,
            )
        )

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))


def tool_record(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A tool in the form of the chat completions API, which templates and parsers read; verifiers since 0.1.11 has
    the function alone."""
    if "function" in tool:
        return dict(tool)
    function = {name: tool[name] for name in ("name", "description", "parameters") if name in tool}
    return {"type": "function", "function": function}


def call_record(call: Mapping[str, Any]) -> dict[str, Any]:
    """`id`, `name` and `arguments` of a tool call in either form; the arguments are an object where they are JSON of
    one."""
    function = call.get("function", call)
    arguments = function["arguments"]
    if isinstance(arguments, str):
        try:
            read = json.loads(arguments)
        except ValueError:
            read = None
        arguments = read if isinstance(read, dict) else {"text": arguments}
    return {"id": call.get("id"), "name": function["name"], "arguments": arguments}


def template_messages(messages: Sequence[Message]) -> list[Message]:
    """Messages as chat templates read them: calls with their arguments as objects, answers of tools with the tool's
    name."""
    names: dict[Any, str] = {}
    found = []
    for message in messages:
        calls = [call_record(call) for call in message.get("tool_calls") or []]
        names |= {call["id"]: call["name"] for call in calls}
        if calls:
            functions = [{key: call[key] for key in ("name", "arguments")} for call in calls]
            message = message | {
                "tool_calls": [
                    {"id": call["id"], "type": "function", "function": function}
                    for call, function in zip(calls, functions, strict=True)
                ]
            }
        elif message["role"] == "tool" and message.get("tool_call_id") in names:
            message = {"name": names[message["tool_call_id"]]} | message
        found.append(message)
    return found


def _template_error() -> type[Exception]:
    from jinja2 import TemplateError

    return TemplateError
