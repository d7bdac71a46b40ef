"""Environment workers: one verifiers environment each, in this process or in an interpreter of its own.

An environment that fails never becomes a reward: the group is given up with its error, and the schedule begins it
again on a freshly built environment or puts the prompt aside.
"""

import asyncio
import time
from typing import Any

import ray

from actors.child_environment import ChildEnvironment
from actors.in_process_environment import InProcessEnvironment
from actors.policy import Policy
from actors.scored_rollout import EnvironmentSource, ScoredRollout, first_break, merge_turns
from rezero_ray.chat import ChatTokenizer, clean_text
from rezero_ray.codec import encode
from rezero_ray.config.environment import EnvConfig
from rezero_ray.config.schema import Config
from rezero_ray.errors import RunError
from rezero_ray.foreign.reward_ranges import raw_range_of, trained_reward
from rezero_ray.records import Group, Rollout, Sizes
from rezero_ray.schedule import Send


@ray.remote(max_restarts=-1)
class EnvironmentWorker:
    """One environment in one process; many groups at a time."""

    def __init__(self, config: Config, environment: EnvConfig) -> None:
        self._config, self._settings = config, environment
        self._chat = ChatTokenizer.load(
            config.model.name,
            trust_remote_code=config.trainer.model.trust_remote_code,
            thinking=config.orchestrator.sampling.thinking,
        )
        self._raw = raw_range_of(environment.id, environment.raw_reward_range, environment.reward_range)
        self._environment: EnvironmentSource = (
            ChildEnvironment(environment, config.limits.engine_start)
            if environment.requirements or environment.python
            else InProcessEnvironment(environment)
        )

    async def sizes(self) -> Sizes:
        """How many tasks the environment has."""
        try:
            return await self._environment.sizes()
        except Exception as problem:
            why = f"{self._settings.name}: {type(problem).__name__}: {problem}"
            raise RunError("environment", why) from problem

    async def run_group(self, send: Send, engine: Any) -> bytes:
        """Roll out and score one prompt's group under one policy version; `engine` is a `RolloutEngine`'s handle.

        Returns:
            A `Group`, encoded.

        Raises:
            RunError: the environment broke or took longer than its limit, or the engine failed.
        """
        started = time.monotonic()
        name, limit = "limits.group", self._config.limits.group
        if self._settings.timeout is not None and self._settings.timeout < limit:
            name, limit = "its timeout", self._settings.timeout
        try:
            await self._environment.sizes()  # a child that is yet to start has `limits.engine_start` for that
        except Exception as problem:
            raise self._broken(send, f"{type(problem).__name__}: {problem}") from problem
        try:
            async with asyncio.timeout(limit):
                rollouts, scoring = await self._roll_out(send, engine)
        except TimeoutError:
            raise self._broken(send, f"no score within {name} = {limit:.0f} s") from None
        seconds = time.monotonic() - started
        return encode(Group(prompt=send.prompt, rollouts=rollouts, seconds=seconds, scoring=scoring))

    async def _roll_out(self, send: Send, engine: Any) -> tuple[list[Rollout], float | None]:
        """The rollouts, and the seconds of their scoring."""
        policy = Policy(engine, self._chat, self._config, send.prompt, send.version, attempt=send.attempt)
        count = send.rollouts or self._config.orchestrator.rollouts_per_example
        try:
            if send.attempt > 1:
                await self._environment.renew()
            scored = await self._environment.roll_out(send.prompt, count, policy)
        except Exception as problem:
            self._require_answered(send, policy)
            raise self._broken(send, f"{type(problem).__name__}: {problem}") from problem
        self._require_answered(send, policy)
        try:
            rollouts = [
                self._rollout(each, send.version, policy.trouble(number))
                for number, each in enumerate(scored)
            ]
        except ValueError as problem:
            raise self._broken(send, str(problem)) from problem
        return rollouts, scored[0].scoring

    def _require_answered(self, send: Send, policy: Policy) -> None:
        """
        Raises:
            RunError: a model call had no answer, whatever the environment made of it.
        """
        if policy.engine_error is not None:
            raise policy.engine_error
        if policy.refusal is not None:
            raise self._broken(send, policy.refusal)

    def _broken(self, send: Send, why: str) -> RunError:
        return RunError(
            "environment", clean_text(f"{self._settings.name}, prompt {send.prompt.index}: {why}")
        )

    def _rollout(self, scored: ScoredRollout, version: int, trouble: str | None) -> Rollout:
        """One rollout as a record. `trouble`: what the policy knows of it.

        Raises:
            ValueError: it holds an error, no turn, turns that are no sequence, or no reward within its range.
        """
        if scored.error is not None:
            raise ValueError(f"the rollout failed: {scored.error}")
        if not scored.turns:
            raise ValueError(trouble or "the rollout has no turn of the policy")
        if (broken := first_break(scored.turns)) is not None:
            raise ValueError(f"turn {broken + 1} does not continue turn {broken}: {trouble or 'other ids'}")
        reward = trained_reward(scored.reward, self._raw, self._settings.reward_range)
        return merge_turns(
            scored.turns,
            policy_version=version,
            reward=reward,
            components=dict(scored.components),
            text=scored.text,
            truncated=scored.truncated,
            zeroed=dict(scored.zeroed),
        )
