"""Messages to token ids, without ever re-tokenising what the policy wrote."""

from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]

_MARKER = "rezero-end-of-reply"


class ChatTokenizer:
    """A model's chat template: the first prompt as ids, and the ids between one reply and the next.

    Args:
        tokenizer: a `transformers` tokenizer with a chat template.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.eos_ids: frozenset[int] = frozenset({tokenizer.eos_token_id} - {None})

    @classmethod
    def load(cls, model: str, *, trust_remote_code: bool = False) -> "ChatTokenizer":
        from transformers import AutoTokenizer

        return cls(AutoTokenizer.from_pretrained(model, trust_remote_code=trust_remote_code))

    def prompt_ids(
        self, messages: Sequence[Message], tools: Sequence[Any] | None = None, *, thinking: bool = True
    ) -> list[int]:
        """Ids of a conversation that the assistant is to answer; at once, without `thinking`, if it can."""
        options = {} if thinking else {"enable_thinking": False}
        return self._encode(self._render(messages, tools, generate=True, **options))

    def next_prompt_ids(
        self, prompt_ids: Sequence[int], completion_ids: Sequence[int], new_messages: Sequence[Message]
    ) -> list[int]:
        """Ids of the next turn's prompt: those of the last turn, exactly, and the template's text behind them.

        Args:
            prompt_ids: what the policy saw in the last turn.
            completion_ids: what it wrote, the end token included if it wrote one.
            new_messages: what the environment answered (user or tool messages).
        """
        reply = [{"role": "user", "content": "-"}, {"role": "assistant", "content": _MARKER}]
        rendered = self._render([*reply, *new_messages], None, generate=True)
        behind = self._encode(rendered.split(_MARKER, 1)[1])
        if completion_ids and behind and completion_ids[-1] == behind[0]:
            behind = behind[1:]
        return [*prompt_ids, *completion_ids, *behind]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def _render(
        self, messages: Sequence[Message], tools: Sequence[Any] | None, *, generate: bool, **options: bool
    ) -> str:
        return str(
            self._tokenizer.apply_chat_template(
                list(messages),
                tools=list(tools) if tools else None,
                add_generation_prompt=generate,
                tokenize=False,
                **options,
            )
        )

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))
