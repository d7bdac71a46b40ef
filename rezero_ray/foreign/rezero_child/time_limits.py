"""Limits on what an environment's rollouts and tools take, and tools kept off the event loop."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .bounded_calls import BoundedCalls, Overran, within
from .contained import ModuleExited
from .group_watch import current_watch


@dataclass(frozen=True)
class TimeLimits:
    """Seconds that a rollout without its scoring, one call of a tool, and one of a reward function may take; None
    for no limit but the group's."""

    rollout: float | None = None
    tool: float | None = None
    score: float | None = None


def limit_tools(environment: Any, calls: BoundedCalls, limit: float | None) -> None:
    """Bound every tool of a `ToolEnv`, in place; nothing where there are none.

    What a tool raises is still a message to the model, which may have called it wrongly. One that takes too long, or
    tries to end the process, ends the rollout with an error.
    """
    tools = getattr(environment, "tool_map", None)
    if not tools:
        return
    environment.tool_map = {name: _bounded(name, tool, calls, limit) for name, tool in tools.items()}
    environment.stop_errors = [*getattr(environment, "stop_errors", []), Overran, ModuleExited]


def _bounded(
    name: str, tool: Callable[..., Any], calls: BoundedCalls, limit: float | None
) -> Callable[..., Any]:
    @functools.wraps(tool)
    async def bounded(**arguments: Any) -> Any:
        try:
            return await calls.call(tool, arguments, limit, f"tool {name} took longer than tool_timeout")
        except Overran as error:
            current_watch().faults.append(str(error))
            raise
        except ModuleExited as error:
            current_watch().faults.append(f"tool {name} {error}")
            raise

    return bounded


def limit_rollouts(environment: Any, limit: float | None) -> None:
    """Bound `environment.rollout`, in place: the conversation with its tools and model calls, without the scoring.
    Code in it that tries to end the process raises instead."""
    rollout = environment.rollout

    @functools.wraps(rollout)
    async def bounded(*arguments: Any, **options: Any) -> Any:
        try:
            return await within(
                limit, rollout(*arguments, **options), "a rollout took longer than rollout_timeout"
            )
        except ModuleExited as error:
            raise ModuleExited(f"the environment's code {error}") from error

    environment.rollout = bounded
