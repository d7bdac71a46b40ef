"""Claims about `rezero doctor` with infra.kind = "modal": Modal's client and its container entry point are real, its
control plane is a fake."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from infra.modal.doctor import app_of, examine_there
from infra.modal.table import ModalInfraConfig
from rezero_ray import cli
from rezero_ray.config import ConfigError
from rezero_ray.config.loading import load_config
from rezero_ray.place.report import CACHE, Report, from_json, kept
from tests.config.run_request import make_model
from tests.infra.modal.container_run import RECIPE
from tests.infra.modal.fake_control_plane import ROOT, FakeControlPlane

TOML = ROOT / "configs/redteam.toml"


def test_the_container_is_the_runs_and_is_called_once(plane: FakeControlPlane) -> None:
    config = load_config([TOML, ROOT / "configs/overlays/modal.toml"])
    assert isinstance(config.infra, ModalInfraConfig)
    app, _ = app_of(config.infra)
    with app.run():
        function = plane.function_of("re-zero-doctor")
    assert (function.module_name, function.function_name) == ("infra.modal.doctor", "look")
    gpu = function.resources.gpu_config
    assert (gpu.gpu_type, gpu.count) == ("H100", 4)
    assert (function.resources.milli_cpu, function.resources.memory_mb) == (32_000, 256 * 1024)
    volumes = {plane.names[mount.volume_id] for mount in function.volume_mounts}
    assert volumes == set(config.infra.volumes().values())
    assert function.retry_policy.retries == 0
    assert function.timeout_secs == 15 * 60
    assert function.single_use_containers


def test_a_secret_that_is_not_there_rents_nothing(plane: FakeControlPlane) -> None:
    config = load_config([TOML, ROOT / "configs/overlays/modal.toml"], ["--infra.secret", "tokens"])
    with pytest.raises(ConfigError, match="no such Secret"):
        examine_there(config)
    assert not plane.images


@contextmanager
def containers(plane: FakeControlPlane, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Starts the container of each call, as Modal does."""
    started: list[Any] = []
    keep = plane.add_call

    def with_container(call_id: str, function: str, item: object, retries: int) -> None:
        keep(call_id, function, item, retries)
        threading.Thread(target=lambda: started.append(plane.container(call_id, folder)), daemon=True).start()

    monkeypatch.setattr(plane, "add_call", with_container)
    try:
        yield started
    finally:
        for process in started:
            process.kill()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_what_the_container_lacks_is_told_here_and_its_volume_is_measured(
    plane: FakeControlPlane,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A container without the GPU that was asked for: the whole way there and back, without ranks."""
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "checkpoints").mkdir()
    model = make_model(tmp_path / "model")
    seen: list[list[str]] = []
    plane.on_commit = lambda volume: seen.append([path.name for path in (tmp_path / "checkpoints").iterdir()])
    keys = {
        "infra.kind": "modal",
        "infra.gpu": "L4:2",
        "infra.home": str(tmp_path),
        "model.name": str(model),
        "device": "cuda",
        "trainer_gpu_ids": "[1]",
        "output_dir": "run",
    }
    flags = [word for key, value in keys.items() for word in (f"--{key}", value)]
    with containers(plane, tmp_path, monkeypatch) as started:
        assert cli.main(["doctor", *map(str, RECIPE), *flags, "--json"]) == 1
        assert started[0].wait(30) == 0
    report = from_json(capsys.readouterr().out)
    assert (report.kind, report.device, report.verdict) == ("modal", "cuda", "bad")
    bad = [
        finding.what
        for machine in report.machines
        for finding in machine.findings
        if finding.verdict == "bad"
    ]
    assert bad == ["GPUs"]
    assert report.machines[0].figures.disk is not None
    assert report.machines[0].figures.disk.path == str(tmp_path / "checkpoints")
    assert_volume_was_measured(report, plane, seen)
    config = load_config(RECIPE, flags)
    assert kept(config, "cuda") == report


def assert_volume_was_measured(report: Report, plane: FakeControlPlane, seen: list[list[str]]) -> None:
    """The file was there at the first commit, and gone at the next."""
    assert report.volume is not None
    assert (report.volume.name, report.volume.error) == ("re-zero-checkpoints", "")
    assert report.volume.write_s > 0
    assert [volume for volume, _ in plane.commits][:2] == ["re-zero-checkpoints"] * 2
    assert [name.startswith(".rezero-doctor-") for name in seen[0]] == [True]
    assert seen[1] == []
