"""Who sits where in a real placement group: small actors in the seats of engines, ranks and workers."""

import os
from typing import Any, NamedTuple

import ray

from actors.placement import Seating, nodes_of_cluster, reserve, seat, seating
from rezero_ray.config import Config

Taken = tuple[str, str | None, list[int]]
"""Id of the node, CUDA_VISIBLE_DEVICES, and the GPUs that Ray has given."""


class Seats(NamedTuple):
    group: Any
    plan: Seating
    engines: list[Taken]
    ranks: list[Taken]
    workers: list[Taken]


def take_seats(config: Config, device: str = "cuda") -> Seats:
    """Reserve the placement group of a run and put an actor into each seat. Raises RunError as a run does."""
    plan = seating(config, device, nodes_of_cluster())
    group = reserve(plan, 60)
    sitting = [seat(ray.remote(Sitter), group, where).remote() for where in everyone(plan)]
    taken = ray.get([sitter.taken.remote() for sitter in sitting], timeout=120)
    engines, ranks = len(plan.engines), len(plan.ranks)
    return Seats(group, plan, taken[:engines], taken[engines : engines + ranks], taken[engines + ranks :])


def everyone(plan: Seating) -> list[Any]:
    return [*plan.engines, *plan.ranks, *plan.workers]


class Sitter:
    def taken(self) -> Taken:
        context = ray.get_runtime_context()
        gpus = [int(gpu) for gpu in context.get_accelerator_ids()["GPU"]]
        return context.get_node_id(), os.environ.get("CUDA_VISIBLE_DEVICES"), gpus
