"""The policy of one group: messages in, a rollout engine's tokens out, for whoever runs the conversation."""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from actors.tool_calls import ReadCompletion, ToolCall
from rezero_ray.chat import (
    Call,
    ChatTokenizer,
    Conversation,
    clean_arguments,
    clean_text,
    policy_messages,
    policy_tools,
)
from rezero_ray.config.schema import Config
from rezero_ray.errors import RunError
from rezero_ray.records import BASE_POLICY, Prompt, Turn
from rezero_ray.sampler import sampling_seed

Result = TypeVar("Result")


@dataclass(frozen=True)
class Answer:
    """What the model wrote: its tokens, their text, and whether it was cut off ("length") or ended ("stop"). Tool
    calls that were read out of the text are not in it.

    Text and calls hold nothing that cannot be encoded: what the policy wrote breaks no environment's JSON.
    """

    turn: Turn
    text: str
    finish_reason: str
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class Overlong:
    """There is no room left for an answer behind these ids."""

    prompt_ids: list[int]


class Unanswered(Exception):
    """There is no answer; why is in `Policy.engine_error` or `Policy.refusal`."""


class Policy:
    """Serves one group of one prompt on one policy version.

    Why a call had no answer is kept here: an environment turns what its client raises into a rollout's error, or
    swallows it, and a group in which a message was not shown to the policy has no reward either way.

    Attributes:
        engine_error: the engine failed.
        refusal: what the environment said and the policy cannot be shown.
    """

    def __init__(
        self,
        engine: Any,
        chat: ChatTokenizer,
        config: Config,
        prompt: Prompt,
        version: int,
        *,
        attempt: int = 1,
    ) -> None:
        self._engine, self._chat, self._settings = engine, chat, config
        self._prompt, self._version, self._attempt = prompt, version, attempt
        self._conversations: defaultdict[int, Conversation] = defaultdict(Conversation)
        self._rewritten: dict[int, str] = {}
        self._overlong: dict[int, int] = {}
        self.engine_error: RunError | None = None
        self.refusal: str | None = None

    async def answer(self, messages: Any, tools: Any, *, rollout: int) -> Answer | Overlong:
        """One model call.

        Messages that continue an earlier call of the rollout are encoded behind its ids, which are kept. Any others
        begin a sequence of their own.

        Raises:
            Unanswered: the engine failed, or the policy cannot be shown these messages or tools.
        """
        messages = self._shown(lambda: policy_messages(messages))
        tools = self._shown(lambda: policy_tools(tools))
        conversation = self._conversations[rollout]
        ids = self._shown(lambda: self._prompt_ids(conversation, messages, tools))
        rewritten = conversation.rewritten(messages, tools)
        if rewritten is not None:
            self._rewritten.setdefault(rollout, rewritten)
        budget = self._budget(len(ids))
        if budget < 1:
            self._overlong.setdefault(rollout, len(ids))
            return Overlong(ids)
        seed = self._seed(rollout, len(conversation.calls))
        answer = await self._generate(self._version, ids, budget, seed, tools=tools)
        reply = {
            "role": "assistant",
            "content": answer.text,
            "tool_calls": [
                {"id": call.id, "name": call.name, "arguments": call.arguments} for call in answer.tool_calls
            ],
        }
        conversation.calls.append(Call(messages, tools, reply, answer.turn))
        return answer

    async def base_answer(
        self,
        messages: Any,
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
            Unanswered: the engine failed, or the model cannot be shown these messages.
        """
        ids = self._shown(lambda: self._chat.prompt_ids(messages, thinking=False))
        budget = self._budget(len(ids), max_tokens)
        if budget < 1:
            return Overlong(ids)
        return await self._generate(BASE_POLICY, ids, budget, self._seed(rollout, turn, "base"), temperature)

    def trouble(self, rollout: int) -> str | None:
        """What is known of a rollout without turns, or whose turns are no sequence; None where nothing is."""
        if rollout in self._rewritten:
            return (
                f"the environment rewrote the conversation ({self._rewritten[rollout]}); a rollout is trained on as "
                "one sequence, so a conversation may only grow"
            )
        if rollout in self._overlong:
            return (
                f"its prompt has {self._overlong[rollout]} tokens, which leaves no room for an answer in a sequence "
                f"of {self._longest()} (seq_len, inference.model.max_model_len)"
            )
        return None

    def _shown(self, build: Callable[[], Result]) -> Result:
        """What `build` returns. What it raises, its own error or a chat template's, is the doing of the environment
        or its model: nothing of the policy's own is encoded here."""
        try:
            return build()
        except Exception as problem:
            self.refusal = clean_text(f"{type(problem).__name__}: {problem}")
            raise Unanswered(self.refusal) from problem

    def _seed(self, rollout: int, turn: int, model: str = "") -> int:
        return sampling_seed(
            self._settings.seed, self._prompt.index, rollout, turn, model, attempt=self._attempt
        )

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
            raise Unanswered(str(problem)) from problem
        if read.refused is not None:
            self.refusal = clean_text(f"vLLM does not take the environment's tools: {read.refused}")
            raise Unanswered(self.refusal)
        return Answer(
            Turn(prompt_ids=ids, completion_ids=list(written.token_ids), logprobs=list(written.logprobs)),
            clean_text(read.text if read.calls else self._chat.decode(written.token_ids)),
            "length" if written.finish_reason == "length" else "stop",
            tuple(_clean_call(call) for call in read.calls),
        )

    async def _read_calls(self, written: Any, tools: list[dict[str, Any]]) -> ReadCompletion:
        if not tools or self._settings.inference.model.tool_call_parser is None:
            return ReadCompletion()
        ids = list(written.token_ids)
        unended = ids if written.finish_reason == "length" else ids[:-1]
        return await self._engine.tool_calls.remote(unended, tools)

    def _prompt_ids(
        self, conversation: Conversation, messages: list[dict[str, Any]], tools: list[dict[str, Any]]
    ) -> list[int]:
        continued = conversation.continued(messages, tools)
        if continued is None:
            return self._chat.prompt_ids(messages, tools)
        call, new_messages = continued
        turn: Turn = call.turn
        calls: list[Mapping[str, Any]] = messages[len(call.messages)].get("tool_calls") or []
        return self._chat.next_prompt_ids(turn.prompt_ids, turn.completion_ids, new_messages, calls)

    def _budget(self, prompt_length: int, max_tokens: int | None = None) -> int:
        return min(
            max_tokens or self._settings.orchestrator.sampling.max_tokens, self._longest() - prompt_length
        )

    def _longest(self) -> int:
        """Tokens of a sequence at most."""
        return min(
            self._settings.seq_len, self._settings.inference.model.max_model_len or self._settings.seq_len
        )


def _clean_call(call: ToolCall) -> ToolCall:
    """A parser of vLLM's may find arguments that are no text, or none."""
    given: Any = call.arguments
    arguments = given if isinstance(given, str) else json.dumps({} if given is None else given)
    return ToolCall(clean_text(str(call.id)), clean_text(str(call.name)), clean_arguments(arguments))
