"""All actors of a run: made, started together, ended together."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from ray.util.placement_group import PlacementGroup

from actors.engine_group import EngineGroup
from actors.environment_group import EnvironmentGroup
from actors.environment_worker import EnvironmentWorker
from actors.learner_rank import LearnerGroup, LearnerRank
from actors.placement import Seating, await_seats, reserved, seat, seating_here
from actors.rollout_engine import RolloutEngine
from rezero_ray.config.schema import Config
from rezero_ray.errors import RunError


@dataclass(frozen=True)
class Crew:
    """The three groups that the controller speaks to, and what they said at their start."""

    engines: EngineGroup
    learners: LearnerGroup
    environments: EnvironmentGroup
    parameters: dict[str, int]
    bundles: list[dict[str, float]]


@dataclass(frozen=True)
class Scorers:
    """What rolls out and scores; nothing is trained."""

    engines: EngineGroup
    environments: EnvironmentGroup


@contextmanager
def start_crew(config: Config, device: str, alive: Callable[[], bool] = lambda: True) -> Iterator[Crew]:
    """Reserve the bundles, start engines, ranks and workers side by side; end them with the context, unless Ray is
    not `alive` any more and has ended them.

    On a shared GPU the ranks wait for the engines: vLLM measures the memory that is free while it starts, and takes
    what others take meanwhile for its own.
    """
    plan = seating_here(config, device)
    with reserved(plan, config.limits.cluster, alive) as group:

        def make_ranks() -> list[Any]:
            return [
                seat(LearnerRank, group, s).remote(config, rank, len(plan.ranks), device)
                for rank, s in enumerate(plan.ranks)
            ]

        learners = LearnerGroup(
            make_ranks, lambda: await_seats(group, plan.ranks, config.limits.learner_start), config
        )
        with _scorers(config, device, plan, group, alive) as (scorers, starting):
            if device == "cuda" and set(config.inference_gpu_ids) & set(config.trainer_gpu_ids):
                scorers.engines.started(starting)
            parameters = learners.start()
            scorers.engines.started(starting)
            yield Crew(scorers.engines, learners, scorers.environments, parameters, plan.bundles)


@contextmanager
def start_scorers(config: Config, device: str) -> Iterator[Scorers]:
    """The same without a learner."""
    plan = seating_here(config.model_copy(update={"trainer_gpu_ids": []}), device)
    with (
        reserved(plan, config.limits.cluster) as group,
        _scorers(config, device, plan, group) as (scorers, starting),
    ):
        scorers.engines.started(starting)
        yield scorers


@contextmanager
def _scorers(
    config: Config,
    device: str,
    plan: Seating,
    group: PlacementGroup,
    alive: Callable[[], bool] = lambda: True,
) -> Iterator[tuple[Scorers, list[Any]]]:
    """Engines and workers, and what the engines' start is waited for with."""
    engines = EngineGroup(
        [seat(RolloutEngine, group, s).remote(config, i, device) for i, s in enumerate(plan.engines)], config
    )
    seats = iter(plan.workers)
    environments = EnvironmentGroup(
        {
            environment.name: [
                seat(EnvironmentWorker, group, next(seats), max_concurrency=1000).remote(config, environment)
                for _ in range(config.orchestrator.env_workers)
            ]
            for environment in config.orchestrator.env
        },
        engines.handles,
        config,
    )
    try:
        yield Scorers(engines, environments), engines.start()
    finally:
        with suppress(RunError, KeyboardInterrupt):
            engines.stop(alive)
