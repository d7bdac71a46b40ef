"""Tries an environment with answers, and measures how fast it scores them."""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rezero_ray.config.environment import EnvConfig
from rezero_ray.config.problems import shown
from rezero_ray.foreign.process import ChildDied
from rezero_ray.preflight.environment_child import EnvironmentChild, Scored
from rezero_ray.preflight.environment_report import EnvironmentReport
from rezero_ray.preflight.probes import PERFECT, Probe, probes


@dataclass(frozen=True)
class Effort:
    """How much is tried.

    `examples` are answered in every way, those up to `solved` with their solution alone, for `solved_seconds`;
    with `twice` a second process does the first part the other way round, once.
    """

    examples: int
    random_texts: int
    solved: int = 0
    solved_seconds: float = 10.0
    twice: bool = False


QUICK = Effort(examples=4, random_texts=20)
FULL = Effort(examples=16, random_texts=100, solved=400, twice=True)


async def examine_scoring(
    python: Path | None, env: EnvConfig, child: EnvironmentChild, effort: Effort, *, start_seconds: float
) -> EnvironmentReport:
    """What a child with a loaded environment shows, beside a second one where `effort` says so.

    Raises:
        ChildFailed: the environment cannot be loaded a second time, or does not tell of its tasks.
        TimeoutError: not within `start_seconds`.
    """
    if not effort.twice:
        return await _report(env, child, effort)

    async def backwards() -> EnvironmentReport:
        async with EnvironmentChild.started(python, env, start_seconds=start_seconds) as second:
            return await _report(env, second, effort, backwards=True)

    report, again = await asyncio.gather(_report(env, child, effort), backwards())
    return replace(report, again=again)


async def _report(
    env: EnvConfig, child: EnvironmentChild, effort: Effort, *, backwards: bool = False
) -> EnvironmentReport:
    described = await child.describe()
    size = len(described["train"])
    examples = [await child.example(number) for number in range(min(effort.examples, size))]
    planned = probes(examples, random_texts=effort.random_texts)
    scored, ended = await (_scored(child, planned[::-1]) if backwards else _scored(child, planned, times=2))
    report = EnvironmentReport(env, described, child.facts, tuple(scored), ended)
    if backwards or ended or not any(each.solution for each in examples):
        return report
    more = [await child.example(number) for number in range(len(examples), min(effort.solved, size))]
    planned = [Probe(PERFECT, each.number, each.solution) for each in more if each.solution]
    before = child.cpu_seconds()
    solved, ended = await _scored(child, planned, seconds=effort.solved_seconds)
    return replace(
        report, solved=tuple(solved), solved_cpu=child.cpu_seconds() - before, ended=ended or report.ended
    )


async def _scored(
    child: EnvironmentChild, planned: Sequence[Probe], *, times: int = 1, seconds: float = math.inf
) -> tuple[list[Scored], str | None]:
    """Scores of groups of `times` the same answer, begun within `seconds`, and what ended the child if it ended."""
    scored: list[Scored] = []
    started = time.monotonic()
    for probe in planned:
        if time.monotonic() - started > seconds:
            break
        text = f"{probe.kind}: {shown(probe.texts[-1])}"
        try:
            scored.append(await child.score(probe, times=times))
        except TimeoutError:
            return scored, f"no score within {child.score_seconds:.0f} s for {text}"
        except ChildDied as problem:
            return scored, f"{problem}, while it scored {text}"
    return scored, None
