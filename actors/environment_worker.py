"""Environment workers: verifiers environments in process, against the engine's handle, no HTTP.

An environment that fails never becomes a reward: the group is rolled out again once, on a freshly built
environment, and then given up with its error; the run counts it.
"""

import json
import math
import time
from typing import Any

import ray

from actors.policy_client import PolicyClient
from rezero_ray.chat import ChatTokenizer
from rezero_ray.config.schema import Config, EnvConfig
from rezero_ray.environments_index import load_environment
from rezero_ray.records import Group, Prompt, Rollout, Turn

ATTEMPTS = 2
"""Tries of a group: as it is, and once more on a fresh environment."""


class EnvironmentError(Exception):
    """The environment, a tool or the rubric broke. Not the model's fault, so not a reward."""


@ray.remote(max_restarts=0)
class EnvironmentWorker:
    """One environment in one process; many groups at a time."""

    def __init__(self, config: Config, environment: EnvConfig, engines: list[Any]) -> None:
        self._config, self._settings, self._engines = config, environment, engines
        self._chat = ChatTokenizer.load(
            config.model.name, trust_remote_code=config.trainer.model.trust_remote_code
        )
        self._build()

    def _build(self) -> None:
        self._environment = load_environment(self._settings.id, self._settings.args)
        self._dataset = self._environment.get_dataset()

    async def size(self) -> int:
        """Number of training examples."""
        return len(self._dataset)

    async def run_group(self, prompt: Prompt, version: int) -> Group:
        """Roll out and score one prompt's group under policy `version`.

        An error of the environment is in the group's `error`; an engine's error is raised.
        """
        started = time.monotonic()
        error = ""
        for attempt in range(ATTEMPTS):
            try:
                rollouts = await self._attempt(prompt, version)
                return Group(prompt=prompt, rollouts=rollouts, seconds=time.monotonic() - started)
            except EnvironmentError as problem:
                error = str(problem)
                if attempt + 1 < ATTEMPTS:
                    self._build()
        return Group(prompt=prompt, rollouts=[], seconds=time.monotonic() - started, error=error)

    async def _attempt(self, prompt: Prompt, version: int) -> list[Rollout]:
        size = self._config.orchestrator.rollouts_per_example
        client = PolicyClient(
            self._engines[prompt.index % len(self._engines)], self._chat, self._config, prompt, version
        )
        example = self._dataset[prompt.example]
        rows = [{**example, "rezero_rollout": number} for number in range(size)]
        try:
            outputs = await self._environment.run_group(
                rows, client, "policy", {}, state_columns=["trajectory"]
            )
        except Exception as problem:
            if client.engine_error is not None:
                raise client.engine_error from problem
            raise EnvironmentError(f"{type(problem).__name__}: {problem}") from problem
        if client.engine_error is not None:
            raise client.engine_error
        return [self._rollout(output, version) for output in outputs]

    def _rollout(self, output: Any, version: int) -> Rollout:
        if output.get("error"):
            raise EnvironmentError(f"rollout failed: {output['error']}")
        reward = output.get("reward")
        if reward is None or not math.isfinite(reward):
            raise EnvironmentError(f"the reward is {reward}, not a finite number")
        turns = [_turn(step) for step in output["trajectory"]]
        if not turns:
            raise EnvironmentError("the rollout has no turn of the policy")
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
        EnvironmentError: a turn's prompt does not continue the turn before it, token by token.
    """
    token_ids = list(turns[0].prompt_ids)
    logprobs = [0.0] * len(token_ids)
    mask = [0] * len(token_ids)
    for turn in turns:
        if turn.prompt_ids[: len(token_ids)] != token_ids:
            raise EnvironmentError("a turn's prompt does not continue the turn before it")
        between = len(turn.prompt_ids) - len(token_ids)
        token_ids = [*turn.prompt_ids, *turn.completion_ids]
        logprobs += [0.0] * between + turn.logprobs
        mask += [0] * between + [1] * len(turn.completion_ids)
    return Rollout(
        token_ids=token_ids,
        logprobs=logprobs,
        loss_mask=mask,
        prompt_length=len(turns[0].prompt_ids),
        turns=len(turns),
        **fields,
    )
