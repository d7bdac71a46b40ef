"""Tool calls, read by vLLM's own parser out of what the policy wrote.

This happens in the engine's process, where vLLM is imported anyway: elsewhere the import takes 7 s of CPU time and
450 MB.
"""

import logging
from collections.abc import Sequence
from typing import Any

import msgspec


class ToolCall(msgspec.Struct, frozen=True):
    """`arguments` as the policy wrote them: JSON if it wrote JSON."""

    id: str
    name: str
    arguments: str


class ReadCompletion(msgspec.Struct, frozen=True):
    """The text beside the calls, and the calls. `refused`: vLLM takes these tools for none."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    refused: str | None = None


class ToolCallReader:
    """Reads completions with one of vLLM's parsers.

    Args:
        name: of the parser, as vLLM registers it.
        tokenizer: the engine's.

    Raises:
        ValueError: there is no such parser, it does not work with this tokenizer, or it reads no text.
    """

    def __init__(self, name: str, tokenizer: Any) -> None:
        from vllm.tool_parsers import ToolParserManager

        self._tokenizer = tokenizer
        logging.getLogger("vllm.tool_parsers").setLevel(
            logging.CRITICAL
        )  # a traceback for each call it cannot read
        try:
            self._parser = ToolParserManager.get_tool_parser(name)
            parser, request = self._begin([{"type": "function", "function": {"name": "probe"}}])
            parser.extract_tool_calls("", request)
        except Exception as problem:
            raise ValueError(
                f"vLLM's tool_call_parser {name!r} does not work with this model: "
                f"{type(problem).__name__}: {problem}"
            ) from problem

    def read(self, token_ids: Sequence[int], tools: Sequence[dict[str, Any]]) -> ReadCompletion:
        """What the parser makes of a completion without its end token. One that it cannot read has no calls."""
        try:
            parser, request = self._begin(tools)
        except Exception as problem:
            return ReadCompletion(refused=f"{type(problem).__name__}: {problem}")
        skip = bool(request.skip_special_tokens)
        text = self._tokenizer.decode(list(token_ids), skip_special_tokens=skip)
        try:
            found = parser.extract_tool_calls(text, request)
            calls = tuple(
                ToolCall(call.id, call.function.name, call.function.arguments) for call in found.tool_calls
            )
        except Exception:
            return ReadCompletion()
        return ReadCompletion(found.content or "", calls)

    def _begin(self, tools: Sequence[dict[str, Any]]) -> tuple[Any, Any]:
        """A parser for one completion, and the request that it reads."""
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

        request = ChatCompletionRequest(
            messages=[{"role": "user", "content": "-"}], tools=list(tools), tool_choice="auto"
        )
        parser = self._parser(self._tokenizer, request.tools)
        return parser, parser.adjust_request(request)
