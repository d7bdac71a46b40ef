"""The policy as a verifiers client: messages in, a rollout engine's tokens out."""

import time
from typing import Any

from verifiers.clients import Client
from verifiers.errors import ModelError
from verifiers.types import Response, ResponseMessage, ResponseTokens, Usage

from rezero_ray.chat import ChatTokenizer
from rezero_ray.config.schema import Config
from rezero_ray.errors import RunError
from rezero_ray.records import Prompt
from rezero_ray.sampler import sampling_seed


class PolicyClient(Client):
    """Serves one group of one prompt on one policy version.

    An engine's failure is kept in `engine_error`: verifiers turns what a client raises into a rollout's error,
    and the worker must not take it for the environment's.
    """

    def __init__(
        self, engine: Any, chat: ChatTokenizer, config: Config, prompt: Prompt, version: int
    ) -> None:
        super().__init__(engine)
        self._chat, self._settings, self._prompt, self._version = chat, config, prompt, version
        self.engine_error: RunError | None = None

    def setup_client(self, config: Any) -> Any:
        raise NotImplementedError("this client is made around an engine's handle")

    async def to_native_tool(self, tool: Any) -> Any:
        return tool.model_dump(exclude_none=True)

    async def to_native_prompt(self, messages: Any) -> tuple[Any, dict[str, Any]]:
        return [_plain(message) for message in messages], {}

    async def get_native_response(
        self, prompt: Any, model: str, sampling_args: Any, tools: Any = None, **kwargs: Any
    ) -> Any:
        state = kwargs["state"]
        trajectory = state["trajectory"]
        ids = self._prompt_ids(prompt, tools, trajectory)
        budget = self._budget(len(ids))
        if budget < 1:
            return {"prompt_ids": ids, "overlong": True}
        rollout = state["input"]["rezero_rollout"]
        seed = sampling_seed(self._settings.seed, self._prompt.index, rollout, len(trajectory))
        started = time.monotonic()
        try:
            completion = await self.client.generate.remote(self._version, ids, budget, seed)
        except Exception as problem:
            waited = time.monotonic() - started
            self.engine_error = RunError(
                "engine",
                f"prompt {self._prompt.index} after {waited:.0f} s: {type(problem).__name__}: {problem}",
            )
            raise ModelError(str(problem)) from problem
        return {"prompt_ids": ids, "completion": completion, "overlong": False}

    def _prompt_ids(self, messages: list[dict[str, Any]], tools: Any, trajectory: Any) -> list[int]:
        if not trajectory:
            return self._chat.prompt_ids(messages, tools)
        last = trajectory[-1]["tokens"]
        replies = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        return self._chat.next_prompt_ids(
            last["prompt_ids"], last["completion_ids"], messages[replies[-1] + 1 :]
        )

    def _budget(self, prompt_length: int) -> int:
        longest = min(
            self._settings.seq_len, self._settings.inference.model.max_model_len or self._settings.seq_len
        )
        return min(self._settings.orchestrator.sampling.max_tokens, longest - prompt_length)

    async def raise_from_native_response(self, response: Any) -> None:
        if response["overlong"]:
            from verifiers.errors import OverlongPromptError

            raise OverlongPromptError(f"the conversation fills seq_len: {len(response['prompt_ids'])} tokens")

    async def from_native_response(self, response: Any) -> Response:
        completion, prompt_ids = response["completion"], response["prompt_ids"]
        written = len(completion.token_ids)
        return Response(
            id="",
            created=0,
            model="policy",
            usage=Usage(
                prompt_tokens=len(prompt_ids),
                reasoning_tokens=0,
                completion_tokens=written,
                total_tokens=len(prompt_ids) + written,
            ),
            message=ResponseMessage(
                content=self._chat.decode(completion.token_ids),
                finish_reason="length" if completion.finish_reason == "length" else "stop",
                is_truncated=completion.finish_reason == "length",
                tokens=ResponseTokens(
                    prompt_ids=prompt_ids,
                    prompt_mask=[0] * len(prompt_ids),
                    completion_ids=completion.token_ids,
                    completion_mask=[1] * written,
                    completion_logprobs=completion.logprobs,
                ),
            ),
        )

    async def close(self) -> None:
        """Nothing to close: the engine outlives the client."""


def _plain(message: Any) -> dict[str, Any]:
    record = dict(message) if isinstance(message, dict) else message.model_dump(exclude_none=True)
    if not isinstance(record.get("content"), str):
        parts = record.get("content") or []
        record["content"] = "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))
    return record
