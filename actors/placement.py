"""One placement group for the whole run: a bundle for each inference replica, learner rank and environment worker.

On the CPU the same bundles are shares of the machine's CPUs, so that 1 + 3 runs anywhere. A GPU that is named for
inference and for training is one bundle, shared by halves.
"""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.waiting import wait_all
from rezero_ray.config.schema import Config
from rezero_ray.errors import RunError


class Seat(msgspec.Struct, frozen=True):
    """Where one actor goes: its bundle and its part of it."""

    bundle: int
    cpus: float
    gpus: float
    environment: dict[str, str]


class Seating(msgspec.Struct, frozen=True):
    """The bundles of the placement group and who sits in which."""

    bundles: list[dict[str, float]]
    engines: list[Seat]
    ranks: list[Seat]
    workers: list[Seat]


def seating(config: Config, device: str, *, cpus: float) -> Seating:
    """Lay out the bundles of a run: a pure function of the config and the cluster's CPUs."""
    workers = len(config.orchestrator.env) * config.orchestrator.env_workers
    if device == "cpu":
        return _cpu_seating(config, workers, cpus)
    return _gpu_seating(config, workers)


def _cpu_seating(config: Config, workers: int, cpus: float) -> Seating:
    replicas, ranks = config.inference.parallel.dp, len(config.trainer_gpu_ids)
    count = replicas + ranks + workers
    share = math.floor(100 * cpus / count) / 100
    engine_threads = _threads(int(cpus) // replicas)
    rank_threads = _threads(int(cpus) // max(1, ranks))
    seats = [
        Seat(bundle=index, cpus=share, gpus=0, environment=environment)
        for index, environment in enumerate(
            [engine_threads] * replicas + [rank_threads] * ranks + [_threads(1)] * workers
        )
    ]
    return Seating(
        bundles=[{"CPU": share} for _ in range(count)],
        engines=seats[:replicas],
        ranks=seats[replicas : replicas + ranks],
        workers=seats[replicas + ranks :],
    )


def _threads(count: int) -> dict[str, str]:
    """OpenMP's threads of one process. They hardly spin while they wait (GNU's library does so for 300,000 rounds):
    the cores are shared with the run's other processes, and whatever else the machine does."""
    return {"OMP_NUM_THREADS": str(max(1, count)), "GOMP_SPINCOUNT": "2000"}


def _gpu_seating(config: Config, workers: int) -> Seating:
    tp = config.inference.parallel.tp
    shared = set(config.inference_gpu_ids) & set(config.trainer_gpu_ids)
    bundles: list[dict[str, float]] = []
    bundle_of: dict[int, int] = {}
    engines = []
    for first in range(0, len(config.inference_gpu_ids), tp):
        gpus = config.inference_gpu_ids[first : first + tp]
        bundle_of |= dict.fromkeys(gpus, len(bundles))
        part = 0.5 if shared & set(gpus) else 1.0
        engines.append(Seat(len(bundles), cpus=1, gpus=part * len(gpus), environment=_visible(gpus)))
        bundles.append({"GPU": float(len(gpus)), "CPU": 1.0 + sum(gpu in shared for gpu in gpus)})
    ranks = []
    for gpu in config.trainer_gpu_ids:
        if gpu not in bundle_of:
            bundle_of[gpu] = len(bundles)
            bundles.append({"GPU": 1.0, "CPU": 1.0})
        part = 0.5 if gpu in shared else 1.0
        ranks.append(Seat(bundle_of[gpu], cpus=1, gpus=part, environment=_visible([gpu])))
    seats = [Seat(len(bundles) + i, cpus=0.5, gpus=0, environment={}) for i in range(workers)]
    return Seating(
        bundles=[*bundles, *({"CPU": 0.5} for _ in range(workers))],
        engines=engines,
        ranks=ranks,
        workers=seats,
    )


def _visible(gpus: list[int]) -> dict[str, str]:
    """Exactly the configured GPUs: Ray's own choice within a placement group is in no fixed order."""
    return {
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus)),
        "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1",
    }


def reserve(plan: Seating, seconds: float) -> PlacementGroup:
    """Wait for the placement group.

    Raises:
        RunError: it did not come within `seconds`; the message says what was asked for and what there is.
    """
    group = placement_group(plan.bundles, strategy="PACK")
    if not group.wait(seconds):
        remove_placement_group(group)
        have = {k: v for k, v in ray.cluster_resources().items() if k in ("CPU", "GPU")}
        raise RunError(
            "cluster",
            f"waited {seconds:.0f} s for a placement group of {plan.bundles}; the cluster has {have}. "
            "Ask for fewer GPUs or environment workers, or give Ray more (infra.num_cpus).",
        )
    return group


def await_seats(group: PlacementGroup, seats: Sequence[Seat], seconds: float) -> None:
    """Wait until the bundles of these seats are on nodes that answer.

    Ray learns of a node's death some seconds after it, and would put new actors there until then.

    Raises:
        RunError: they are not within `seconds`.
    """
    here = ray.remote(num_cpus=0, max_retries=-1)(_nothing)
    asked = [
        here.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group, where.bundle)).remote()
        for where in seats
    ]
    wait_all(asked, seconds, "nodes for the learner ranks: the cluster has lost some and none replaced them")


def _nothing() -> None: ...


def seat(actor: Any, group: PlacementGroup, where: Seat, **options: Any) -> Any:
    """The actor class with the options that put it on its seat."""
    return actor.options(
        num_cpus=where.cpus,
        num_gpus=where.gpus,
        scheduling_strategy=PlacementGroupSchedulingStrategy(
            placement_group=group,
            placement_group_bundle_index=where.bundle,
            placement_group_capture_child_tasks=False,
        ),
        runtime_env={"env_vars": {"TOKENIZERS_PARALLELISM": "false", **where.environment}},
        **options,
    )
