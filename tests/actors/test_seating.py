"""Claims about `seating`, which lays out the placement group without Ray."""

import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.placement import Node, Seating, lacking, seating
from rezero_ray.config.schema import Config
from tests.record_builders import make_config


def config(inference: int, training: int, *, first_training: int | None = None, **changes: Any) -> Config:
    first = inference if first_training is None else first_training
    return make_config(
        inference_gpu_ids=list(range(inference)),
        trainer_gpu_ids=list(range(first, first + training)),
        **{"inference__parallel": {"dp": inference}, **changes},
    )


def machine(cpus: float, gpus: float = 0) -> list[Node]:
    return [Node({"CPU": cpus, "GPU": gpus})]


def demands(plan: Seating) -> list[dict[str, float]]:
    """What the seats of each bundle ask for, all together."""
    asked: list[Counter[str]] = [Counter() for _ in plan.bundles]
    for seat in [*plan.engines, *plan.ranks, *plan.workers]:
        asked[seat.bundle]["CPU"] += seat.cpus  # type: ignore[assignment]
        asked[seat.bundle]["GPU"] += seat.gpus  # type: ignore[assignment]
    return [dict(bundle) for bundle in asked]


def visible(plan: Seating) -> list[str]:
    return [seat.environment["CUDA_VISIBLE_DEVICES"] for seat in [*plan.engines, *plan.ranks]]


@pytest.mark.parametrize(("inference", "training"), [(1, 3), (1, 1), (2, 6)])
def test_each_gpu_is_a_bundle_with_one_actor_that_sees_it_alone(inference: int, training: int) -> None:
    plan = seating(config(inference, training), "cuda", machine(64, 8))
    total = inference + training
    assert (len(plan.engines), len(plan.ranks), len(plan.workers)) == (inference, training, 1)
    assert [bundle.get("GPU") for bundle in plan.bundles] == [1.0] * total + [None]
    assert [seat.bundle for seat in [*plan.engines, *plan.ranks, *plan.workers]] == list(range(total + 1))
    assert [seat.gpus for seat in [*plan.engines, *plan.ranks]] == [1.0] * total
    assert visible(plan) == [str(gpu) for gpu in range(total)]


def test_ids_of_the_config_count_the_visible_gpus() -> None:
    """With CUDA_VISIBLE_DEVICES=5,2,7 GPU 0 of the config is the machine's 5: the others belong to somebody else."""
    shared = seating(config(1, 2, first_training=1), "cuda", machine(64, 8), ("5", "2", "7"))
    assert visible(shared) == ["5", "2", "7"]
    split = seating(
        config(2, 1, inference__parallel={"dp": 1, "tp": 2}), "cuda", machine(64, 8), ("5", "2", "7")
    )
    assert visible(split) == ["5,2", "7"]


def test_a_gpu_named_twice_is_one_bundle_shared_by_halves() -> None:
    plan = seating(config(1, 3, first_training=0), "cuda", machine(64, 8))
    assert [bundle.get("GPU") for bundle in plan.bundles] == [1.0, 1.0, 1.0, None]
    assert [(seat.bundle, seat.gpus) for seat in [*plan.engines, *plan.ranks]] == [
        *[(0, 0.5), (0, 0.5)],
        *[(1, 1.0), (2, 1.0)],
    ]
    assert visible(plan) == ["0", "0", "1", "2"]


def test_a_tensor_parallel_engine_has_its_gpus_in_one_bundle() -> None:
    plan = seating(config(4, 2, inference__parallel={"dp": 2, "tp": 2}), "cuda", machine(64, 8))
    assert [bundle.get("GPU") for bundle in plan.bundles] == [2.0, 2.0, 1.0, 1.0, None]
    assert visible(plan) == ["0,1", "2,3", "4", "5"]


@given(
    inference=st.integers(1, 4),
    training=st.integers(1, 8),
    workers=st.integers(1, 3),
    first=st.integers(0, 4),
)
def test_no_bundle_is_asked_for_more_than_it_has(
    inference: int, training: int, workers: int, first: int
) -> None:
    changed = config(inference, training, first_training=first, orchestrator__env_workers=workers)
    for device in ("cpu", "cuda"):
        plan = seating(changed, device, machine(4))
        assert len(plan.workers) == workers
        for bundle, asked in zip(plan.bundles, demands(plan), strict=True):
            assert asked["CPU"] <= bundle["CPU"]
            assert asked["GPU"] <= bundle.get("GPU", 0)


@pytest.mark.parametrize(("inference", "training"), [(1, 3), (1, 1), (2, 6)])
def test_on_the_cpu_the_same_topology_is_shares_of_the_cpus(inference: int, training: int) -> None:
    plan = seating(config(inference, training), "cpu", machine(2))
    assert (len(plan.engines), len(plan.ranks), len(plan.workers)) == (inference, training, 1)
    assert [seat.bundle for seat in [*plan.engines, *plan.ranks, *plan.workers]] == list(
        range(len(plan.bundles))
    )
    assert not any("GPU" in bundle for bundle in plan.bundles)


@given(
    inference=st.integers(1, 8),
    training=st.integers(1, 8),
    workers=st.integers(1, 8),
    cpus=st.integers(1, 256),
)
def test_cpu_shares_never_exceed_the_machines_cpus(
    inference: int, training: int, workers: int, cpus: int
) -> None:
    plan = seating(config(inference, training, orchestrator__env_workers=workers), "cpu", machine(cpus))
    assert sum(bundle["CPU"] for bundle in plan.bundles) <= cpus + 1e-9
    assert all(bundle["CPU"] > 0 for bundle in plan.bundles)


@pytest.mark.parametrize(("cpus", "engine", "rank"), [(2, "2", "1"), (1, "1", "1"), (12, "12", "4")])
def test_engines_and_ranks_take_turns_and_so_each_side_has_all_the_threads(
    cpus: int, engine: str, rank: str
) -> None:
    plan = seating(config(1, 3), "cpu", machine(cpus))
    assert [seat.environment["OMP_NUM_THREADS"] for seat in plan.engines] == [engine]
    assert [seat.environment["OMP_NUM_THREADS"] for seat in plan.ranks] == [rank] * 3
    assert [seat.environment["OMP_NUM_THREADS"] for seat in plan.workers] == ["1"]


def test_on_a_cluster_of_somebodys_ray_chooses_the_gpus() -> None:
    plan = seating(config(1, 3, infra__kind="ray"), "cuda", machine(64, 8))
    assert not any("CUDA_VISIBLE_DEVICES" in seat.environment for seat in [*plan.engines, *plan.ranks])


LABELS = {
    "infra__kind": "ray",
    "infra__inference_labels": {"rezero": "inference"},
    "infra__trainer_labels": {"rezero": "train"},
}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_bundles_of_engines_and_ranks_carry_the_labels_of_their_nodes(device: str) -> None:
    plan = seating(config(1, 3, **LABELS), device, machine(64, 8))
    assert plan.labels == [{"rezero": "inference"}, *[{"rezero": "train"}] * 3, {}]


def test_a_shared_gpu_is_on_a_node_with_the_labels_of_both() -> None:
    labels = LABELS | {"infra__inference_labels": {"zone": "a"}, "infra__trainer_labels": {"fast": "yes"}}
    plan = seating(config(1, 1, first_training=0, **labels), "cuda", machine(64, 8))
    assert plan.labels == [{"zone": "a", "fast": "yes"}, {}]


@given(
    sizes=st.lists(st.integers(0, 16), min_size=1, max_size=6).filter(any),
    labelled=st.sets(st.integers(0, 5)),
    ranks=st.integers(1, 6),
)
def test_cpu_shares_fit_on_several_nodes_whatever_ray_places_first(
    sizes: list[int], labelled: set[int], ranks: int
) -> None:
    nodes = [
        Node({"CPU": float(size)}, {"rezero": "train"} if index in labelled else {})
        for index, size in enumerate(sizes)
    ]
    plan = seating(
        config(1, ranks, infra__kind="ray", infra__trainer_labels={"rezero": "train"}), "cpu", nodes
    )
    share = plan.bundles[0]["CPU"]
    right = [node for node in nodes if node.labels and node.resources["CPU"] > 0]
    if right:
        assert sum(int(node.resources["CPU"] / share + 1e-9) for node in right) >= len(plan.bundles)
        assert lacking(plan, nodes) is None
    else:
        assert "labelled {'rezero': 'train'}" in (lacking(plan, nodes) or "")


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        (machine(64, 3), "ask for 4 GPUs, and the cluster has 3"),
        (machine(3, 8), "ask for 4.5 CPUs, and the cluster has 3"),
        ([Node({"CPU": 0.5, "GPU": 1})] * 16, "asks for 1 GPU and 1 CPU on one node, and none of 16"),
    ],
)
def test_a_cluster_that_is_too_small_is_known_without_waiting(nodes: list[Node], why: str) -> None:
    assert re.search(why, lacking(seating(config(1, 3), "cuda", nodes), nodes) or "")
    assert lacking(seating(config(1, 3), "cuda", machine(5, 4)), machine(5, 4)) is None


def test_gpus_on_nodes_with_other_labels_do_not_count() -> None:
    nodes = [Node({"CPU": 8, "GPU": 8}, {"rezero": "inference"})]
    why = lacking(seating(config(1, 3, **LABELS), "cuda", nodes), nodes)
    assert why and "no node is labelled {'rezero': 'train'}" in why
