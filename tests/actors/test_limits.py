"""Each bound of `[limits]` and `faults.restarts`, against actors that do not answer, on a real Ray."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from actors.crew import start_crew
from actors.engine_group import EngineGroup
from actors.learner_rank import LearnerGroup
from infra.local.bootstrap import start
from infra.local.table import LocalInfraConfig
from rezero_ray.errors import RunError
from tests.record_builders import make_adapter, make_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SECONDS = 0.5


@ray.remote(max_restarts=-1)
class Mute:
    """An engine or a rank that does nothing within the test's time."""

    def start(self, *_: Any, **__: Any) -> None:
        time.sleep(600)

    address = publish = retire = logprobs = start


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with start(LocalInfraConfig(num_cpus=4, object_store_gib=0.1, dashboard=False), gpus=0):
        yield


@pytest.fixture
def mute() -> Iterator[Any]:
    kind: Any = Mute
    actor = kind.options(num_cpus=0).remote()
    yield actor
    ray.kill(actor)


def ends_within_its_limit(key: str, waits: Any, *, who: str) -> None:
    began = time.monotonic()
    with pytest.raises(RunError, match=rf"waited {SECONDS:.0f} s for {who}"):
        waits(make_config(**{f"limits__{key}": SECONDS}))
    assert time.monotonic() - began < 30, "the other limits are minutes"


def test_engine_start_bounds_the_start_of_engines(mute: Any) -> None:
    def waits(config: Any) -> None:
        group = EngineGroup([mute], config)
        group.started(group.start())

    ends_within_its_limit("engine_start", waits, who="rollout engines to load the model")


def test_learner_start_bounds_the_start_of_ranks(mute: Any) -> None:
    def waits(config: Any) -> None:
        LearnerGroup(lambda: [mute], lambda: None, config).start()

    ends_within_its_limit("learner_start", waits, who="learner rank 0's address")


def test_train_step_bounds_what_ranks_do_together(mute: Any) -> None:
    def waits(config: Any) -> None:
        LearnerGroup(lambda: [mute], lambda: None, config).logprobs([1, 2, 3])

    ends_within_its_limit("train_step", waits, who=r"learner ranks \(logprobs\)")


def test_publish_bounds_a_publication_and_the_engine_counts_as_lost(mute: Any) -> None:
    group = EngineGroup([mute], make_config(limits__publish=SECONDS))
    began = time.monotonic()
    group.publish(1, make_adapter())
    assert time.monotonic() - began < 30
    ((engine, why),) = group.newly_lost()
    assert engine == 0
    assert f"waited {SECONDS:.0f} s for engine 0 to take policy version 1" in why


def test_cluster_bounds_the_wait_for_bundles_that_somebody_else_has() -> None:
    from ray.util.placement_group import placement_group, remove_placement_group

    others = placement_group([{"CPU": 4}])
    assert others.wait(30)
    try:
        config = make_config(limits__cluster=SECONDS)
        began = time.monotonic()
        with (
            pytest.raises(RunError, match=rf"waited {SECONDS:.0f} s for a placement group"),
            start_crew(config, "cpu"),
        ):
            pass
        assert time.monotonic() - began < 30
    finally:
        remove_placement_group(others)


def test_an_engine_is_started_again_as_often_as_restarts_says(mute: Any) -> None:
    group = EngineGroup([mute], make_config(faults__restarts=1))
    group.lose(0, "it fell silent")
    assert group.newly_lost() == [(0, "it fell silent")]
    group._coming_back.clear()  # it is back
    with pytest.raises(RunError, match=r"engine 0 was lost 2 times \(faults\.restarts\): again"):
        group.lose(0, "again")
