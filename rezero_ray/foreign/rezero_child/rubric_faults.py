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

from .dict_messages import as_dicts


class RubricFaults:
    """What reward functions have raised since the rubric was guarded."""

    latest: str | None = None

    def caught(self, function: Callable[..., Any], error: Exception) -> None:
        name = getattr(function, "__name__", type(function).__name__)
        self.latest = f"{name} raised {type(error).__name__}: {error}"


def rubrics_of(rubric: Any) -> list[Any]:
    """The rubrics of a `RubricGroup`, however deep, or the one that is given."""
    inner = getattr(rubric, "rubrics", None)
    return [rubric] if not inner else [leaf for each in inner for leaf in rubrics_of(each)]


def guard_rubric(rubric: Any, *, dict_messages: bool = False) -> RubricFaults:
    """Guard every reward function of a `verifiers.Rubric`, or of the rubrics of a `RubricGroup`, in place.

    With `dict_messages` those that are not verifiers' own get the messages as plain dicts.
    """
    faults = RubricFaults()
    for each in rubrics_of(rubric):
        each.funcs = [
            _guarded(function, faults, dict_messages and not _is_verifiers(function))
            for function in each.funcs
        ]
    return faults


def _is_verifiers(function: Callable[..., Any]) -> bool:
    return str(getattr(function, "__module__", "")).partition(".")[0] == "verifiers"


def _guarded(function: Callable[..., Any], faults: RubricFaults, dict_messages: bool) -> Callable[..., Any]:
    """`function` with the same signature, which verifiers goes by; NaN, once for each rollout, where it raises."""

    @functools.wraps(function)
    async def guarded(**arguments: Any) -> Any:
        try:
            result = function(**(as_dicts(arguments) if dict_messages else arguments))
            if inspect.isawaitable(result):
                result = await result
            return [float(value) for value in result] if isinstance(result, list) else float(result)
        except Exception as error:
            faults.caught(function, error)
            rollouts = arguments.get("states") or arguments.get("completions") or arguments.get("prompts")
            return math.nan if rollouts is None else [math.nan] * len(rollouts)

    return guarded
