"""The doctor's look at every node that the bundles of a run went to: a task each, on that node."""

import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
import ray
from ray.util.placement_group import PlacementGroup, placement_group_table
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.placement import Seating
from actors.waiting import wait_all
from rezero_ray.place.machine import Effort, measure_machine
from rezero_ray.place.records import MachineFigures


class NodeFigures(msgspec.Struct, frozen=True):
    """A node, and how many of a run's engines and learner ranks sit there."""

    figures: MachineFigures
    engines: int
    ranks: int
    is_drivers: bool


def examine_nodes(
    plan: Seating, group: PlacementGroup, *, disk: Path, effort: Effort, seconds: float
) -> list[NodeFigures]:
    """The nodes of the bundles, and the driver's own, where `disk` lies; the driver's first.

    Raises:
        RunError: a node does not answer within `seconds`.
    """
    node_of: Mapping[int, str] = placement_group_table(group)["bundles_to_node_id"]
    own = ray.get_runtime_context().get_node_id()
    nodes = sorted({own, *node_of.values()}, key=lambda node: (node != own, node))
    look = ray.remote(num_cpus=0)(_look)
    asked = time.time()
    answers = [
        look.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            runtime_env={"env_vars": {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}},
        ).remote(disk if node == own else None, effort)
        for node in nodes
    ]
    told = wait_all(answers, seconds, f"{len(nodes)} nodes to be examined")
    answered = time.time()
    return [
        NodeFigures(
            msgspec.structs.replace(
                figures,
                host=f"{figures.host} ({node[:6]})",
                clock_offset_s=clock_offset(asked, began, ended, answered),
            ),
            engines=sum(node_of[seat.bundle] == node for seat in plan.engines),
            ranks=sum(node_of[seat.bundle] == node for seat in plan.ranks),
            is_drivers=node == own,
        )
        for node, (began, figures, ended) in zip(nodes, told, strict=True)
    ]


def clock_offset(asked: float, began: float, ended: float, answered: float) -> float:
    """The least that a node's clock (`began`, `ended`) must be off for the four to have happened in this order."""
    return min(0.0, began - asked) + max(0.0, ended - answered)


def _look(disk: Path | None, effort: Effort) -> tuple[float, MachineFigures, float]:
    began = time.time()
    return began, measure_machine(disk, effort), time.time()
