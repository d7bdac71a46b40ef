"""Claims about how every backend connects to Ray."""

from typing import Any

import pytest

from infra.cluster import connected
from rezero_ray.errors import RunError


def test_a_ray_that_starts_too_slowly_is_an_error_with_its_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def overloaded(**_: Any) -> None:
        raise Exception("The current node timed out during startup. This could happen because ...")

    monkeypatch.setattr(ray, "init", overloaded)
    with pytest.raises(RunError, match=r"did not start within .* its logs are in .*/session_latest/logs"):
        connected(address="local").__enter__()


def test_what_else_ray_raises_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def missing(**_: Any) -> None:
        raise ConnectionError("no cluster")

    monkeypatch.setattr(ray, "init", missing)
    with pytest.raises(ConnectionError, match="no cluster"):
        connected(address="10.0.0.1:6379").__enter__()
