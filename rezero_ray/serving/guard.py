"""The key, asked for on every path. Loaded into vLLM's server by its `--middleware`.

vLLM 0.30's own check covers paths below /v1, /v2, /inference and /cohere; `/invocations`, which answers the same
requests, `/tokenize`, `/metrics` and others are open to all.
"""

import hmac
import os
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.responses import JSONResponse

KEY_VARIABLE = "VLLM_API_KEY"
OPEN_PATHS = ("/health",)

Scope = dict[str, Any]
Application = Callable[[Scope, Any, Any], Awaitable[None]]


class KeyGuard:
    """ASGI middleware: 401 for a request without `Authorization: Bearer KEY`."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._expected = f"Bearer {os.environ[KEY_VARIABLE]}".encode()

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" or scope["path"] in OPEN_PATHS or self._knows_key(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            error = {"message": "Authorization: Bearer KEY is missing or wrong", "code": 401}
            await JSONResponse({"error": error}, status_code=401)(scope, receive, send)

    def _knows_key(self, scope: Scope) -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(given, self._expected)
