"""No path of the server but /health answers a client without the key."""

import asyncio
from typing import Any

import pytest

from rezero_ray.serving.guard import KEY_VARIABLE, KeyGuard


async def inner(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


def status(path: str, *authorization: bytes, kind: str = "http") -> int:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"authorization", value) for value in authorization]
    scope = {"type": kind, "path": path, "headers": headers}
    asyncio.run(KeyGuard(inner)(scope, None, send))
    return int(sent[0].get("status", sent[0].get("code", 0)))


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "the-key")


@pytest.mark.parametrize("path", ["/v1/models", "/invocations", "/metrics", "/tokenize", "/docs", "/healthy"])
def test_every_path_asks_for_the_key(path: str) -> None:
    assert status(path) == 401
    assert status(path, b"Bearer another") == 401
    assert status(path, b"the-key") == 401
    assert status(path, b"Bearer the-key") == 200


def test_health_is_open_and_a_websocket_is_closed_without_the_key() -> None:
    assert status("/health") == 200
    assert status("/v1/realtime", kind="websocket") == 1008
