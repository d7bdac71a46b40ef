"""Weighted reward components whose sum cannot leave [-1, 1].

An environment names its components with default weights; a TOML file may override some by name.
"""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence

import verifiers as vf

WEIGHT_GRID = 2.0**-30
"""Weights are rounded down to multiples of this. Sums of such weights are exact in floating point, and
rounding is monotone, so a weighted sum of components in [-1, 1] stays there to the last bit."""


def normalised_weights(
    defaults: Mapping[str, float], overrides: Mapping[str, float] | None
) -> dict[str, float]:
    """`defaults` with `overrides` put in by name, scaled to sum to one (up to `WEIGHT_GRID` per weight).

    Raises ValueError for a name that is not in `defaults`, for a negative or non-finite weight, and when
    all weights are zero.
    """
    valid = ", ".join(defaults)
    for name, weight in (overrides or {}).items():
        if name not in defaults:
            raise ValueError(f"unknown reward component {name!r} in weights; valid names: {valid}")
        if not isinstance(weight, int | float) or not math.isfinite(weight) or weight < 0:
            raise ValueError(f"weight of {name!r} must be a finite number >= 0, not {weight!r}")
    merged = {**defaults, **(overrides or {})}
    total = math.fsum(merged.values())
    if total <= 0:
        raise ValueError(f"at least one weight must be above zero; components: {valid}")
    return {name: math.floor(weight / total / WEIGHT_GRID) * WEIGHT_GRID for name, weight in merged.items()}


def weighted_rubric(
    components: Sequence[Callable[..., float | Awaitable[float]]],
    defaults: Mapping[str, float],
    overrides: Mapping[str, float] | None,
) -> vf.Rubric:
    """A rubric of the components, each under its `__name__`; `defaults` must name exactly these."""
    weights = normalised_weights(defaults, overrides)
    return vf.Rubric(funcs=list(components), weights=[weights[f.__name__] for f in components])


def signed(share: float) -> float:
    """Maps a share in [0, 1] to a score in [-1, 1]; what lies outside, or is not a number, is clipped."""
    if math.isnan(share):
        return -1.0
    return 2.0 * min(1.0, max(0.0, share)) - 1.0
