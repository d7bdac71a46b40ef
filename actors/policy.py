"""The policy of one group: messages in, a rollout engine's tokens out, for whoever runs the conversation."""

import time
from dataclasses import dataclass
from typing import Any

from actors.tool_calls import ReadCompletion, ToolCall
from rezero_ray.chat import ChatTokenizer, tool_record
from rezero_ray.config.schema import Config
from rezero_ray.errors import RunError
from rezero_ray.records import BASE_POLICY, Prompt, Turn
from rezero_ray.sampler import sampling_seed


@dataclass(frozen=True)
class Answer:
    """What the model wrote: its tokens, their text, and whether it was cut off ("length") or ended ("stop"). Tool
    calls that were read out of the text are not in it."""

    turn: Turn
    text: str
    finish_reason: str
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class Overlong:
    """There is no room left for an answer behind these ids."""

    prompt_ids: list[int]


class EngineUnanswered(Exception):
    """The engine failed; why is in `Policy.engine_error`."""


class ToolsRefused(Exception):
    """The environment offers tools that the engine's parser does not take."""


class Policy:
    """Serves one group of one prompt on one policy version.

    An engine's failure is kept in `engine_error`: an environment turns what its client raises into a rollout's error,
    and the worker must not take it for the environment's.
    """

    def __init__(
        self, engine: Any, chat: ChatTokenizer, config: Config, prompt: Prompt, version: int
    ) -> None:
        self._engine, self._chat, self._settings = engine, chat, config
        self._prompt, self._version = prompt, version
        self.engine_error: RunError | None = None

    async def answer(
        self, messages: list[dict[str, Any]], tools: Any, *, rollout: int, turn: int, last: Turn | None
    ) -> Answer | Overlong:
        """One model call.

        Args:
            last: the turn that the conversation goes on from. Its ids are kept; what follows the last assistant
                message is rendered behind them.
            rollout, turn: seed the sampling.

        Raises:
            EngineUnanswered: the engine failed.
            ToolsRefused: `tools` are no tools.
        """
        tools = [tool_record(tool) for tool in tools or []]
        ids = self._prompt_ids(messages, tools, last)
        budget = self._budget(len(ids))
        if budget < 1:
            return Overlong(ids)
        seed = sampling_seed(self._settings.seed, self._prompt.index, rollout, turn)
        return await self._generate(self._version, ids, budget, seed, tools=tools)

    async def base_answer(
        self,
        messages: list[dict[str, Any]],
        *,
        rollout: int,
        turn: int,
        max_tokens: int | None = None,
        temperature: float | None = None,
    ) -> Answer | Overlong:
        """One call of the frozen base model on the same engine, for an environment that needs a second voice.

        Nothing of it is trained on. Templates that let a model think first are told not to.

        Args:
            max_tokens, temperature: those of the policy when None.

        Raises:
            EngineUnanswered: the engine failed.
        """
        ids = self._chat.prompt_ids(messages, thinking=False)
        budget = self._budget(len(ids), max_tokens)
        if budget < 1:
            return Overlong(ids)
        seed = sampling_seed(self._settings.seed, self._prompt.index, rollout, turn, "base")
        return await self._generate(BASE_POLICY, ids, budget, seed, temperature)

    async def _generate(
        self, version: int, ids: list[int], *sampling: Any, tools: list[dict[str, Any]] | None = None
    ) -> Answer:
        started = time.monotonic()
        try:
            written = await self._engine.generate.remote(version, ids, *sampling)
            read = await self._read_calls(written, tools or [])
        except Exception as problem:
            waited = time.monotonic() - started
            self.engine_error = RunError(
                "engine",
                f"prompt {self._prompt.index} after {waited:.0f} s: {type(problem).__name__}: {problem}",
            )
            raise EngineUnanswered(str(problem)) from problem
        if read.refused is not None:
            raise ToolsRefused(f"vLLM does not take the environment's tools: {read.refused}")
        return Answer(
            Turn(prompt_ids=ids, completion_ids=list(written.token_ids), logprobs=list(written.logprobs)),
            read.text if read.calls else self._chat.decode(written.token_ids),
            "length" if written.finish_reason == "length" else "stop",
            read.calls,
        )

    async def _read_calls(self, written: Any, tools: list[dict[str, Any]]) -> ReadCompletion:
        if not tools or self._settings.inference.model.tool_call_parser is None:
            return ReadCompletion()
        ids = list(written.token_ids)
        unended = ids if written.finish_reason == "length" else ids[:-1]
        return await self._engine.tool_calls.remote(unended, tools)

    def _prompt_ids(self, messages: list[dict[str, Any]], tools: Any, last: Turn | None) -> list[int]:
        if last is None:
            return self._chat.prompt_ids(messages, tools)
        replies = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        calls = messages[replies[-1]].get("tool_calls") or []
        return self._chat.next_prompt_ids(
            last.prompt_ids, last.completion_ids, messages[replies[-1] + 1 :], calls
        )

    def _budget(self, prompt_length: int, max_tokens: int | None = None) -> int:
        longest = min(
            self._settings.seq_len, self._settings.inference.model.max_model_len or self._settings.seq_len
        )
        return min(max_tokens or self._settings.orchestrator.sampling.max_tokens, longest - prompt_length)
