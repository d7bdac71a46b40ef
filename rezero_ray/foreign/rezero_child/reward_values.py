"""What counts as a reward: a finite number for one rollout, a list of them for a group. Pure.

verifiers (0.1 to 0.3) takes `float(...)` of what a function returns and scores 0.0 where that fails; a list, which
TRL-style functions return for one completion, is then a reward of zero. Here the value is checked, and named.
"""

import inspect
import math
import numbers
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

_SHOWN_CHARACTERS = 60


class NoReward(ValueError):
    """A returned value is no reward. The message continues the function's name: `returned a list of 2`."""


def one_reward(value: Any) -> float:
    """A value as a finite float: Python's and NumPy's real numbers, booleans, Decimal, Fraction, and arrays and
    tensors without dimensions.

    Raises:
        NoReward: it is something else, NaN, infinite, or too large for a float.
    """
    number = real_number(value)
    if not math.isfinite(number):
        raise NoReward(f"returned {_described(value)}, which is not a finite number")
    return number


def group_rewards(value: Any, count: int) -> list[float | NoReward]:
    """The rewards of a group's `count` rollouts, each as a finite float or why it is none.

    A list, a tuple, and an array or tensor of one dimension will do.

    Raises:
        NoReward: it is something else, or has another length.
    """
    values = _listed(value)
    if values is None:
        raise NoReward(f"returned {_described(value)}; a function of a whole group returns a list of {count}")
    if len(values) != count:
        raise NoReward(f"returned {len(values)} values for {count} rollouts")
    return [_one_of_several(each, place) for place, each in enumerate(values)]


def real_number(value: Any) -> float:
    """As `one_reward`, with NaN and the infinities.

    Raises:
        NoReward: the value is no real number, or too large for a float.
    """
    _close(value)
    try:
        if isinstance(value, numbers.Real | Decimal):
            return float(value)
        if getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)):
            inner = value.item()
            if getattr(inner, "ndim", None) is None:  # no endless descent
                real_number(inner)
                return float(value)  # not the item: that of a masked value is 0.0
    except NoReward:
        raise
    except Exception as problem:
        raise NoReward(f"returned {_described(value)}, which float() refuses: {problem}") from problem
    hint = "; a function of one rollout returns one number" if _listed(value) is not None else ""
    raise NoReward(f"returned {_described(value)}{hint}")


def _one_of_several(value: Any, place: int) -> float | NoReward:
    try:
        return one_reward(value)
    except NoReward as problem:
        return NoReward(f"{problem} for rollout {place}")


def _listed(value: Any) -> Sequence[Any] | None:
    if isinstance(value, list | tuple):
        return value
    if getattr(value, "ndim", None) == 1 and callable(getattr(value, "tolist", None)):
        try:
            return list(value.tolist())
        except Exception:
            return None
    return None


def _close(value: Any) -> None:
    """Python warns of a coroutine that nobody awaits."""
    if inspect.iscoroutine(value):
        value.close()


def _described(value: Any) -> str:
    """A value for a message: its type, its size, and the beginning of its text."""
    if value is None:
        return "None"
    kind = type(value).__name__
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"{_with_article(kind)} of shape {tuple(shape)}"
    if isinstance(value, list | tuple | dict | set | frozenset):
        return f"{_with_article(kind)} of {len(value)}"
    try:
        text = repr(value)
    except Exception:
        text = "?"
    if isinstance(value, float):
        return text
    short = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
    return f"{_with_article(kind)} ({short})"


def _with_article(kind: str) -> str:
    return f"{'an' if kind[:1].lower() in 'aeiou' else 'a'} {kind}"
