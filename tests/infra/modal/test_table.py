"""Claims about `[infra] kind = "modal"`: what Modal's client would take without a word is refused here."""

import sys
from pathlib import Path

import pytest

from infra.launcher import launcher_of
from infra.modal.client import modal_client
from rezero_ray.config import ConfigError
from rezero_ray.config.infra_table import LAUNCHED
from rezero_ray.config.loading import load_config

REDTEAM = [Path("configs/redteam.toml"), Path("configs/overlays/modal.toml")]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--infra.gpu", "H100:9"), "infra.gpu.*1 to 8"),
        (("--infra.gpu", "H1000:4"), "infra.gpu.*expected NAME:COUNT"),
        (("--infra.gpu", "H100:3"), "infra.gpu.*name GPUs up to 3"),
        (("--infra.gpu", "H100:8"), "infra.gpu.*8 GPUs would be rented and 4 used"),
        (("--device", "cpu"), "infra.gpu.*would leave H100:4 idle"),
        (("--infra.timeout_hours", "168"), "infra.timeout_hours.*at most 24"),
        (("--infra.retries", "100"), "infra.retries.*at most 10"),
        (("--infra.secret", "a b"), "infra.secret"),
        (("--output_dir", "/data/run"), "output_dir.*not inside /root/checkpoints"),
        (("--output_dir", "../run"), "output_dir.*not inside /root/checkpoints"),
        (("--output_dir", "/root/checkpoints"), "output_dir.*not inside /root/checkpoints"),
        (("--model.name", "models/mine"), "model.name.*a path of this machine"),
        (("--orchestrator.env.0.python", "./bin/python"), "env.0.python.*an interpreter of this machine"),
        (("--infra.gpus", "4"), "infra.gpu"),
    ],
)
def test_a_mistake_is_told_before_anything_is_asked_of_modal(flags: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(REDTEAM, flags)


def test_a_recipe_and_the_overlay_are_right_and_relative_output_lies_in_the_volume() -> None:
    config = load_config(REDTEAM)
    assert config.infra.launches()
    machine = config.infra.machine()
    assert machine is not None
    assert len(machine.gpu_gib) == 4


def test_without_the_package_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modal", None)
    with pytest.raises(ConfigError, match=r"(?s)needs the package modal.*pip install 'modal==1.6.4'"):
        modal_client()


def test_the_container_takes_the_command_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    infra = load_config(REDTEAM).infra
    assert launcher_of(infra) is not None
    monkeypatch.setenv(LAUNCHED, "1")
    assert launcher_of(infra) is None
