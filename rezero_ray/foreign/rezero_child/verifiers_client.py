"""The policy as a verifiers client, which verifiers 0.1.11 to 0.3 asks for. One serves a whole group."""

from typing import Any

from verifiers.clients import Client
from verifiers.errors import ModelError, OverlongPromptError
from verifiers.types import Response, ResponseMessage, ToolCall

from .group_watch import ROLLOUT
from .model_call import BASE_MODEL, NO_BASE_MODEL, Answer, AskPolicy, CallFailed, plain_message


class PolicyClient(Client):
    """`calls` has the number of the model call by rollout and turn."""

    def __init__(self, ask: AskPolicy) -> None:
        super().__init__(ask)
        self.calls: dict[tuple[int, int], int] = {}

    def setup_client(self, config: Any) -> Any:
        raise NotImplementedError("this client is made around a function")

    async def to_native_tool(self, tool: Any) -> Any:
        return tool.model_dump(exclude_none=True)

    async def to_native_prompt(self, messages: Any) -> tuple[Any, dict[str, Any]]:
        return [plain_message(message) for message in messages], {}

    async def get_native_response(
        self, prompt: Any, model: str, sampling_args: Any, tools: Any = None, **rest: Any
    ) -> Answer:
        if model == BASE_MODEL:
            raise ModelError(NO_BASE_MODEL)
        state = rest["state"]
        rollout = int(state["input"][ROLLOUT])
        try:
            answer: Answer = await self.client(rollout, prompt, tools or [])
        except CallFailed as problem:
            raise ModelError(str(problem)) from problem
        self.calls[rollout, len(state["trajectory"])] = answer.call
        return answer

    async def raise_from_native_response(self, response: Answer) -> None:
        if response.overlong:
            raise OverlongPromptError("the conversation leaves no room for an answer")

    async def from_native_response(self, response: Answer) -> Response:
        truncated = response.finish_reason == "length"
        return Response(
            id=str(response.call),
            created=0,
            model="policy",
            message=ResponseMessage(
                content=response.text,
                tool_calls=[ToolCall(**call) for call in response.tool_calls] or None,
                finish_reason=response.finish_reason_of_api,
                is_truncated=truncated,
            ),
        )

    async def close(self) -> None:
        """Nothing to close."""
