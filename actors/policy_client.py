"""The policy as a verifiers client, for environments in this process."""

from typing import Any

from verifiers.clients import Client
from verifiers.errors import ModelError, OverlongPromptError
from verifiers.types import Response, ResponseMessage, ResponseTokens, ToolCall, Usage

from actors.policy import Answer, Overlong, Policy, Unanswered
from rezero_ray.foreign.rezero_child.group_watch import ROLLOUT
from rezero_ray.foreign.rezero_child.model_call import BASE_MODEL, plain_message
from rezero_ray.records import Turn


class PolicyClient(Client):
    """Serves one group. A turn's ids and logprobs travel in the trajectory, as verifiers has it.

    A call of the model `BASE_MODEL` is answered by the frozen base model, and is no turn.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)

    def setup_client(self, config: Any) -> Any:
        raise NotImplementedError("this client is made around a policy")

    async def to_native_tool(self, tool: Any) -> Any:
        return tool.model_dump(exclude_none=True)

    async def to_native_prompt(self, messages: Any) -> tuple[Any, dict[str, Any]]:
        return [plain_message(message) for message in messages], {}

    async def get_native_response(
        self, prompt: Any, model: str, sampling_args: Any, tools: Any = None, **kwargs: Any
    ) -> Answer | Overlong:
        state = kwargs["state"]
        try:
            if model == BASE_MODEL:
                return await self.client.base_answer(
                    prompt,
                    rollout=state["input"][ROLLOUT],
                    turn=len(state["trajectory"]),
                    max_tokens=sampling_args.get("max_tokens"),
                    temperature=sampling_args.get("temperature"),
                )
            return await self.client.answer(prompt, tools, rollout=state["input"][ROLLOUT])
        except Unanswered as problem:
            raise ModelError(str(problem)) from problem

    async def raise_from_native_response(self, response: Answer | Overlong) -> None:
        if isinstance(response, Overlong):
            raise OverlongPromptError(f"the conversation fills seq_len: {len(response.prompt_ids)} tokens")

    async def from_native_response(self, response: Answer) -> Response:
        turn, reason = response.turn, response.finish_reason
        if response.tool_calls and reason == "stop":
            reason = "tool_calls"
        read, written = len(turn.prompt_ids), len(turn.completion_ids)
        return Response(
            id="",
            created=0,
            model="policy",
            usage=Usage(
                prompt_tokens=read,
                reasoning_tokens=0,
                completion_tokens=written,
                total_tokens=read + written,
            ),
            message=ResponseMessage(
                content=response.text,
                tool_calls=[
                    ToolCall(id=call.id, name=call.name, arguments=call.arguments)
                    for call in response.tool_calls
                ]
                or None,
                finish_reason=reason,
                is_truncated=response.finish_reason == "length",
                tokens=ResponseTokens(
                    prompt_ids=turn.prompt_ids,
                    prompt_mask=[0] * read,
                    completion_ids=turn.completion_ids,
                    completion_mask=[1] * written,
                    completion_logprobs=turn.logprobs,
                ),
            ),
        )

    async def close(self) -> None:
        """Nothing to close: the engine outlives the client."""


def turn_of(step: Any) -> Turn:
    """The turn of one step of a trajectory."""
    tokens = step["tokens"]
    return Turn(
        prompt_ids=list(tokens["prompt_ids"]),
        completion_ids=list(tokens["completion_ids"]),
        logprobs=list(tokens["completion_logprobs"]),
    )
