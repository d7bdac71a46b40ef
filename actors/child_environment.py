"""An environment in an interpreter of its own. Text crosses to it and back; tokens and logprobs stay here."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec

from actors.policy import EngineUnanswered, Overlong, Policy
from actors.scored_rollout import ScoredRollout, shown_message
from rezero_ray.config.environment import EnvConfig
from rezero_ray.foreign.interpreter import Interpreter
from rezero_ray.foreign.loading import load_record
from rezero_ray.foreign.process import ChildDied, ChildProcess
from rezero_ray.records import Prompt, Sizes, Turn

DEAF_SECONDS = 10.0
"""A child that does not take note of a cancelled group within this time hangs, and is ended."""


@dataclass
class Spoken:
    """One model call: the messages that it answered, and what the policy wrote; nothing where there was no room."""

    messages: list[dict[str, Any]]
    turn: Turn | None


@dataclass
class Conversations:
    """The model calls of one group, by rollout in the order in which they were made, and by call."""

    policy: Policy
    by_rollout: dict[int, list[Spoken]] = field(default_factory=dict)
    by_call: dict[int, Spoken] = field(default_factory=dict)

    def last(self, rollout: int, messages: list[dict[str, Any]]) -> Turn | None:
        """The turn that these messages go on from: the latest whose own messages they begin with, and whose answer
        comes next."""
        for spoken in reversed(self.by_rollout.get(rollout, [])):
            length = len(spoken.messages)
            goes_on = len(messages) > length and messages[length]["role"] == "assistant"
            last_answer = max(
                (i for i, each in enumerate(messages) if each["role"] == "assistant"), default=-1
            )
            if goes_on and last_answer == length and messages[:length] == spoken.messages:
                return spoken.turn
        return None


class ChildEnvironment:
    """Starts the child when it is first needed, and again after it has died or was ended for hanging."""

    def __init__(self, settings: EnvConfig, start_seconds: float) -> None:
        self._settings, self._start_seconds = settings, start_seconds
        self._child: ChildProcess | None = None
        self._facts: dict[str, Any] = {}
        self._starting = asyncio.Lock()
        self._groups: dict[int, Conversations] = {}
        self._endings: set[asyncio.Task[None]] = set()

    async def sizes(self) -> Sizes:
        await self._ready()
        return Sizes(int(self._facts["size"]), int(self._facts["held_out"]))

    async def renew(self) -> None:
        child = await self._ready()
        self._facts = await child.ask("load", **load_record(self._settings))

    async def roll_out(self, prompt: Prompt, count: int, policy: Policy) -> list[ScoredRollout]:
        child = await self._ready()
        number, result = child.begin(
            "run_group", example=prompt.example, held_out=prompt.held_out, rollouts=count
        )
        group = self._groups[number] = Conversations(policy)
        try:
            return [_scored(record, group) for record in await result]
        except asyncio.CancelledError:
            ending = asyncio.ensure_future(self._cancel(child, number))
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)
            raise
        finally:
            self._groups.pop(number, None)

    async def close(self) -> None:
        if self._child is not None:
            await self._child.kill()

    async def _ready(self) -> ChildProcess:
        async with self._starting:
            if self._child is None or not self._child.alive:
                interpreter = Interpreter(tuple(self._settings.requirements), self._settings.python)
                python = await asyncio.to_thread(interpreter.path, self._start_seconds)
                self._child = await ChildProcess.start(python, self._complete)
                try:
                    async with asyncio.timeout(self._start_seconds):
                        self._facts = await self._child.ask("load", **load_record(self._settings))
                except BaseException:
                    await self._child.kill()
                    raise
            return self._child

    async def _cancel(self, child: ChildProcess, group: int) -> None:
        try:
            async with asyncio.timeout(DEAF_SECONDS):
                with suppress(ChildDied):
                    await child.ask("cancel", group=group)
        except TimeoutError:
            await child.kill()

    async def _complete(self, question: dict[str, Any]) -> dict[str, Any]:
        group = self._groups.get(question["request"])
        if group is None:
            return {"error": "the group was given up"}
        rollout, messages = int(question["rollout"]), question["messages"]
        last = group.last(rollout, messages)
        spoken = group.by_rollout.setdefault(rollout, [])
        try:
            answer = await group.policy.answer(
                messages, question["tools"], rollout=rollout, turn=len(spoken), last=last
            )
        except EngineUnanswered as problem:
            return {"error": str(problem)}
        except Exception as problem:  # a chat template refuses, say, an order of roles
            return {"error": f"{type(problem).__name__}: {problem}"}
        if isinstance(answer, Overlong):
            return {"text": "", "tool_calls": [], "finish_reason": "length", "overlong": True}
        spoken.append(Spoken(messages, answer.turn))
        group.by_call[int(question["call"])] = spoken[-1]
        return {
            "text": answer.text,
            "tool_calls": [msgspec.structs.asdict(call) for call in answer.tool_calls],
            "finish_reason": answer.finish_reason,
            "overlong": False,
        }


def _scored(record: dict[str, Any], group: Conversations) -> ScoredRollout:
    return ScoredRollout(
        reward=record["reward"],
        components={name: float(value) for name, value in record["metrics"].items()},
        turns=[turn for call in record["calls"] if (turn := group.by_call[call].turn) is not None],
        text=[shown_message(message) for message in record["completion"]],
        truncated=bool(record.get("truncated")),
        error=record["error"],
        scoring=record.get("scoring"),
        zeroed=record.get("zeroed") or {},
    )
