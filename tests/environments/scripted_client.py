"""A `verifiers` client that answers from a script instead of a model, and scoring through the real loop."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import verifiers as vf
from verifiers.clients import Client
from verifiers.types import Response, ResponseMessage, Usage


class ScriptedClient(Client):
    """Gives the texts of its script in order, one per model call; asking for more is an error.

    `calls` counts the model calls, `prompts` holds the messages of each, `models` the name that was asked for.
    """

    def __init__(self, script: Iterable[str]) -> None:
        super().__init__(None)
        self.script = list(script)
        self.prompts: list[list[dict[str, Any]]] = []
        self.models: list[str] = []

    @property
    def calls(self) -> int:
        return len(self.prompts)

    def setup_client(self, config: Any) -> None:
        raise NotImplementedError("a script needs no connection")

    async def to_native_tool(self, tool: Any) -> Any:
        return tool.model_dump(exclude_none=True)

    async def to_native_prompt(self, messages: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        return [message.model_dump(exclude_none=True) for message in messages], {}

    async def get_native_response(
        self, prompt: Any, model: str, sampling_args: Any, tools: Any = None, **kwargs: Any
    ) -> str:
        self.prompts.append(prompt)
        self.models.append(model)
        return self.script[self.calls - 1]

    async def raise_from_native_response(self, response: str) -> None:
        return None

    async def from_native_response(self, response: str) -> Response:
        return Response(
            id="",
            created=0,
            model="script",
            usage=Usage(prompt_tokens=0, reasoning_tokens=0, completion_tokens=0, total_tokens=0),
            message=ResponseMessage(content=response, finish_reason="stop", is_truncated=False),
        )

    async def close(self) -> None:
        return None


def run_rollout(
    env: vf.Environment, row: dict[str, Any], script: Sequence[str]
) -> tuple[Any, ScriptedClient]:
    """One rollout of a dataset row through `env.run_group`: its output, and the client that was asked."""
    client = ScriptedClient(script)
    outputs = asyncio.run(env.run_group([row], client, "script", {}, state_columns=["trajectory"]))
    return outputs[0], client


def score_texts(env: vf.Environment, row: dict[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    """State of a finished conversation with these assistant texts, scored by the environment's own rubric."""

    async def score() -> dict[str, Any]:
        state = await env.init_state(row, ScriptedClient([]), "script", {})
        state["completion"] = [vf.AssistantMessage(content=text) for text in texts]
        await env.rubric.score_group([state])
        return state

    return asyncio.run(score())
