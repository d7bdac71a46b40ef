"""A replayed step against its record: which quantities differ, by how much, and where. Pure code."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

import msgspec

from rezero_ray.records import StepReport
from rezero_ray.step_record import StepRecord


class Quantity(msgspec.Struct, frozen=True):
    """One number, recorded and replayed.

    `scale` is the size of what the number is made of, where that is larger than the number: a loss near zero
    is a sum of large terms that cancel, and its rounding is relative to them. What is `exact` has no tolerance.
    """

    name: str
    recorded: float
    replayed: float
    scale: float = 0.0
    exact: bool = False

    @property
    def difference(self) -> float:
        return self.replayed - self.recorded

    def differs(self, tolerance: float) -> bool:
        """Whether they are further apart than `tolerance` times the largest of the two and the scale."""
        if self.recorded == self.replayed or (math.isnan(self.recorded) and math.isnan(self.replayed)):
            return False
        if self.exact:
            return True
        largest = max(abs(self.recorded), abs(self.replayed), self.scale)
        return not math.isfinite(self.difference) or abs(self.difference) > tolerance * largest


class StepComparison(msgspec.Struct, frozen=True):
    """A step's quantities; `advantage` is that of `rollout` (from 1) of prompt `prompt`, the furthest apart."""

    step: int
    quantities: list[Quantity]
    prompt: int
    rollout: int

    def differing(self, tolerance: float) -> list[str]:
        """Names of the quantities that differ."""
        return [quantity.name for quantity in self.quantities if quantity.differs(tolerance)]


def reported(report: StepReport) -> dict[str, float]:
    """What a learner says of a step, by the names of metrics.jsonl."""
    return {
        "loss": report.loss,
        "grad_norm": report.grad_norm,
        "entropy": report.metrics["entropy"],
        "mismatch_kl": report.metrics["mismatch_kl"],
        "lr": report.lr,
    }


def compare_step(
    row: Mapping[str, float],
    record: StepRecord,
    report: StepReport,
    advantages: Sequence[Sequence[float]],
    *,
    max_mismatch_kl: float,
) -> StepComparison:
    """Compare what was recorded with what was replayed.

    Args:
        row: the step's line of metrics.jsonl; a number that it lacks differs.
        record: the step's rollouts and recorded advantages.
        report, advantages: of the replay.
        max_mismatch_kl: the run's limit, by whose size its mismatch is judged.
    """
    recorded = [advantage for group in record.advantages for advantage in group]
    scales = {"loss": fmean(map(abs, recorded)), "mismatch_kl": max_mismatch_kl}
    quantities = [
        Quantity(name, row.get(name, math.nan), value, scales.get(name, 0.0))
        for name, value in reported(report).items()
    ]
    places = [
        (abs(new - old), group.prompt.index, number, old, new)
        for group, olds, news in zip(record.groups, record.advantages, advantages, strict=True)
        for number, (old, new) in enumerate(zip(olds, news, strict=True), start=1)
    ]
    _, prompt, rollout, old, new = max(places, key=lambda place: place[0])
    quantities += [
        Quantity("advantage", old, new, max(map(abs, recorded))),
        Quantity("rollouts", row.get("rollouts/trained", math.nan), len(recorded), exact=True),
    ]
    return StepComparison(step=report.step, quantities=quantities, prompt=prompt, rollout=rollout)
