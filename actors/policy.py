"""The policy of one group: messages in, a rollout engine's tokens out, for whoever runs the conversation."""

import time
from dataclasses import dataclass
from typing import Any

from rezero_ray.chat import ChatTokenizer
from rezero_ray.config.schema import Config
from rezero_ray.errors import RunError
from rezero_ray.records import BASE_POLICY, Prompt, Turn
from rezero_ray.sampler import sampling_seed


@dataclass(frozen=True)
class Answer:
    """What the model wrote: its tokens, their text, and whether it was cut off ("length") or ended ("stop")."""

    turn: Turn
    text: str
    finish_reason: str


@dataclass(frozen=True)
class Overlong:
    """There is no room left for an answer behind these ids."""

    prompt_ids: list[int]


class EngineUnanswered(Exception):
    """The engine failed; why is in `Policy.engine_error`."""


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
        """
        ids = self._prompt_ids(messages, tools, last)
        budget = self._budget(len(ids))
        if budget < 1:
            return Overlong(ids)
        seed = sampling_seed(self._settings.seed, self._prompt.index, rollout, turn)
        return await self._generate(self._version, ids, budget, seed)

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

    async def _generate(self, version: int, ids: list[int], *sampling: Any) -> Answer:
        started = time.monotonic()
        try:
            written = await self._engine.generate.remote(version, ids, *sampling)
        except Exception as problem:
            waited = time.monotonic() - started
            self.engine_error = RunError(
                "engine",
                f"prompt {self._prompt.index} after {waited:.0f} s: {type(problem).__name__}: {problem}",
            )
            raise EngineUnanswered(str(problem)) from problem
        return Answer(
            Turn(prompt_ids=ids, completion_ids=list(written.token_ids), logprobs=list(written.logprobs)),
            self._chat.decode(written.token_ids),
            "length" if written.finish_reason == "length" else "stop",
        )

    def _prompt_ids(self, messages: list[dict[str, Any]], tools: Any, last: Turn | None) -> list[int]:
        if last is None:
            return self._chat.prompt_ids(messages, tools)
        replies = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        return self._chat.next_prompt_ids(last.prompt_ids, last.completion_ids, messages[replies[-1] + 1 :])

    def _budget(self, prompt_length: int, max_tokens: int | None = None) -> int:
        longest = min(
            self._settings.seq_len, self._settings.inference.model.max_model_len or self._settings.seq_len
        )
        return min(max_tokens or self._settings.orchestrator.sampling.max_tokens, longest - prompt_length)
