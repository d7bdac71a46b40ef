"""May a run begin one more step? Pure: seconds and dollars come in as numbers.

It may if that step, a checkpoint behind it and the end of the run still fit into every limit of `[budget]`. The step
is expected to last as long as the longest of the last ones, and so is a checkpoint before the first was written. A
step that lasts longer than those before it is not cut off.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from rezero_ray.config.budget import BudgetConfig
from rezero_ray.cost import dollars

RECENT = 5
"""Steps that are looked back on, and never fewer than lie between two checkpoints: copying the state for one is a
part of the next step."""

END_SECONDS = 30.0
"""From the last checkpoint to the end of what is paid for: report, MLflow, actors, Volumes."""


class Attempt(msgspec.Struct, frozen=True):
    """One life of a run, as run.json has it.

    `seconds` run from the start of what is paid for. `start_up` and `checkpoint` are the seconds until its first step
    could begin and of its longest checkpoint; None where it did not get that far. `usd_per_hour` is None where no
    rate was known, else `rate` says where it came from.
    """

    started: str
    seconds: float
    usd_per_hour: float | None = None
    rate: str = ""
    start_up: float | None = None
    checkpoint: float | None = None


class Spent(NamedTuple):
    """Of all attempts of a run; `usd` is None where what an hour costs is not known."""

    seconds: float
    usd: float | None


def spent_in(attempts: Sequence[Attempt], usd_per_hour: float | None) -> Spent:
    """Each attempt at its own rate; one whose rate was not known at today's, `usd_per_hour`."""
    seconds = sum(attempt.seconds for attempt in attempts)
    usd = 0.0
    for attempt in attempts:
        rate = usd_per_hour if attempt.usd_per_hour is None else attempt.usd_per_hour
        if rate is None:
            return Spent(seconds, None)
        usd += rate * attempt.seconds / 3600
    return Spent(seconds, usd)


class Pace:
    """How long the parts of this run take: what comes is expected to take no longer."""

    def __init__(
        self, steps: Iterable[float] = (), *, interval: int = 1, checkpoint: float | None = None
    ) -> None:
        """`steps`: seconds of those taken already; `interval`: steps between two checkpoints."""
        self._steps = deque(steps, maxlen=max(RECENT, interval))
        self.checkpoint = checkpoint
        self._evaluation = 0.0

    def stepped(self, seconds: float) -> None:
        """A step has been taken."""
        self._steps.append(seconds)

    def evaluated(self, seconds: float) -> None:
        """An evaluation has been made, or given up."""
        self._evaluation = max(self._evaluation, seconds)

    def step_ahead(self, *, evaluation: bool) -> float:
        """Seconds to the end of the run if it takes one more step, with an `evaluation` behind it or without."""
        longest = max(self._steps, default=0.0)
        checkpoint = longest if self.checkpoint is None else self.checkpoint
        return longest + checkpoint + (self._evaluation if evaluation else 0.0) + END_SECONDS

    def end_ahead(self) -> float:
        """Seconds to the end of the run if it stops now and saves."""
        return (self.checkpoint or max(self._steps, default=0.0)) + END_SECONDS


class OutOfBudget(NamedTuple):
    """The limit that would be passed: its key and value, how things stand, and what would be enough."""

    key: str
    limit: float
    standing: str
    enough: str


def out_of_budget(
    limits: BudgetConfig, spent: Spent, ahead: float, usd_per_hour: float | None
) -> OutOfBudget | None:
    """The first limit that `ahead` more seconds would pass; None where there is room for them.

    Raises:
        ValueError: dollars are limited and what an hour costs is not known.
    """
    if limits.max_usd is not None:
        if spent.usd is None or usd_per_hour is None:
            raise ValueError("budget.max_usd needs to know what an hour costs")
        more = usd_per_hour * ahead / 3600
        if spent.usd + more > limits.max_usd:
            standing = f"{_of(spent.usd, limits.max_usd)} dollars are spent, and {dollars(more)} more"
            return _stop("budget.max_usd", limits.max_usd, standing, spent.usd + more)
    if limits.max_hours is not None:
        hours, more = spent.seconds / 3600, ahead / 3600
        if hours + more > limits.max_hours:
            standing = f"{hours:.3g} of {limits.max_hours:g} hours are spent, and {more:.2g} hours more"
            return _stop("budget.max_hours", limits.max_hours, standing, hours + more)
    return None


def _stop(key: str, limit: float, standing: str, needed: float) -> OutOfBudget:
    enough = 2 * limit if 2 * limit >= needed else float(f"{2 * needed:.3g}")
    return OutOfBudget(key, limit, standing, f"{enough:g}")


def _of(usd: float, limit: float) -> str:
    return f"{dollars(usd).removesuffix(' dollars')} of {dollars(limit).removesuffix(' dollars')}"
