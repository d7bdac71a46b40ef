"""Claims about Ray on this machine: what is found, sized, placed, guarded and left alone."""

import time
from collections.abc import Iterator

import pytest

from infra.cluster import Cluster
from infra.local.bootstrap import start, statement, store_gib
from infra.local.table import LocalInfraConfig
from rezero_ray.errors import RunError
from rezero_ray.preflight.machine import Machine
from tests.infra.dashboard import statuses
from tests.record_builders import make_config

FOUR_H100 = Machine(gpu_gib=(79.6, 79.6, 79.6, None), cpus=64, memory_gib=512.0, shm_gib=64.0)
LAPTOP = Machine(gpu_gib=(), cpus=2, memory_gib=16.0, shm_gib=0.06)


@pytest.mark.parametrize(
    ("machine", "configured", "store"),
    [(FOUR_H100, None, 8.0), (LAPTOP, None, 0.1), (LAPTOP, 0.5, 0.5)],
)
def test_the_object_store_is_sized_to_fit_shared_memory(
    machine: Machine, configured: float | None, store: float
) -> None:
    assert store_gib(LocalInfraConfig(object_store_gib=configured), machine) == pytest.approx(store)


def test_what_is_found_is_stated_in_a_line() -> None:
    assert statement(FOUR_H100, 64, 4, 8.0) == (
        "this machine: 64 CPUs, 512.0 GiB of memory, 4 GPUs (80, 80, 80 GiB), 64.0 GiB of shared memory free; "
        "Ray takes 64 CPUs, 4 GPUs, 8.0 GiB of shared memory for objects"
    )
    assert "2 CPUs, 16.0 GiB of memory, no GPUs, 0.1 GiB" in statement(LAPTOP, 2, 0, 0.1)


GPUS = 8


@pytest.fixture(scope="module")
def this_machine_with_fake_gpus() -> Iterator[Cluster]:
    """Ray told of more than there is: it counts GPUs, and nobody here uses one."""
    with start(LocalInfraConfig(num_cpus=16, object_store_gib=0.1), gpus=GPUS) as cluster:
        yield cluster


@pytest.mark.slow
@pytest.mark.parametrize(
    ("inference", "training", "engines", "ranks"),
    [
        ([0], [1, 2, 3], ["0"], ["1", "2", "3"]),
        ([1], [0], ["1"], ["0"]),
        ([6, 7], [0, 1, 2, 3, 4, 5], ["6", "7"], ["0", "1", "2", "3", "4", "5"]),
        ([0], [0], ["0"], ["0"]),
    ],
    ids=["1 + 3", "1 + 1", "2 + 6", "one shared"],
)
def test_every_actor_has_the_gpus_that_the_config_names(
    this_machine_with_fake_gpus: Cluster,
    inference: list[int],
    training: list[int],
    engines: list[str],
    ranks: list[str],
) -> None:
    from ray.util.placement_group import placement_group_table, remove_placement_group

    from tests.infra.seats import take_seats

    parallel = {"dp": len(inference)}
    seats = take_seats(
        make_config(
            inference_gpu_ids=inference, trainer_gpu_ids=training, inference__parallel=parallel, device="cuda"
        )
    )
    try:
        assert [visible for _, visible, _ in seats.engines] == engines
        assert [visible for _, visible, _ in seats.ranks] == ranks
        assert all(len(gpus) == 1 for _, _, gpus in [*seats.engines, *seats.ranks])
        shared = set(inference) & set(training)
        given = [gpus[0] for _, _, gpus in [*seats.engines, *seats.ranks]]
        assert len(set(given)) == len(given) - len(shared), "Ray has given a GPU twice"
        assert not any(gpus for _, _, gpus in seats.workers)
        bundles = placement_group_table(seats.group)["bundles"].values()
        assert sum(bundle.get("GPU", 0) for bundle in bundles) == len({*inference, *training})
    finally:
        remove_placement_group(seats.group)


@pytest.mark.slow
def test_too_few_gpus_end_in_one_message_within_seconds(this_machine_with_fake_gpus: Cluster) -> None:
    from tests.infra.seats import take_seats

    config = make_config(inference_gpu_ids=[0], trainer_gpu_ids=list(range(1, 9)), device="cuda")
    began = time.monotonic()
    with pytest.raises(
        RunError, match=r"the bundles ask for 9 GPUs, and the cluster has 8: bundles .* nodes "
    ):
        take_seats(config)
    assert time.monotonic() - began < 5 < config.limits.cluster


@pytest.mark.slow
def test_the_dashboard_and_the_jobs_api_ask_for_the_token(this_machine_with_fake_gpus: Cluster) -> None:
    from ray._raylet import AuthenticationTokenLoader

    dashboard = this_machine_with_fake_gpus.dashboard or ""
    assert dashboard.startswith("http://127.0.0.1:")
    token = AuthenticationTokenLoader.instance().get_raw_token()
    assert set(statuses(dashboard).values()) == {401}
    assert set(statuses(dashboard, "another").values()) == {403}
    assert set(statuses(dashboard, token).values()) == {200}
