"""What a backend tells before anything is started."""

import socket
from pathlib import Path

import pytest

from infra.examination import examine
from rezero_ray.config import load_config
from tests.config.run_request import write_right


def told(tmp_path: Path, *flags: str) -> list[str]:
    return [problem.key for problem in examine(load_config([write_right(tmp_path)], flags), resume=False)]


def test_a_backend_without_an_examination_finds_nothing(tmp_path: Path) -> None:
    assert told(tmp_path) == []


def test_a_ray_cluster_that_does_not_answer_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        flags = ["--infra.kind=ray", f"--infra.address={address}"]
        assert told(tmp_path, *flags) == []
    (tmp_path / "again").mkdir()
    assert told(tmp_path / "again", *flags) == ["infra.address"]


def test_an_address_of_the_environment_is_named_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    (problem,) = examine(load_config([write_right(tmp_path)], ["--infra.kind=ray"]), resume=False)
    assert "nonsense (RAY_ADDRESS)" in problem.what
