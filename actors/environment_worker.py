"""Environment workers: verifiers environments in process, against the engine's handle, no HTTP.

An environment that fails never becomes a reward: the group is given up with its error, and the schedule begins it
again on a freshly built environment or puts the prompt aside.
"""

import asyncio
import json
import time
from typing import Any

import numpy as np
import ray

from actors.policy_client import PolicyClient
from rezero_ray.chat import ChatTokenizer
from rezero_ray.codec import encode
from rezero_ray.config.schema import Config, EnvConfig
from rezero_ray.environments_index import load_environment
from rezero_ray.errors import RunError
from rezero_ray.records import Group, Rollout, Turn
from rezero_ray.rubric_faults import guard_rubric
from rezero_ray.schedule import Send


@ray.remote(max_restarts=-1)
class EnvironmentWorker:
    """One environment in one process; many groups at a time."""

    def __init__(self, config: Config, environment: EnvConfig) -> None:
        self._config, self._settings = config, environment
        self._chat = ChatTokenizer.load(
            config.model.name, trust_remote_code=config.trainer.model.trust_remote_code
        )
        self._build()

    def _build(self) -> None:
        self._environment = load_environment(self._settings.id, self._settings.args)
        self._dataset = self._environment.get_dataset()
        self._faults = guard_rubric(self._environment.rubric)

    async def size(self) -> int:
        """Number of training examples."""
        return len(self._dataset)

    async def run_group(self, send: Send, engine: Any) -> bytes:
        """Roll out and score one prompt's group under one policy version; `engine` is a `RolloutEngine`'s handle.

        Returns:
            A `Group`, encoded.

        Raises:
            RunError: the environment broke or took longer than `limits.group`, or the engine failed.
        """
        started = time.monotonic()
        if send.attempt > 1:
            self._build()
        limit = self._config.limits.group
        try:
            async with asyncio.timeout(limit):
                rollouts = await self._roll_out(send, engine)
        except TimeoutError:
            raise self._broken(send, f"no score within limits.group = {limit:.0f} s") from None
        return encode(Group(prompt=send.prompt, rollouts=rollouts, seconds=time.monotonic() - started))

    async def _roll_out(self, send: Send, engine: Any) -> list[Rollout]:
        client = PolicyClient(engine, self._chat, self._config, send.prompt, send.version)
        example = self._dataset[send.prompt.example]
        size = self._config.orchestrator.rollouts_per_example
        rows = [{**example, "rezero_rollout": number} for number in range(size)]
        try:
            outputs = await self._environment.run_group(
                rows, client, "policy", {}, state_columns=["trajectory"]
            )
        except Exception as problem:
            if client.engine_error is not None:
                raise client.engine_error from problem
            raise self._broken(send, f"{type(problem).__name__}: {problem}") from problem
        if client.engine_error is not None:
            raise client.engine_error
        try:
            return [self._rollout(output, send.version) for output in outputs]
        except ValueError as problem:
            raise self._broken(send, str(problem)) from problem

    def _broken(self, send: Send, why: str) -> RunError:
        return RunError("environment", f"{self._settings.id}, prompt {send.prompt.index}: {why}")

    def _rollout(self, output: Any, version: int) -> Rollout:
        """One verifiers output as a record.

        Raises:
            ValueError: it holds an error, no turn, or no reward within `reward_range`.
        """
        if output.get("error"):
            raise ValueError(f"the rollout failed: {output['error']}")
        reward, (lowest, highest) = output.get("reward"), self._settings.reward_range
        if reward is None or not lowest <= reward <= highest:
            raise ValueError(
                f"the reward is {reward}, outside the environment's reward_range = [{lowest}, {highest}]"
                + (f"; {self._faults.latest}" if self._faults.latest else "")
            )
        turns = [_turn(step) for step in output["trajectory"]]
        if not turns:
            raise ValueError("the rollout has no turn of the policy")
        return merge_turns(
            turns,
            policy_version=version,
            reward=float(reward),
            components={name: float(value) for name, value in (output.get("metrics") or {}).items()},
            text=[_message(message) for message in (output.get("completion") or [])],
            truncated=bool(output.get("is_truncated")),
        )


def _turn(step: Any) -> Turn:
    tokens = step["tokens"]
    return Turn(
        prompt_ids=list(tokens["prompt_ids"]),
        completion_ids=list(tokens["completion_ids"]),
        logprobs=list(tokens["completion_logprobs"]),
    )


def _message(message: Any) -> dict[str, str]:
    record = message if isinstance(message, dict) else message.model_dump()
    content = record.get("content")
    return {
        "role": str(record.get("role", "")),
        "content": content if isinstance(content, str) else json.dumps(content, default=str),
    }


def merge_turns(turns: list[Turn], **fields: Any) -> Rollout:
    """One sequence out of the turns of a trajectory.

    Raises:
        ValueError: a turn's prompt does not continue the turn before it, token by token.
    """
    token_ids, trained, logprobs = turns[0].prompt_ids, [], []
    for turn in turns:
        if turn.prompt_ids[: len(token_ids)] != token_ids:
            raise ValueError("a turn's prompt does not continue the turn before it")
        trained.append(slice(len(turn.prompt_ids), len(turn.prompt_ids) + len(turn.completion_ids)))
        logprobs.append(turn.logprobs)
        token_ids = [*turn.prompt_ids, *turn.completion_ids]
    all_logprobs = np.zeros(len(token_ids), dtype=np.float32)
    mask = np.zeros(len(token_ids), dtype=np.uint8)
    for where, of_turn in zip(trained, logprobs, strict=True):
        all_logprobs[where] = of_turn
        mask[where] = 1
    return Rollout(
        token_ids=np.array(token_ids, dtype=np.int32),
        logprobs=all_logprobs,
        loss_mask=mask,
        prompt_length=len(turns[0].prompt_ids),
        turns=len(turns),
        **fields,
    )
