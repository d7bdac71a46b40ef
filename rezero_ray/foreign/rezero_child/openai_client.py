"""The policy as an `openai.AsyncOpenAI`, which verifiers up to 0.1.10 asks for: requests go to a transport of ours
and never to a network."""

import importlib
import json
import time
from typing import Any

from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from .model_call import BASE_MODEL, NO_BASE_MODEL, Answer, AskPolicy, CallFailed, plain_message

NOTHING_WRITTEN = " "
"""Stands for an empty answer: verifiers 0.1.10 takes no text for the model's failure and ends the rollout with an
error, while a policy that writes nothing is to be scored."""


_HTTPX = importlib.import_module(
    next(
        base.__module__ for base in DefaultAsyncHttpxClient.__mro__ if base.__name__ == "AsyncClient"
    ).partition(".")[0]
)
"""The library that this openai speaks HTTP with: `httpx`, and `httpx2` since 2026."""


def policy_client(ask: AskPolicy, rollout: int) -> AsyncOpenAI:
    """Serves one rollout. The id of a completion is the number of the model call."""
    transport: Any = _Transport(ask, rollout)
    return AsyncOpenAI(
        api_key="none",
        base_url="http://policy/v1",
        max_retries=0,
        http_client=DefaultAsyncHttpxClient(transport=transport, trust_env=False),
    )


class _Transport:
    """What httpx asks of a transport, in either of its libraries."""

    def __init__(self, ask: AskPolicy, rollout: int) -> None:
        self._ask, self._rollout = ask, rollout

    async def handle_async_request(self, request: Any) -> Any:
        if not request.url.path.endswith("/chat/completions"):
            return _refused(404, f"the policy answers chat completions, not {request.url.path}")
        body = json.loads(await request.aread())
        if body.get("model") == BASE_MODEL:
            return _refused(400, NO_BASE_MODEL)
        messages = [plain_message(message) for message in body["messages"]]
        try:
            answer = await self._ask(self._rollout, messages, body.get("tools") or [])
        except CallFailed as problem:
            return _refused(500, str(problem))
        if answer.overlong:
            return _refused(400, "the maximum context length is reached")
        return _HTTPX.Response(200, json=completion(answer, nothing=NOTHING_WRITTEN))

    async def aclose(self) -> None:
        """Nothing is open."""


def completion(answer: Answer, *, nothing: str = "") -> dict[str, Any]:
    """An answer in the words of the chat completions API."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or nothing}
    if answer.tool_calls:
        message["content"] = answer.text or None
        message["tool_calls"] = [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": call["arguments"]},
            }
            for call in answer.tool_calls
        ]
    return {
        "id": str(answer.call),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": "policy",
        "choices": [
            {
                "index": 0,
                "finish_reason": answer.finish_reason_of_api,
                "message": message,
            }
        ],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    }


def _refused(status: int, message: str) -> Any:
    return _HTTPX.Response(status, json={"error": {"message": message, "type": "policy", "code": status}})
