"""Claims about joining a Ray cluster that runs: what is said where there is none."""

import socket
from pathlib import Path

import pytest

from infra.ray.bootstrap import start
from infra.ray.table import RayInfraConfig
from rezero_ray.config import ConfigError
from rezero_ray.config.loading import load_config
from rezero_ray.errors import RunError
from tests.record_builders import make_config

RECIPE = [Path("configs/redteam.toml"), Path("configs/overlays/cpu.toml")]


def test_where_nothing_listens_the_address_is_named_at_once() -> None:
    with socket.socket() as bound:  # and does not listen
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        said = f"no Ray cluster answers at {address}.*ray start --head"
        with pytest.raises(RunError, match=said), start(RayInfraConfig(address=address), gpus=0):
            pass


@pytest.mark.parametrize("address", ["nonsense", "a:b", "ray://head:10001", ""])
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
