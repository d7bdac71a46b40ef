"""All actors of a run: made, started together, ended together."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from ray.util.placement_group import remove_placement_group

from actors.engine_group import EngineGroup
from actors.environment_group import EnvironmentGroup
from actors.environment_worker import EnvironmentWorker
from actors.learner_rank import LearnerGroup, LearnerRank
from actors.placement import await_seats, reserve, seat, seating
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


@contextmanager
def start_crew(config: Config, device: str, *, cpus: float) -> Iterator[Crew]:
    """Reserve the bundles, start engines, ranks and workers side by side; end them with the context."""
    plan = seating(config, device, cpus=cpus)
    group = reserve(plan, config.limits.cluster)
    engines = EngineGroup(
        [seat(RolloutEngine, group, s).remote(config, i, device) for i, s in enumerate(plan.engines)], config
    )

    def make_ranks() -> list[Any]:
        return [
            seat(LearnerRank, group, s).remote(config, rank, len(plan.ranks), device)
            for rank, s in enumerate(plan.ranks)
        ]

    learners = LearnerGroup(
        make_ranks, lambda: await_seats(group, plan.ranks, config.limits.learner_start), config
    )
    seats = iter(plan.workers)
    environments = EnvironmentGroup(
        {
            environment.id: [
                seat(EnvironmentWorker, group, next(seats), max_concurrency=1000).remote(config, environment)
                for _ in range(config.orchestrator.env_workers)
            ]
            for environment in config.orchestrator.env
        },
        engines.handles,
        config,
    )
    try:
        starting = engines.start()
        parameters = learners.start()
        engines.started(starting)
        yield Crew(engines, learners, environments, parameters, plan.bundles)
    finally:
        with suppress(RunError, KeyboardInterrupt):
            engines.stop()
        remove_placement_group(group)
