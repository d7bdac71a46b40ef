"""An engine and its parser by script: the policy calls a tool once."""

from collections.abc import Callable
from typing import Any

from actors.rollout_engine import Completion
from actors.tool_calls import ReadCompletion, ToolCall

CALL, ANSWER, END = 17, 28, 2


class CallingEngine:
    """Calls a tool in the first turn of each rollout, and none in the second.

    `on_request` hears of every request. `tools` are those offered last.
    """

    def __init__(
        self, tool: str = "look", arguments: str = "{}", on_request: Callable[[], Any] = lambda: None
    ) -> None:
        self._call = ToolCall(id="c1", name=tool, arguments=arguments)
        self._on_request = on_request
        self.requests: list[list[int]] = []
        self.tools: list[dict[str, Any]] = []

    @property
    def generate(self) -> Any:
        return Method(self._generate)

    @property
    def tool_calls(self) -> Any:
        return Method(self._tool_calls)

    def _generate(self, version: int, ids: list[int], max_tokens: int, seed: int) -> Completion:
        self._on_request()
        self.requests.append(list(ids))
        first = len(ids) == min(map(len, self.requests))
        return Completion([CALL if first else ANSWER, END], [-0.5, -0.1], "stop")

    def _tool_calls(self, ids: list[int], tools: list[dict[str, Any]]) -> ReadCompletion:
        self.tools = tools
        return ReadCompletion("", (self._call,)) if ids == [CALL] else ReadCompletion()


class Method:
    """A method of an actor."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    async def remote(self, *arguments: Any) -> Any:
        return self._function(*arguments)
