"""One placement group for the whole run: a bundle for each inference replica, learner rank and environment worker.

On the CPU the same bundles are shares of the nodes' CPUs, so that 1 + 3 runs anywhere. A GPU that is named for
inference and for training is one bundle, shared by halves. `[infra]` may ask for labels of the nodes.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.waiting import wait_all
from rezero_ray.config.schema import Config
from rezero_ray.errors import RunError
from rezero_ray.preflight.machine import visible_gpu_ids


class Node(msgspec.Struct, frozen=True):
    """A node of the cluster, with all that it has, taken or not."""

    resources: dict[str, float]
    labels: dict[str, str] = {}


class Seat(msgspec.Struct, frozen=True):
    """Where one actor goes: its bundle and its part of it."""

    bundle: int
    cpus: float
    gpus: float
    environment: dict[str, str]


class Seating(msgspec.Struct, frozen=True):
    """The bundles of the placement group, the labels that their nodes must have, and who sits in which."""

    bundles: list[dict[str, float]]
    labels: list[dict[str, str]]
    engines: list[Seat]
    ranks: list[Seat]
    workers: list[Seat]


def nodes_of_cluster() -> list[Node]:
    """The nodes that live, as Ray knows them."""
    return [Node(node["Resources"], node["Labels"]) for node in ray.nodes() if node["Alive"]]


def seating(
    config: Config, device: str, nodes: Sequence[Node], gpu_ids: Sequence[str] | None = None
) -> Seating:
    """Lay out the bundles of a run: a pure function of the config and the cluster's nodes.

    Args:
        gpu_ids: what CUDA_VISIBLE_DEVICES calls the GPUs that the config counts from 0; their numbers when None.
    """
    workers = len(config.orchestrator.env) * config.orchestrator.env_workers
    if device == "cpu":
        return _cpu_seating(config, workers, nodes)
    return _gpu_seating(config, workers, gpu_ids)


def seating_here(config: Config, device: str) -> Seating:
    """The seating on the cluster that this process is connected to. GPUs of this machine are those that this
    process's CUDA_VISIBLE_DEVICES leaves, counted from 0."""
    gpu_ids = visible_gpu_ids() if device == "cuda" and config.infra.on_this_machine() else None
    return seating(config, device, nodes_of_cluster(), gpu_ids)


def _cpu_seating(config: Config, workers: int, nodes: Sequence[Node]) -> Seating:
    replicas, ranks = config.inference.parallel.dp, len(config.trainer_gpu_ids)
    count = replicas + ranks + workers
    labels = (
        [config.infra.inference_node()] * replicas + [config.infra.trainer_node()] * ranks + [{}] * workers
    )
    share = min(_share(count, nodes, wanted) for wanted in labels)
    threads = int(max((node.resources.get("CPU", 0) for node in nodes), default=0))
    engine_threads = _threads(threads // replicas)
    rank_threads = _threads(threads // max(1, ranks))
    seats = [
        Seat(bundle=index, cpus=share, gpus=0, environment=environment)
        for index, environment in enumerate(
            [engine_threads] * replicas + [rank_threads] * ranks + [_threads(1)] * workers
        )
    ]
    return Seating(
        bundles=[{"CPU": share} for _ in range(count)],
        labels=labels,
        engines=seats[:replicas],
        ranks=seats[replicas : replicas + ranks],
        workers=seats[replicas + ranks :],
    )


def _threads(count: int) -> dict[str, str]:
    """OpenMP's threads of one process. They hardly spin while they wait (GNU's library does so for 300,000 rounds):
    the cores are shared with the run's other processes, and whatever else the machine does."""
    return {"OMP_NUM_THREADS": str(max(1, count)), "GOMP_SPINCOUNT": "2000"}


def _share(count: int, nodes: Sequence[Node], labels: Mapping[str, str]) -> float:
    """The most CPUs that `count` bundles can each have on the nodes with these labels, in hundredths.

    All of them, though some may go elsewhere: whichever Ray places first, the last one still fits.
    """
    hundredths = [int(100 * node.resources.get("CPU", 0) + 1e-6) for node in nodes if _has(node, labels)]
    candidates = {h // part for h in hundredths for part in range(1, count + 1)}
    fitting = [share for share in candidates if share and sum(h // share for h in hundredths) >= count]
    return max(fitting, default=1) / 100


def _has(node: Node, labels: Mapping[str, str]) -> bool:
    return labels.items() <= node.labels.items()


def _gpu_seating(config: Config, workers: int, gpu_ids: Sequence[str] | None) -> Seating:
    tp, infra = config.inference.parallel.tp, config.infra
    shared = set(config.inference_gpu_ids) & set(config.trainer_gpu_ids)
    bundles: list[dict[str, float]] = []
    labels: list[dict[str, str]] = []
    bundle_of: dict[int, int] = {}
    engines = []
    for first in range(0, len(config.inference_gpu_ids), tp):
        gpus = config.inference_gpu_ids[first : first + tp]
        bundle_of |= dict.fromkeys(gpus, len(bundles))
        part = 0.5 if shared & set(gpus) else 1.0
        engines.append(
            Seat(len(bundles), cpus=1, gpus=part * len(gpus), environment=_visible(config, gpus, gpu_ids))
        )
        bundles.append({"GPU": float(len(gpus)), "CPU": 1.0 + sum(gpu in shared for gpu in gpus)})
        labels.append(infra.inference_node() | (infra.trainer_node() if shared & set(gpus) else {}))
    ranks = []
    for gpu in config.trainer_gpu_ids:
        if gpu not in bundle_of:
            bundle_of[gpu] = len(bundles)
            bundles.append({"GPU": 1.0, "CPU": 1.0})
            labels.append(infra.trainer_node())
        part = 0.5 if gpu in shared else 1.0
        ranks.append(Seat(bundle_of[gpu], cpus=1, gpus=part, environment=_visible(config, [gpu], gpu_ids)))
    seats = [Seat(len(bundles) + i, cpus=0.5, gpus=0, environment={}) for i in range(workers)]
    return Seating(
        bundles=[*bundles, *({"CPU": 0.5} for _ in range(workers))],
        labels=[*labels, *({} for _ in range(workers))],
        engines=engines,
        ranks=ranks,
        workers=seats,
    )


def _visible(config: Config, gpus: list[int], gpu_ids: Sequence[str] | None) -> dict[str, str]:
    """Exactly the configured GPUs: Ray's own choice within a placement group is in no fixed order.

    On a cluster of somebody's it is the only right one, because others may have GPUs of the same node.
    """
    if not config.infra.on_this_machine():
        return {}
    return {
        "CUDA_VISIBLE_DEVICES": ",".join(str(gpu) if gpu_ids is None else gpu_ids[gpu] for gpu in gpus),
        "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1",
    }


def lacking(plan: Seating, nodes: Sequence[Node]) -> str | None:
    """Why the bundles will never fit on these nodes, all of them idle; None where they may."""
    for labels in plan.labels:
        if not any(_has(node, labels) for node in nodes):
            return f"no node is labelled {labels}"
    for resource in ("GPU", "CPU"):
        asked = sum(bundle.get(resource, 0) for bundle in plan.bundles)
        there = sum(node.resources.get(resource, 0) for node in nodes)
        if asked > there + 1e-6:
            return f"the bundles ask for {asked:g} {resource}s, and the cluster has {there:g}"
    for bundle, labels in zip(plan.bundles, plan.labels, strict=True):
        right = [node for node in nodes if _has(node, labels)]
        if not any(all(node.resources.get(name, 0) >= n for name, n in bundle.items()) for node in right):
            what = " and ".join(f"{n:g} {name}" for name, n in bundle.items())
            where = f"labelled {labels}" if labels else "of the cluster"
            return f"a bundle asks for {what} on one node, and none of {len(right)} {where} has that"
    return None


def reserve(plan: Seating, seconds: float) -> PlacementGroup:
    """Wait for the placement group.

    Raises:
        RunError: the cluster is too small, or busy for longer than `seconds`; the message says what was asked
            for and what there is.
    """
    nodes = nodes_of_cluster()
    why = lacking(plan, nodes)
    if why is not None:
        raise RunError("cluster", f"{why}: {_described(plan, nodes)}. {_REMEDY}")
    group = placement_group(plan.bundles, strategy="PACK", bundle_label_selector=plan.labels)
    deadline = time.monotonic() + seconds
    while not group.wait(1):  # Ctrl-C is heard between two waits only
        if time.monotonic() < deadline:
            continue
        remove_placement_group(group)
        what = f"waited {seconds:.0f} s for a placement group: {_described(plan, nodes)}, part of it taken"
        raise RunError("cluster", f"{what}. {_REMEDY}")
    return group


@contextmanager
def reserved(
    plan: Seating, seconds: float, alive: Callable[[], bool] = lambda: True
) -> Iterator[PlacementGroup]:
    """As `reserve`; given back with the context, where Ray is still `alive`."""
    group = reserve(plan, seconds)
    try:
        yield group
    finally:
        if alive():
            remove_placement_group(group)


_REMEDY = "Ask for fewer GPUs or environment workers or other labels, or give Ray more (infra.num_cpus, more nodes)."


def _described(plan: Seating, nodes: Sequence[Node]) -> str:
    """What is asked for and what there is."""
    asked = [{**bundle, **labels} for bundle, labels in zip(plan.bundles, plan.labels, strict=True)]
    have = [
        {name: node.resources[name] for name in ("CPU", "GPU") if name in node.resources} for node in nodes
    ]
    own = [
        {key: text for key, text in node.labels.items() if not key.startswith("ray.io/")} for node in nodes
    ]
    return f"bundles {asked}, nodes {[h | o for h, o in zip(have, own, strict=True)]}"


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
