"""Claims about a container whose command does not get as far as training: Modal's entry point is real, its control
plane is a fake."""

from pathlib import Path

import msgspec
import pytest

from infra.modal.launcher import INTERRUPTED, runs
from rezero_ray.holding.holder import encoded, new_holder
from rezero_ray.holding.watching import RECORD
from tests.config.run_request import make_model
from tests.infra.modal.container_run import launch_small, wait_until
from tests.infra.modal.fake_control_plane import FakeControlPlane

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SLOW_TO_BUILD = """
import pathlib, time
def load_environment():
    pathlib.Path("building").touch()
    time.sleep(120)
"""


def test_a_wrong_request_ends_the_run_and_is_not_tried_again(plane: FakeControlPlane, tmp_path: Path) -> None:
    (tmp_path / "checkpoints/run/rollouts").mkdir(parents=True)
    run = launch_small(tmp_path, make_model(tmp_path / "model"))
    container = plane.container(run.record.call_id, tmp_path)
    assert container.wait(120) == 0
    assert run.result() == 2
    assert runs()[0].record.status == "refused"
    call = plane.calls[run.record.call_id]
    call.collected.wait(10)
    assert "holds another run" in "".join(call.logs)


def test_a_directory_that_another_calls_container_holds_is_refused_once_the_volume_shows_its_heartbeat(
    plane: FakeControlPlane, tmp_path: Path
) -> None:
    output = tmp_path / "checkpoints/run"
    output.mkdir(parents=True)
    mine = new_holder("f" * 16)
    holder = msgspec.structs.replace(mine, place=msgspec.structs.replace(mine.place, host="ta-other"))
    (output / RECORD).write_bytes(encoded(holder, 100.0))
    plane.on_reload = lambda volume: (output / RECORD).write_bytes(encoded(holder, 105.0)) and None
    run = launch_small(tmp_path, make_model(tmp_path / "model"))
    container = plane.container(run.record.call_id, tmp_path)
    assert container.wait(120) == 0
    assert run.result() == 2
    call = plane.calls[run.record.call_id]
    call.collected.wait(10)
    assert f"in use by process {holder.pid} on ta-other" in "".join(call.logs)
    assert [path.name for path in output.iterdir()] == [RECORD]


def test_stop_ends_the_command_and_the_call(plane: FakeControlPlane, tmp_path: Path) -> None:
    (tmp_path / "slow_to_build.py").write_text(SLOW_TO_BUILD)
    run = launch_small(
        tmp_path, make_model(tmp_path / "model"), orchestrator__env='[{ id = "slow_to_build" }]'
    )
    call = plane.calls[run.record.call_id]
    container = plane.container(run.record.call_id, tmp_path)
    try:
        wait_until(container, call, lambda: any(tmp_path.rglob("building")), 90)
        token = runs()[0].record.ray_token
        runs()[0].stop()
        container.wait(60)
    finally:
        container.kill()
    record = runs()[0].record
    assert record.status == "stopped"
    assert run.result() == INTERRUPTED
    assert not runs()[0].is_alive()
    assert {volume for volume, _ in plane.commits} >= {"re-zero-checkpoints", "re-zero-mlflow"}
    assert token
    assert record.ray_token == ""
    assert token not in "".join(call.logs)
