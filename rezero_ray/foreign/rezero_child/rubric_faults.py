"""Keeps a reward function that fails from becoming a silent reward of zero.

verifiers (0.1 to 0.3) logs what a reward function raises, or returns that is no number, and scores 0.0 in its place,
which no one can tell from a bad answer. Here each function of a rubric is replaced by one that checks the value.
Where it fails, the fault is noted for its group and the function answers NaN; with `zero` it answers 0.0, as in
verifiers, and the rollout says so.
"""

import functools
import inspect
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from .bounded_calls import BoundedCalls, Overran
from .contained import ModuleExited, contained
from .dict_messages import as_dicts
from .group_watch import ROLLOUT, current_watch, told
from .reward_values import NoReward, group_rewards, one_reward, real_number

_GUARDED = "__rezero_guarded__"


@dataclass(frozen=True)
class Rules:
    """How reward functions are called.

    Attributes:
        limit: seconds that a call of one function may take.
        dict_messages: those that are not verifiers' own get the messages as plain dicts.
        zero: a function that fails counts as 0.0. One that takes too long is a fault in either case.
    """

    limit: float | None = None
    dict_messages: bool = False
    zero: bool = False


def rubrics_of(rubric: Any) -> list[Any]:
    """The rubrics of a `RubricGroup`, however deep, or the one that is given."""
    inner = getattr(rubric, "rubrics", None)
    return [rubric] if not inner else [leaf for each in inner for leaf in rubrics_of(each)]


def guard_rubric(rubric: Any, calls: BoundedCalls, rules: Rules) -> None:
    """Guard every reward function of a `verifiers.Rubric`, or of the rubrics of a `RubricGroup`, in place, and those
    that are added later when they are first called. Functions of one name get names of their own: `same`, `same_2`.

    A rubric that is guarded already, because two environments share it, stays as it is.
    """
    if getattr(rubric.score_group, _GUARDED, False):
        return
    _guard_functions(rubric, calls, rules)
    score_group = rubric.score_group

    @functools.wraps(score_group)
    async def checked(*arguments: Any, **options: Any) -> Any:
        _guard_functions(rubric, calls, rules)
        watch, started = current_watch(), time.monotonic()
        try:
            result = await contained(score_group(*arguments, **options))
        except ModuleExited as error:
            raise ModuleExited(f"{type(rubric).__name__}.score_group {error}") from error
        finally:
            watch.scored = True
            watch.scoring += time.monotonic() - started
        if not watch.faults:
            states = arguments[0] if arguments else options.get("states", ())
            watch.faults += _wrong_scores(type(rubric).__name__, states)
        return result

    setattr(checked, _GUARDED, True)
    rubric.score_group = checked


def _guard_functions(rubric: Any, calls: BoundedCalls, rules: Rules) -> None:
    """Guard the functions that are not guarded yet."""
    leaves = rubrics_of(rubric)
    taken = {_name(each) for leaf in leaves for each in leaf.funcs if hasattr(each, _GUARDED)}
    for leaf in leaves:
        if all(hasattr(each, _GUARDED) for each in leaf.funcs):
            continue
        found = []
        for function in leaf.funcs:
            if not hasattr(function, _GUARDED):
                name = _free_name(_name(function), taken)
                taken.add(name)
                is_group = bool(leaf._is_group_func(function))
                function = _guarded(function, name, is_group, calls, rules)
            found.append(function)
        leaf.funcs = found


def _name(function: Callable[..., Any]) -> str:
    inner = getattr(function, "func", function)  # of functools.partial
    return str(getattr(function, "__name__", None) or getattr(inner, "__name__", type(function).__name__))


def _free_name(name: str, taken: set[str]) -> str:
    if name not in taken:
        return name
    return next(f"{name}_{number}" for number in count(2) if f"{name}_{number}" not in taken)


def _is_verifiers(function: Callable[..., Any]) -> bool:
    return str(getattr(function, "__module__", "")).partition(".")[0] == "verifiers"


def _guarded(
    function: Callable[..., Any], name: str, is_group: bool, calls: BoundedCalls, rules: Rules
) -> Callable[..., Any]:
    """`function` under `name`, with the signature that verifiers goes by, which asks for the state, or the states,
    as well."""
    asked = "states" if is_group else "state"
    signature = inspect.signature(function)
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    adds = asked not in signature.parameters and inspect.Parameter.VAR_KEYWORD not in kinds
    dict_messages = rules.dict_messages and not _is_verifiers(function)

    @functools.wraps(function)
    async def guarded(**arguments: Any) -> Any:
        states = _states(arguments, is_group)
        given = {key: value for key, value in arguments.items() if not (adds and key == asked)}
        given = as_dicts(given) if dict_messages else given
        results: list[float | str]
        try:
            too_long = f"{name} took longer than score_timeout"
            value = await calls.call(function, given, rules.limit, too_long)
            checked = group_rewards(value, len(states)) if is_group else [one_reward(value)]
            results = [each if isinstance(each, float) else f"{name} {each}" for each in checked]
        except Overran as error:
            current_watch().faults.append(str(error))
            results = [math.nan] * len(states)
        except (NoReward, ModuleExited) as error:
            results = [f"{name} {error}"] * len(states)
        except Exception as error:
            results = [f"{name} raised {type(error).__name__}: {error}"] * len(states)
        rewards = [
            each if isinstance(each, float) else _failed(name, each, state, rules)
            for each, state in zip(results, states, strict=True)
        ]
        return rewards if is_group else rewards[0]

    if adds:
        state = inspect.Parameter(asked, inspect.Parameter.KEYWORD_ONLY)
        parameters = [*signature.parameters.values(), state]
        guarded.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    guarded.__name__ = name
    setattr(guarded, _GUARDED, True)
    return guarded


def _states(arguments: Mapping[str, Any], is_group: bool) -> list[Any]:
    """Of the rollouts that a call is about; empty ones where a caller other than verifiers gives none."""
    if not is_group:
        return [arguments.get("state") or {}]
    every = [
        arguments.get(name) for name in ("states", "completions", "prompts", "answers", "infos", "tasks")
    ]
    given: Any = next((each for each in every if each is not None), [])
    return list(given) if arguments.get("states") is not None else [{}] * len(given)


def _failed(name: str, why: str, state: Any, rules: Rules) -> float:
    """Notes the fault. Returns what takes the place of the reward."""
    watch = current_watch()
    number = (state.get("input") or {}).get(ROLLOUT)
    if not rules.zero or number is None:
        watch.faults.append(told(why))
        return math.nan
    watch.zero(int(number), name, why)
    return 0.0


def _wrong_scores(rubric: str, states: Iterable[Any]) -> list[str]:
    """What a rubric that combines its functions in its own way gave that is no reward, or no number for a metric.
    The others become plain floats."""
    found = []
    for state in states:
        try:
            state["reward"] = one_reward(state.get("reward"))
        except NoReward as problem:
            found.append(f"{rubric}.score_group {problem}")
        for name, value in (state.get("metrics") or {}).items():
            try:
                state["metrics"][name] = real_number(value)
            except NoReward as problem:
                found.append(f"{rubric}.score_group, metric {name}: {problem}")
    return found
