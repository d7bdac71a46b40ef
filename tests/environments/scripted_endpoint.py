"""A fake OpenAI-compatible endpoint on the loopback: a function answers instead of a model."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class ScriptedEndpoint:
    """Answers chat completions by `reply(messages)`, the first ones by `refusals` of (status, message).

    `requests` and `keys` hold what it was sent.
    """

    reply: Callable[[list[dict[str, str]]], str | None]
    refusals: list[tuple[int, str]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str, body: dict[str, Any], key: str) -> tuple[int, dict[str, Any]]:
        self.keys.append(key)
        if self.refusals:
            status, message = self.refusals.pop(0)
            return status, {"error": {"message": message}}
        if path.endswith("/models"):
            return 200, {"object": "list", "data": []}
        self.requests.append(body)
        message = {"role": "assistant", "content": self.reply(body["messages"])}
        choices = [{"index": 0, "finish_reason": "stop", "message": message}]
        return 200, {"id": "", "object": "chat.completion", "created": 0, "model": "", "choices": choices}


@contextmanager
def serving(endpoint: ScriptedEndpoint) -> Iterator[ScriptedEndpoint]:
    """Sets its `url` and answers until the end."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            key = self.headers.get("Authorization", "").removeprefix("Bearer ")
            status, answer = endpoint.answer(self.path, json.loads(body or "{}"), key)
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.send_header("Content-Type", "application/json")
            self.send_header("retry-after-ms", "1")
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    endpoint.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield endpoint
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
