"""Keeps a reward function that raises, or takes too long, from becoming a reward of zero.

verifiers (0.1 to 0.3) logs what a reward function raises and scores 0.0 in its place, which no one can tell from a
bad answer. Here each function of a rubric is put into one that notes the fault for its group and answers NaN instead:
then so is the reward.
"""

import functools
import math
import time
from collections.abc import Callable
from typing import Any

from .bounded_calls import BoundedCalls, Overran
from .dict_messages import as_dicts
from .group_watch import current_watch


def rubrics_of(rubric: Any) -> list[Any]:
    """The rubrics of a `RubricGroup`, however deep, or the one that is given."""
    inner = getattr(rubric, "rubrics", None)
    return [rubric] if not inner else [leaf for each in inner for leaf in rubrics_of(each)]


def guard_rubric(
    rubric: Any, calls: BoundedCalls, *, limit: float | None = None, dict_messages: bool = False
) -> None:
    """Guard every reward function of a `verifiers.Rubric`, or of the rubrics of a `RubricGroup`, in place.

    Args:
        limit: seconds that a call of one function may take.
        dict_messages: those that are not verifiers' own get the messages as plain dicts.
    """
    for each in rubrics_of(rubric):
        each.funcs = [
            _guarded(function, calls, limit, dict_messages and not _is_verifiers(function))
            for function in each.funcs
        ]
    score_group = rubric.score_group

    @functools.wraps(score_group)
    async def timed(*arguments: Any, **options: Any) -> Any:
        started = time.monotonic()
        try:
            return await score_group(*arguments, **options)
        finally:
            current_watch().scoring += time.monotonic() - started

    rubric.score_group = timed


def _is_verifiers(function: Callable[..., Any]) -> bool:
    return str(getattr(function, "__module__", "")).partition(".")[0] == "verifiers"


def _guarded(
    function: Callable[..., Any], calls: BoundedCalls, limit: float | None, dict_messages: bool
) -> Callable[..., Any]:
    """`function` with the same signature, which verifiers goes by; NaN, once for each rollout, where it raises."""
    name = getattr(function, "__name__", type(function).__name__)

    @functools.wraps(function)
    async def guarded(**arguments: Any) -> Any:
        given = as_dicts(arguments) if dict_messages else arguments
        try:
            result = await calls.call(function, given, limit, f"{name} took longer than score_timeout")
            return [float(value) for value in result] if isinstance(result, list) else float(result)
        except Overran as error:
            current_watch().faults.append(str(error))
        except Exception as error:
            current_watch().faults.append(f"{name} raised {type(error).__name__}: {error}")
        rollouts = arguments.get("states") or arguments.get("completions") or arguments.get("prompts")
        return math.nan if rollouts is None else [math.nan] * len(rollouts)

    return guarded
