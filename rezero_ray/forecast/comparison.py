"""Forecast against measured: by step in metrics.jsonl, over the run in forecast.json and on the console. Pure.

Two forecasts stand beside what was measured. The plan's rests on assumed lengths; the other one is the same
arithmetic at the lengths that came, so that it is the model that is judged, not the guess.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from rezero_ray.config import Config
from rezero_ray.forecast.beforehand import Forecast
from rezero_ray.forecast.lengths import Lengths
from rezero_ray.forecast.model_work import ModelWork
from rezero_ray.forecast.place import Place
from rezero_ray.forecast.step_time import StepTime, step_time
from rezero_ray.preflight.machine import Device
from rezero_ray.preflight.memory import GIB, Need, learner_need
from rezero_ray.preflight.model_facts import ModelFacts

SECONDS = {
    "step": "time/step",
    "rollouts": "time/rollout",
    "training": "time/train",
    "publishing": "time/sync",
}
"""What is compared, and the key of metrics.jsonl that has the measured figure."""

MEMORY = {"engine": "memory/engine_gib", "learner": "memory/learner_gib"}
"""The largest of each kind."""


@dataclass(frozen=True)
class Compared:
    """One quantity, in seconds or GiB. `planned` before the run, `forecast` at the lengths that came."""

    what: str
    unit: str
    planned: float
    forecast: float
    measured: float

    @property
    def ratio(self) -> float:
        """Forecast / measured: above 1 where it took less than forecast."""
        return self.forecast / self.measured if self.measured else math.inf


@dataclass(frozen=True)
class Expectation:
    """What a run compares itself with: the plan on the place that it found, and what its processes need."""

    config: Config
    facts: ModelFacts
    device: Device
    work: ModelWork
    plan: Forecast
    engine: Need
    learner: Need
    kv_tokens: int | None

    @property
    def place(self) -> Place:
        return self.plan.place

    def of_step(self, lengths: Lengths) -> dict[str, float]:
        """For the step's line of metrics.jsonl: `forecast/step` and so on, at the lengths that came. Memory is what
        the fullest micro-batch of this step takes."""
        seconds = seconds_by_name(
            step_time(self.config, self.work, self.place, lengths, kv_tokens=self.kv_tokens)
        )
        learner = learner_need(self.config, self.facts, self.device, tokens=lengths.fullest).bytes / GIB
        figures = seconds | {"engine_gib": self.engine.bytes / GIB, "learner_gib": learner}
        return {f"forecast/{name}": value for name, value in figures.items()}


def seconds_by_name(step: StepTime) -> dict[str, float]:
    return {"step": step.seconds_per_step} | {
        part.name: part.seconds for part in step.parts if part.name in SECONDS
    }


def memory_row(peaks: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """For the step's line of metrics.jsonl: GiB of the largest process of each kind; what is 0 was not told."""
    return {MEMORY[kind]: max(found) / GIB for kind, found in peaks.items() if found and max(found)}


def steady(rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The steps that count: all with a forecast but the run's first, in which much is done for the first time."""
    found = [row for row in rows if "forecast/step" in row]
    later = [row for row in found if row["step"] > 1]
    return later or found


def compare(rows: Sequence[Mapping[str, Any]], expectation: Expectation) -> list[Compared]:
    """Medians over the steady steps, and the peaks of memory."""
    counted = steady(rows)
    if not counted:
        return []
    planned = seconds_by_name(expectation.plan.step)
    found = [
        Compared(
            name,
            "s",
            planned[name],
            median(row[f"forecast/{name}"] for row in counted),
            median(row[key] for row in counted),
        )
        for name, key in SECONDS.items()
    ]
    for kind, need in (("engine", expectation.engine), ("learner", expectation.learner)):
        peaks = [row[MEMORY[kind]] for row in rows if MEMORY[kind] in row]
        at_came = [row[f"forecast/{kind}_gib"] for row in rows if f"forecast/{kind}_gib" in row]
        if peaks and at_came:
            found.append(Compared(f"memory/{kind}", "GiB", need.bytes / GIB, max(at_came), max(peaks)))
    return found


def record(rows: Sequence[Mapping[str, Any]], expectation: Expectation) -> dict[str, Any]:
    """forecast.json: what the forecast rests on, its terms, and how it compares so far."""
    plan = expectation.plan
    return {
        "place": asdict(plan.place),
        "assumption": plan.assumption,
        "overlap": plan.step.overlap,
        "plan_seconds": {
            part.name: {term.what: term.seconds for term in part.terms} for part in plan.step.parts
        },
        "plan_gib": {
            kind: {term.what: term.bytes / GIB for term in need.terms}
            for kind, need in (("engine", expectation.engine), ("learner", expectation.learner))
        },
        "steps_compared": [row["step"] for row in steady(rows)],
        "compared": [asdict(each) | {"ratio": each.ratio} for each in compare(rows, expectation)],
    }


def comparison_lines(compared: Sequence[Compared], steps: Sequence[int]) -> list[str]:
    """One fact a line, for the console."""
    which = f"step {steps[0]}" if len(steps) == 1 else f"the median of steps {steps[0]} to {steps[-1]}"
    lines = [f"forecast against measured, {which}:"]
    for each in compared:
        figures = f"forecast {each.forecast:.1f}, measured {each.measured:.1f} {each.unit}"
        lines.append(f"  {each.what}: {figures} (ratio {each.ratio:.2f}); the plan said {each.planned:.1f}")
    return lines
