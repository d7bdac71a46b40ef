"""Keeps a reward function that raises from becoming a reward of zero.

verifiers (0.1 to 0.3) logs what a reward function raises and scores 0.0 in its place, which no one can tell from a
bad answer. Here each function of a rubric is put into one that answers NaN instead: then so is the reward, which the
environment worker takes for an error of the environment.
"""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any


class RubricFaults:
    """What reward functions have raised since the rubric was guarded."""

    latest: str | None = None

    def caught(self, function: Callable[..., Any], error: Exception) -> None:
        name = getattr(function, "__name__", type(function).__name__)
        self.latest = f"{name} raised {type(error).__name__}: {error}"


def guard_rubric(rubric: Any) -> RubricFaults:
    """Guard every reward function of a `verifiers.Rubric`, or of the rubrics of a `RubricGroup`, in place."""
    faults = RubricFaults()
    for each in getattr(rubric, "rubrics", None) or [rubric]:
        each.funcs = [_guarded(function, faults) for function in each.funcs]
    return faults


def _guarded(function: Callable[..., Any], faults: RubricFaults) -> Callable[..., Any]:
    """`function` with the same signature, which verifiers goes by; NaN, once for each rollout, where it raises."""

    @functools.wraps(function)
    async def guarded(**arguments: Any) -> Any:
        try:
            result = function(**arguments)
            if inspect.isawaitable(result):
                result = await result
            return [float(value) for value in result] if isinstance(result, list) else float(result)
        except Exception as error:
            faults.caught(function, error)
            rollouts = arguments.get("states") or arguments.get("completions") or arguments.get("prompts")
            return math.nan if rollouts is None else [math.nan] * len(rollouts)

    return guarded
