"""What a child is told to load."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Protocol

from rezero_ray.environments_index import loader_of, module_of
from rezero_ray.foreign.rezero_child.time_limits import TimeLimits


class EnvironmentSettings(Protocol):
    """The part of `EnvConfig` that a child needs to know."""

    @property
    def id(self) -> str: ...

    @property
    def args(self) -> Mapping[str, Any]: ...

    @property
    def max_turns(self) -> int | None: ...

    @property
    def dict_messages(self) -> bool | None: ...

    @property
    def rollout_timeout(self) -> float | None: ...

    @property
    def tool_timeout(self) -> float | None: ...

    @property
    def score_timeout(self) -> float | None: ...

    @property
    def reward_errors(self) -> str: ...


def load_record(settings: EnvironmentSettings) -> dict[str, Any]:
    """The fields of a `load` request."""
    return {
        "id": settings.id,
        "module": module_of(settings.id),
        "loader": loader_of(settings.id),
        "args": dict(settings.args),
        "max_turns": settings.max_turns,
        "dict_messages": settings.dict_messages,
        "limits": asdict(time_limits(settings)),
        "reward_errors": settings.reward_errors,
    }


def time_limits(settings: EnvironmentSettings) -> TimeLimits:
    """Of its rollouts, tools and reward functions."""
    return TimeLimits(settings.rollout_timeout, settings.tool_timeout, settings.score_timeout)
