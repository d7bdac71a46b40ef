"""Claims about `rezero doctor` that take no Ray; with it: tests/run/test_doctor.py."""

from contextlib import nullcontext
from pathlib import Path

import pytest

from actors.placement import Node
from infra.local.table import LocalInfraConfig
from rezero_ray import cli, doctor
from rezero_ray.config import load_config
from rezero_ray.errors import RunError
from rezero_ray.place.machine import Effort
from rezero_ray.place.report import CACHE, from_json
from rezero_ray.preflight.machine import Machine
from tests.config.run_request import write_right


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(doctor, "FULL", Effort(shm_mib=4, disk_mib=4))


def test_a_wrong_request_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", str(write_right(tmp_path)), "--trainer_gpu_id", "[1]"]) == 2
    assert "trainer_gpu_ids" in capsys.readouterr().err
    assert cli.main(["doctor", str(tmp_path / "none.toml")]) == 2


def test_gpus_that_are_not_there_are_bad_within_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert cli.main(["doctor", str(write_right(tmp_path)), "--device", "cuda"]) == 1
    printed = capsys.readouterr().out
    assert "bad: GPUs: name GPUs that are there" in printed
    assert "bad: all-reduce: give the machine its GPUs" in printed
    assert "the place is bad" in printed
    assert not (tmp_path / "out").exists()


def test_as_json_it_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert cli.main(["doctor", str(write_right(tmp_path)), "--json", "--device", "cuda"]) == 1
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    report = from_json(printed)
    assert (report.by, report.device, report.verdict) == ("doctor", "cuda", "bad")
    assert report.machines[0].figures.disk is not None
    assert report.machines[0].figures.disk.path == str(tmp_path)


@pytest.mark.parametrize(("gpus", "ranks"), [(0, [1, 2]), (1, [0]), (4, [0, 1, 2, 3])])
def test_without_a_toml_all_gpus_of_this_machine_are_ranks(
    gpus: int, ranks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(gpu_gib=(79.6,) * gpus, cpus=2, memory_gib=16.0, shm_gib=8.0)
    monkeypatch.setattr(doctor, "this_machine", lambda: machine)
    config = load_config([], doctor.stand_in(["--infra.num_cpus", "2"]))
    assert config.trainer_gpu_ids == ranks
    assert config.infra == LocalInfraConfig(num_cpus=2)


def test_ranks_that_hang_end_the_command_with_1_and_say_what_to_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hang itself is in tests/infra/ray, with real ranks."""

    def hangs(*_: object, **__: object) -> None:
        raise RunError("learner", "waited 60 s for 3 ranks to sum four bytes; no answer")

    monkeypatch.setattr("infra.bootstrap.start_cluster", lambda config, gpus: nullcontext())
    monkeypatch.setattr("actors.placement.nodes_of_cluster", lambda: [Node({"CPU": 4.0})])
    monkeypatch.setattr("actors.placement.reserved", lambda plan, seconds: nullcontext())
    monkeypatch.setattr("actors.all_reduce.measure_ranks", hangs)
    assert cli.main(["doctor", str(write_right(tmp_path))]) == 1
    printed = capsys.readouterr().out
    assert "waited 60 s for 3 ranks to sum four bytes; no answer" in printed
    assert "bad: all-reduce: name the network interface that the nodes share in GLOO_SOCKET_IFNAME" in printed


def test_a_backend_without_a_doctor_says_where_to_run_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.doctor.importlib.util.find_spec", lambda name: None)
    kind = ("--infra.kind", "modal", "--device", "cpu", "--infra.gpu", "", "--model.name", "/root/model")
    assert cli.main(["doctor", str(write_right(tmp_path)), *kind, "--output_dir", "run"]) == 2
    assert "has no doctor" in capsys.readouterr().err
