"""Keeps a reward function of verifiers v1 (0.4) from giving what is no number: v1 takes `float(...)` of it, and its
errors do not name the function."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from .contained import ModuleExited, contained
from .group_watch import current_watch
from .reward_values import NoReward, one_reward


class RewardFault(Exception):
    """A reward function failed. The message names it."""


def guard_task(task: Any, *, zero: bool) -> None:
    """Guard the `@vf.reward` methods of a v1 task, and the functions that its config puts in their place.

    Args:
        zero: one that fails counts as 0.0, noted for the group that is scored, instead of failing the episode.
    """
    hooks = task.hooks

    def guarded_hooks(attribute: str) -> list[Callable[..., Any]]:
        found: list[Callable[..., Any]] = hooks(attribute)
        return [_guarded(function, zero) for function in found] if attribute == "reward" else found

    task.hooks = guarded_hooks


def _guarded(function: Callable[..., Any], zero: bool) -> Callable[..., Any]:
    name = str(getattr(function, "__name__", type(function).__name__))

    async def called(arguments: Mapping[str, Any]) -> Any:
        value = function(**arguments)
        return await value if inspect.isawaitable(value) else value

    @functools.wraps(function)
    async def guarded(**arguments: Any) -> Any:
        try:
            value = await contained(called(arguments))
            if isinstance(value, Mapping):
                return {key: one_reward(each) for key, each in value.items()}
            return one_reward(value)
        except (NoReward, ModuleExited) as error:
            why = f"{name} {error}"
        except Exception as error:
            why = f"{name} raised {type(error).__name__}: {error}"
        if not zero:
            raise RewardFault(why)
        current_watch().zero(0, name, why)
        return 0.0

    return guarded
