"""Claims about a Ray cluster of several nodes: placement by labels, a node lost and replaced, jobs. The nodes are
raylets on this machine, and their GPUs are numbers; Ray, its job server and what it starts are real."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from infra.local import bootstrap as local
from infra.local.table import LocalInfraConfig
from infra.ray.bootstrap import HEAD, asked_on, start
from infra.ray.launcher import RayJob, launch, runs
from infra.ray.table import RayInfraConfig
from rezero_ray import cli
from rezero_ray.config import Config, ConfigError
from rezero_ray.config.loading import load_config
from rezero_ray.errors import RunError
from rezero_ray.models.tiny import make_tiny_llama
from rezero_ray.place.machine import Effort
from rezero_ray.place.report import from_json
from tests.infra.dashboard import statuses
from tests.infra.ray.emulated_cluster import EmulatedCluster
from tests.record_builders import SMOLLM2, make_config
from tests.run.train_process import ROOT, read_lines

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NODES: dict[str, dict[str, Any]] = {
    "inference": {"num_cpus": 2, "num_gpus": 1, "labels": {"rezero": "inference"}},
    "train": {"num_cpus": 4, "num_gpus": 3, "labels": {"rezero": "train"}},
}
LABELS = {"infra__inference_labels": {"rezero": "inference"}, "infra__trainer_labels": {"rezero": "train"}}
RECIPE = [ROOT / "configs/phishing.toml", ROOT / "configs/overlays/cpu.toml"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmulatedCluster]:
    with EmulatedCluster(NODES) as emulated:
        yield emulated


@contextmanager
def with_token(token: str | None) -> Iterator[None]:
    """This process holds the token of a cluster, as a person would export it."""
    from ray._raylet import AuthenticationTokenLoader

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_AUTH_MODE", raising=False)
        patch.setenv("RAY_AUTH_TOKEN", token or "")
        AuthenticationTokenLoader.instance().reset_cache()
        yield
    AuthenticationTokenLoader.instance().reset_cache()


@pytest.fixture
def token(cluster: EmulatedCluster) -> Iterator[None]:
    with with_token(cluster.token):
        yield


def one_and_three(**changes: Any) -> Config:
    return make_config(infra__kind="ray", trainer_gpu_ids=[1, 2, 3], device="cuda", **LABELS, **changes)


def labels_by_node() -> dict[str, str]:
    import ray

    return {node["NodeID"]: node["Labels"].get("rezero", "") for node in ray.nodes() if node["Alive"]}


@pytest.mark.usefixtures("token")
def test_the_doctor_looks_at_every_node_and_a_rank_that_hangs_is_told_and_ended(
    cluster: EmulatedCluster, tmp_path: Path
) -> None:
    """The hang is the hardest there is: the process is stopped, and answers nobody."""
    from actors.all_reduce import Waits, measure_ranks
    from actors.node_examiner import examine_nodes
    from actors.placement import nodes_of_cluster, reserved, seating
    from tests.infra.hanging_rank import HangingRank

    config = make_config(infra__kind="ray", trainer_gpu_ids=[1, 2], **LABELS)
    with start(RayInfraConfig(address=cluster.address), gpus=0):
        plan = seating(config, "cpu", nodes_of_cluster())
        with reserved(plan, 60) as group:
            nodes = examine_nodes(
                plan, group, disk=tmp_path, effort=Effort(shm_mib=4, disk_mib=4), seconds=60
            )
            assert [node.is_drivers for node in nodes] == [True, False, False]
            assert sorted((node.engines, node.ranks) for node in nodes[1:]) == [(0, 2), (1, 0)]
            assert [node.figures.disk is not None for node in nodes] == [True, False, False]
            assert all(abs(node.figures.clock_offset_s) < 0.1 for node in nodes)
            began = time.monotonic()
            with pytest.raises(RunError, match="waited 3 s for 2 ranks to sum a large tensor; no answer"):
                measure_ranks(
                    plan,
                    group,
                    device="cpu",
                    dtype="float32",
                    waits=Waits(start=60, exchange=3),
                    rank_class=HangingRank,
                )
            told = time.monotonic() - began
    assert told < 60, "three seconds of it for the sum, the others for torch"
    deadline = time.monotonic() + 20
    while (left := processes_named("ray::HangingRank")) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left


def test_the_doctor_as_a_job_tells_what_the_cluster_will_never_have(
    cluster: EmulatedCluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("REZERO_DOCTOR_CACHE", str(tmp_path / "cache"))
    keys = {
        "infra.kind": "ray",
        "infra.address": cluster.dashboard,
        "infra.submit": "true",
        "infra.python": sys.executable,
        "infra.trainer_labels": '{ rezero = "nowhere" }',
        "model.name": str(SMOLLM2),
        "output_dir": str(tmp_path / "run"),
    }
    flags = [word for key, value in keys.items() for word in (f"--{key}", value)]
    assert cluster.token
    with with_token(cluster.token):
        assert cli.main(["doctor", *map(str, RECIPE), *flags, "--json"]) == 1
    report = from_json(capsys.readouterr().out.splitlines()[-1])
    (finding,) = report.findings
    assert (report.kind, finding.what, finding.verdict) == ("ray", "Ray cluster", "bad")
    assert "no node is labelled {'rezero': 'nowhere'}" in finding.value


def processes_named(begin: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(path.read_text("utf-8", errors="replace"))
    return [name for name in found if name.startswith(begin)]


@pytest.mark.usefixtures("token")
def test_a_driver_has_its_actors_where_the_labels_say_and_a_lost_node_is_replaced(
    cluster: EmulatedCluster,
) -> None:
    import ray

    from actors.placement import await_seats, seat
    from tests.infra.seats import Sitter, take_seats

    with start(RayInfraConfig(address=cluster.address), gpus=4) as joined:
        assert "3 nodes, 6 CPUs, 4 GPUs" in joined.found
        seats, labels = take_seats(one_and_three()), labels_by_node()
        assert [labels[node] for node, _, _ in [*seats.engines, *seats.ranks]] == [
            "inference",
            *["train"] * 3,
        ]
        assert [visible for _, visible, _ in seats.engines] == ["0"]
        assert sorted(visible or "" for _, visible, _ in seats.ranks) == ["0", "1", "2"]

        cluster.kill("train")
        cluster.add("train")
        await_seats(seats.group, seats.plan.ranks, 60)
        again = [seat(ray.remote(Sitter), seats.group, where).remote() for where in seats.plan.ranks]
        taken = ray.get([sitter.taken.remote() for sitter in again], timeout=60)
        lost, there = {node for node, _, _ in seats.ranks}, {node for node, _, _ in taken}
        assert len(there) == 1 and not there & lost
        assert [labels_by_node()[node] for node in there] == ["train"]
        assert sorted(visible or "" for _, visible, _ in taken) == ["0", "1", "2"]


@pytest.mark.usefixtures("token")
def test_a_local_run_beside_it_starts_its_own_ray_and_leaves_this_one_alone(
    cluster: EmulatedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    with local.start(LocalInfraConfig(num_cpus=1, object_store_gib=0.1), gpus=2) as own:
        assert own.dashboard != cluster.dashboard
        assert (ray.cluster_resources()["GPU"], len(ray.nodes())) == (2, 1)
    with start(RayInfraConfig(), gpus=4) as joined:
        assert "3 nodes, 6 CPUs, 4 GPUs" in joined.found


@pytest.mark.usefixtures("token")
def test_what_the_cluster_will_never_have_is_said_at_once(cluster: EmulatedCluster) -> None:
    from tests.infra.seats import take_seats

    began = time.monotonic()
    with (
        pytest.raises(RunError, match=r"names 5 GPUs, and the cluster at .* has 4"),
        start(RayInfraConfig(address=cluster.address), gpus=5),
    ):
        pass
    elsewhere = {"infra__trainer_labels": {"rezero": "nowhere"}}
    with start(RayInfraConfig(address=cluster.address), gpus=4):
        config = make_config(
            **({"infra__kind": "ray", "trainer_gpu_ids": [1, 2, 3], "device": "cuda"} | elsewhere)
        )
        with pytest.raises(RunError, match=r"no node is labelled {'rezero': 'nowhere'}"):
            take_seats(config)
    assert time.monotonic() - began < 30 < config.limits.cluster


def test_the_dashboard_and_the_jobs_api_ask_for_the_token(cluster: EmulatedCluster) -> None:
    assert set(statuses(cluster.dashboard).values()) == {401}
    assert set(statuses(cluster.dashboard, cluster.token).values()) == {200}


@pytest.mark.usefixtures("token")
def test_a_dashboard_on_the_heads_loopback_interface_is_asked_on_the_head(cluster: EmulatedCluster) -> None:
    """Whatever listens at that address of the driver's own machine is another server."""
    import ray

    with start(RayInfraConfig(address=cluster.address), gpus=0):
        (head,) = (node["NodeID"] for node in ray.nodes() if HEAD in node["Resources"])
        assert asked_on(head, cluster.dashboard) is None
        assert "could not be asked" in (asked_on(head, "http://127.0.0.1:1") or "")
        assert "could not be asked" in (asked_on("0" * 56, cluster.dashboard) or ""), "no such node"


def test_a_cluster_that_is_open_to_anybody_is_refused(tmp_path: Path) -> None:
    with EmulatedCluster({}, guarded=False) as careless:
        assert set(statuses(careless.dashboard).values()) == {200}
        table = RayInfraConfig(address=careless.address)
        with pytest.raises(RunError, match=r"answers without a token: .* infra.require_token = false"):  # noqa: SIM117
            with start(table, gpus=0):
                pass
        config = submission(careless, tmp_path)
        with pytest.raises(ConfigError, match=r"infra\.require_token.* answers without a token"):
            launch(config, resume=False, force_new=False)
        with start(RayInfraConfig(address=careless.address, require_token=False), gpus=0) as joined:
            assert f"Ray cluster {careless.address}" in joined.found


def submission(cluster: EmulatedCluster, folder: Path, **changes: str) -> Config:
    """A run of the tiny model on one engine and one learner rank, on their own nodes."""
    keys = {
        "infra.kind": "ray",
        "infra.submit": "true",
        "infra.address": cluster.address,
        "infra.python": sys.executable,
        "infra.inference_labels": '{ rezero = "inference" }',
        "infra.trainer_labels": '{ rezero = "train" }',
        "model.name": str(folder / "model"),
        "output_dir": str(folder / "run"),
        "trainer_gpu_ids": "[1]",
        "max_steps": "2",
        "trust.canary": "false",
        "mlflow.enabled": "false",
        "orchestrator.batch_size": "1",
        "orchestrator.rollouts_per_example": "2",
        "orchestrator.sampling.max_tokens": "8",
        "inference.cpu_kv_cache_gib": "0.1",
    }
    keys |= {key.replace("__", "."): value for key, value in changes.items()}
    return load_config(RECIPE, [word for key, value in keys.items() for word in (f"--{key}", value)])


def follow_until(run: RayJob, line: str) -> str:
    text = ""
    for piece in run.logs():
        text += piece
        if line in text:
            return text
    raise AssertionError(f"{line!r} is not in the logs:\n{text}")


@pytest.mark.usefixtures("token")
def test_a_run_is_submitted_once_followed_stopped_and_then_submitted_again_and_trains(
    cluster: EmulatedCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.util.placement_group import placement_group, remove_placement_group

    make_tiny_llama(tmp_path / "model", tokenizer_from=SMOLLM2)
    config = submission(cluster, tmp_path)
    with start(RayInfraConfig(address=cluster.address), gpus=0):
        others = placement_group([{"CPU": 2}, {"CPU": 4}])  # somebody else has the nodes: the run waits
        assert others.wait(30)
        first = launch(config, resume=False, force_new=False)
        follow_until(first, "Ray cluster ")
        assert first.status() == "running, no step yet"
        again = rf"the run {first.name} is this configuration(.|\n)*rezero logs {first.name}; stop it: rezero stop"
        with pytest.raises(ConfigError, match=again):
            launch(config, resume=False, force_new=False)
        with pytest.raises(ConfigError, match=r"the same output_dir"):
            launch(submission(cluster, tmp_path, seed="7"), resume=False, force_new=False)
        monkeypatch.setenv("RAY_ADDRESS", cluster.dashboard)
        assert [run.name for run in runs()] == [first.name]
        began = time.monotonic()
        first.stop()
        assert first.result() == 130
        assert time.monotonic() - began < 60 < config.limits.cluster
        assert json.loads((tmp_path / "run/run.json").read_text("utf-8"))["status"] == "interrupted"
        remove_placement_group(others)

    second = launch(config, resume=True, force_new=False)
    logs = "".join(second.logs())
    assert (second.name, second.result(), second.status()) == (f"{first.name}-2", 0, "done, step 2"), logs
    assert [row["step"] for row in read_lines(tmp_path / "run/metrics.jsonl")] == [1, 2]
