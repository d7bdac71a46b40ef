"""Claims about `[infra] kind = "ray"`: what it cannot do, and what is said where there is no cluster."""

import socket
from pathlib import Path

import pytest

from infra.ray.bootstrap import start
from infra.ray.launcher import launch, runs
from infra.ray.table import RayInfraConfig
from rezero_ray.config import ConfigError
from rezero_ray.config.loading import load_config
from rezero_ray.errors import RunError
from rezero_ray.preflight import Machine, preflight
from tests.record_builders import SMOLLM2, make_config

RECIPE = [Path("configs/redteam.toml"), Path("configs/overlays/cpu.toml")]


def test_where_nothing_listens_the_address_is_named_at_once() -> None:
    with socket.socket() as bound:  # and does not listen
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        said = f"no Ray cluster answers at {address}.*ray start --head"
        with pytest.raises(RunError, match=said), start(RayInfraConfig(address=address), gpus=0):
            pass


@pytest.mark.parametrize("address", ["nonsense", "a:b", "ray://head:10001", "http://head:8265", ""])
def test_a_malformed_address_is_a_wrong_request(address: str) -> None:
    with pytest.raises(ConfigError, match=r"infra\.address"):
        load_config(RECIPE, ["--infra.kind", "ray", "--infra.address", address])


def test_a_malformed_variable_is_answered_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    with pytest.raises(RunError, match="no Ray cluster answers at nonsense"), start(RayInfraConfig(), gpus=0):
        pass


def test_options_of_another_kind_of_cluster_are_refused() -> None:
    assert make_config(infra__kind="ray").infra == RayInfraConfig()
    with pytest.raises(ConfigError, match=r"infra\.num_cpus"):
        load_config(RECIPE, ["--infra.kind", "ray", "--infra.num_cpus", "2"])


SUBMIT = [
    "--infra.kind",
    "ray",
    "--infra.submit",
    "true",
    "--output_dir",
    "/runs/one",
    "--model.name",
    "/models/one",
]


TWO_GPUS_SHARED = [
    *("--device", "cuda", "--trainer_gpu_ids", "[0, 1]", "--inference_gpu_ids", "[0, 1]"),
    *("--inference.parallel.tp", "2", "--inference.gpu_memory_utilization", "0.4"),
]
ONE_GPU_SHARED = [
    *("--device", "cuda", "--trainer_gpu_ids", "[0]", "--inference.gpu_memory_utilization", "0.4"),
    *("--infra.trainer_labels", '{ zone = "a" }', "--infra.inference_labels", '{ zone = "b" }'),
]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--output_dir", "runs/one"], "output_dir.*(.|\n)*an absolute path on the cluster's head"),
        (["--model.name", "models/one"], "model.name(.|\n)*an absolute path that all nodes have"),
        (["--device", "auto"], 'device.*it cannot be seen here(.|\n)*write "cuda" or "cpu"'),
        (TWO_GPUS_SHARED, "tp.*Ray gives an engine of several GPUs whole ones"),
        (ONE_GPU_SHARED, "infra.trainer_labels(.|\n)*write the same labels"),
    ],
)
def test_what_a_cluster_cannot_do_is_a_wrong_request(flags: list[str], said: str) -> None:
    assert load_config(RECIPE, SUBMIT)
    with pytest.raises(ConfigError, match=said):
        load_config(RECIPE, [*SUBMIT, *flags])


def test_where_nothing_listens_no_job_is_submitted() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{bound.getsockname()[1]}"
        config = load_config(RECIPE, [*SUBMIT, "--infra.address", address])
        with pytest.raises(
            ConfigError, match=f'infra.address = "{address}": no Ray cluster takes jobs there'
        ):
            launch(config, resume=False, force_new=False)


def test_without_ray_address_there_are_no_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert runs() == []


def test_gpus_that_this_machine_lacks_may_be_the_clusters(tmp_path: Path) -> None:
    wanted = [
        "--output_dir",
        str(tmp_path / "run"),
        "--model.name",
        str(SMOLLM2.resolve()),
        "--device",
        "cuda",
    ]
    here = Machine(gpu_gib=(), cpus=2, memory_gib=16.0, shm_gib=8.0)
    with pytest.raises(ConfigError, match="no GPU that can be seen"):
        preflight(load_config(RECIPE, wanted), for_run=False, machine=here)
    on_a_cluster = load_config(RECIPE, [*wanted, "--infra.kind", "ray"])
    assert preflight(on_a_cluster, for_run=False, machine=here).device == "cuda"
