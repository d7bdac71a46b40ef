"""An environment in a process of its own, asked by `rezero check`: what it holds, and how it scores given answers.

The process has the environment's own interpreter, or ours: what hangs or dies there is told, and ended.
"""

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from rezero_ray.config.environment import EnvConfig
from rezero_ray.foreign.loading import load_record
from rezero_ray.foreign.process import ChildDied, ChildFailed, ChildProcess
from rezero_ray.foreign.reward_ranges import raw_range_of, trained_reward
from rezero_ray.preflight.probes import Example, Probe
from rezero_ray.preflight.scripted_policy import ScriptedPolicy

SCORE_SECONDS = 60.0
"""For one answer, where the environment's `timeout` does not say less."""
_TOLD_CHARACTERS = 300  # of what a process said before it died


@dataclass(frozen=True)
class Scored:
    """What became of a probe: the rewards of a group of the same answer, as they would be trained on, or `wrong`.

    `cpu` are the seconds that the processor worked for the group; `zeroed` are the reward functions that failed and
    count as 0.0, and why.
    """

    probe: Probe
    rewards: tuple[float, ...]
    metrics: Mapping[str, float]
    cpu: float
    wrong: str | None = None
    zeroed: Mapping[str, str] = field(default_factory=dict)


class EnvironmentChild:
    """One child with a loaded environment, whose policy says what it is told to."""

    def __init__(self, env: EnvConfig, seconds: float, log: BinaryIO) -> None:
        self._env, self._seconds, self._log = env, seconds, log
        self._scripts: dict[int, ScriptedPolicy] = {}
        self._child: ChildProcess
        self.score_seconds = min(env.timeout or SCORE_SECONDS, SCORE_SECONDS)
        self.facts: dict[str, Any] = {}

    @classmethod
    @asynccontextmanager
    async def started(
        cls, python: Path | None, env: EnvConfig, *, start_seconds: float
    ) -> AsyncIterator["EnvironmentChild"]:
        """The environment, loaded by `python`, or by our interpreter, which then finds what we find.

        That, and each question but a score, may take `start_seconds`.

        Raises:
            ChildFailed: the environment cannot be loaded.
            TimeoutError: not in time.
        """
        ours = {} if python else {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with tempfile.TemporaryFile() as log:
            self = cls(env, start_seconds, log)
            self._child = await ChildProcess.start(
                python or Path(sys.executable), self._answer, variables=ours, log=log
            )
            try:
                self.facts = await self._ask("load", **load_record(env))
                yield self
            finally:
                await self._child.kill()

    async def describe(self) -> dict[str, Any]:
        return dict(await self._ask("describe"))

    async def prompts(self, most_bytes: int) -> list[Any]:
        """Those of the training prompts that are likely to have the most tokens, of so many bytes together."""
        return list(await self._ask("prompts", bytes=most_bytes))

    async def example(self, number: int) -> Example:
        record = await self._ask("example", number=number)
        solution = record["solution"]
        return Example(number, record["prompt"], None if solution is None else tuple(solution))

    async def score(self, probe: Probe, *, times: int = 1) -> Scored:
        """
        Raises:
            ChildDied: scoring ended the process.
            TimeoutError: no score in time; the process is of no more use.
        """
        before = self.cpu_seconds()
        number, result = self._child.begin("run_group", example=probe.example, held_out=False, rollouts=times)
        script = self._scripts[number] = ScriptedPolicy(probe.texts)
        try:
            async with asyncio.timeout(self.score_seconds):
                records = await result
        except ChildDied as problem:
            raise ChildDied(self._with_log(problem)) from None
        except ChildFailed as problem:
            return Scored(probe, (), {}, self.cpu_seconds() - before, script.refusal or str(problem))
        finally:
            self._scripts.pop(number, None)
        cpu = self.cpu_seconds() - before
        try:
            for record in records:
                script.require_sequence(record["calls"])
            rewards = tuple(self._reward(record) for record in records)
        except ValueError as problem:
            return Scored(probe, (), {}, cpu, str(problem))
        zeroed = {name: why for record in records for name, why in (record.get("zeroed") or {}).items()}
        return Scored(probe, rewards, records[0]["metrics"], cpu, zeroed=zeroed)

    def cpu_seconds(self) -> float:
        """Of the child and of all that it started, the living and those that it waited for."""
        import psutil

        total = 0.0
        try:
            child = psutil.Process(self._child.pid)
            for process in [child, *child.children(recursive=True)]:
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        except psutil.NoSuchProcess:
            pass
        return total

    def _reward(self, record: Mapping[str, Any]) -> float:
        """As the environment worker takes it.

        Raises:
            ValueError: the rollout failed, or its reward is none that may be trained on.
        """
        if record["error"] is not None:
            raise ValueError(f"the rollout failed: {record['error']}")
        env = self._env
        raw = raw_range_of(env.id, env.raw_reward_range, env.reward_range)
        return trained_reward(record["reward"], raw, env.reward_range)

    async def _ask(self, what: str, **fields: Any) -> Any:
        try:
            async with asyncio.timeout(self._seconds):
                return await self._child.ask(what, **fields)
        except ChildDied as problem:
            raise ChildDied(self._with_log(problem)) from None

    async def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        return self._scripts[int(question["request"])].answer(question)

    def _with_log(self, problem: ChildDied) -> str:
        """The problem and the last line that the child printed."""
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - _TOLD_CHARACTERS))
        lines = self._log.read().decode("utf-8", errors="replace").strip().splitlines()
        return f"{problem}".replace("; its log says why", "") + (f": {lines[-1]}" if lines else "")
