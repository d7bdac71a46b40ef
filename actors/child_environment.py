"""An environment in an interpreter of its own. Text crosses to it and back; tokens and logprobs stay here."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec

from actors.policy import Overlong, Policy, Unanswered
from actors.scored_rollout import ScoredRollout, shown_message
from rezero_ray.config.environment import EnvConfig
from rezero_ray.foreign.interpreter import Interpreter
from rezero_ray.foreign.loading import load_record
from rezero_ray.foreign.process import ChildDied, ChildProcess
from rezero_ray.records import Prompt, Sizes, Turn

DEAF_SECONDS = 10.0
"""A child that does not take note of a cancelled group within this time hangs, and is ended."""


@dataclass
class RunningGroup:
    """The policy of a group that a child rolls out, and the turns that it wrote, by the number of the model call."""

    policy: Policy
    turns: dict[int, Turn] = field(default_factory=dict)


class ChildEnvironment:
    """Starts the child when it is first needed, and again after it has died or was ended for hanging."""

    def __init__(self, settings: EnvConfig, start_seconds: float) -> None:
        self._settings, self._start_seconds = settings, start_seconds
        self._child: ChildProcess | None = None
        self._facts: dict[str, Any] = {}
        self._starting = asyncio.Lock()
        self._groups: dict[int, RunningGroup] = {}
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
        group = self._groups[number] = RunningGroup(policy)
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
        rollout = int(question["rollout"])
        try:
            answer = await group.policy.answer(question["messages"], question["tools"], rollout=rollout)
        except Unanswered as problem:
            return {"error": str(problem)}
        if isinstance(answer, Overlong):
            return {"text": "", "tool_calls": [], "finish_reason": "length", "overlong": True}
        group.turns[int(question["call"])] = answer.turn
        return {
            "text": answer.text,
            "tool_calls": [msgspec.structs.asdict(call) for call in answer.tool_calls],
            "finish_reason": answer.finish_reason,
            "overlong": False,
        }


def _scored(record: dict[str, Any], group: RunningGroup) -> ScoredRollout:
    return ScoredRollout(
        reward=record["reward"],
        components={name: float(value) for name, value in record["metrics"].items()},
        turns=[group.turns[call] for call in record["calls"] if call in group.turns],
        text=[shown_message(message) for message in record["completion"]],
        truncated=bool(record.get("truncated")),
        error=record["error"],
        scoring=record.get("scoring"),
        zeroed=record.get("zeroed") or {},
    )
