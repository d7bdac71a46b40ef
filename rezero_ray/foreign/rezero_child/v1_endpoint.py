"""The policy as an OpenAI-compatible endpoint on the loopback of this machine, which verifiers v1 asks for."""

import os
import secrets
from collections.abc import Callable
from typing import Any

from aiohttp import web

from .model_call import BASE_MODEL, NO_BASE_MODEL, Answer, CallFailed, plain_message
from .openai_client import completion

SESSION_HEADER = "X-Session-ID"
"""v1 sends the id of the trace that a request belongs to."""
KEY_VARIABLE = "REZERO_POLICY_KEY"


class PolicyEndpoint:
    """Takes requests of this process alone: each must carry a key that is made at the start.

    Args:
        ask: (id of the trace, messages, tools) to an answer.
    """

    def __init__(self, ask: Callable[[str, list[dict[str, Any]], list[Any]], Any]) -> None:
        self._ask = ask
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        os.environ[KEY_VARIABLE] = secrets.token_urlsafe(32)
        application = web.Application(client_max_size=2**30)
        application.router.add_post("/v1/chat/completions", self._handle)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}/v1"

    async def _handle(self, request: web.Request) -> web.Response:
        expected = f"Bearer {os.environ[KEY_VARIABLE]}"
        if not secrets.compare_digest(request.headers.get("Authorization", ""), expected):
            return _refused(401, "this endpoint serves the process that opened it")
        body = await request.json()
        if body.get("model") == BASE_MODEL:
            return _refused(400, NO_BASE_MODEL)
        messages = [plain_message(message) for message in body["messages"]]
        try:
            answer: Answer = await self._ask(
                request.headers.get(SESSION_HEADER, ""), messages, body.get("tools") or []
            )
        except CallFailed as problem:
            return _refused(400, str(problem))
        return web.json_response(completion(answer))

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()


def _refused(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "code": status}}, status=status)
