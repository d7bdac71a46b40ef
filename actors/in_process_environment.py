"""A classic verifiers environment in this process, under this process's verifiers."""

from typing import Any

from actors.policy import Policy
from actors.policy_client import PolicyClient, turn_of
from actors.scored_rollout import ScoredRollout, shown_message
from rezero_ray.config.environment import EnvConfig
from rezero_ray.environments_index import BUILT_IN, load_environment, module_of
from rezero_ray.foreign.loading import time_limits
from rezero_ray.foreign.rezero_child.adaptation import adapt, held_out_dataset
from rezero_ray.foreign.rezero_child.contained import exits_contained
from rezero_ray.foreign.rezero_child.group_watch import ROLLOUT, GroupWatch, watched_group
from rezero_ray.foreign.rezero_child.model_call import plain_message
from rezero_ray.records import Prompt, Sizes


class InProcessEnvironment:
    """Built when its sizes are first asked for, and again by `renew`. An actor whose constructor fails dies without
    its error; this way the error is the answer."""

    def __init__(self, settings: EnvConfig) -> None:
        self._settings = settings
        self._environment: Any = None

    def _build(self) -> None:
        settings = self._settings
        with exits_contained(f"loading {module_of(settings.id)}"):
            environment = load_environment(settings.id, settings.args)
            self._dataset = environment.get_dataset()
            self._held_out = held_out_dataset(environment)
        adapt(
            environment,
            dict_messages=settings.dict_messages,
            max_turns=settings.max_turns,
            limits=time_limits(settings),
            zero_errors=settings.reward_errors == "zero",
            ours=settings.id in BUILT_IN,
        )
        self._environment = environment

    async def sizes(self) -> Sizes:
        if self._environment is None:
            self._build()
        return Sizes(len(self._dataset), len(self._held_out))

    async def renew(self) -> None:
        self._build()

    async def roll_out(self, prompt: Prompt, count: int, policy: Policy) -> list[ScoredRollout]:
        example = (self._held_out if prompt.held_out else self._dataset)[prompt.example]
        rows = [{**example, ROLLOUT: number} for number in range(count)]
        with watched_group() as watch:
            outputs = await self._environment.run_group(
                rows, PolicyClient(policy), "policy", {}, state_columns=["trajectory"]
            )
        return [_scored(output, number, watch) for number, output in enumerate(outputs)]


def _scored(output: Any, number: int, watch: GroupWatch) -> ScoredRollout:
    return ScoredRollout(
        reward=output.get("reward"),
        components={name: float(value) for name, value in (output.get("metrics") or {}).items()},
        turns=[turn_of(step) for step in output["trajectory"]],
        text=[shown_message(plain_message(message)) for message in (output.get("completion") or [])],
        truncated=bool(output.get("is_truncated")),
        error=watch.error(str(output["error"]) if output.get("error") else None),
        zeroed=watch.zeroed.get(number, {}),
        scoring=watch.scoring,
    )
