"""What nvidia-smi says of the GPUs, and which of them are visible."""

from pathlib import Path

import pytest

from rezero_ray.preflight.machine import this_machine, visible_gpu_ids
from rezero_ray.preflight.resources import examine_resources
from tests.record_builders import make_config

TWO = """81559, GPU-11aa, NVIDIA H100 80GB HBM3
[N/A], GPU-22bb, NVIDIA L40S
"""


@pytest.fixture(autouse=True)
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "nvidia-smi"
    command.write_text(f"#!/bin/sh\ncat <<'END'\n{TWO}END\n", "utf-8")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_memory_and_name_are_read() -> None:
    machine = this_machine()
    assert machine.gpu_gib == (81559 / 1024, None)
    assert machine.gpu_name == "NVIDIA H100 80GB HBM3"


def test_the_first_visible_gpu_gives_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert this_machine().gpu_name == "NVIDIA L40S" and this_machine().gpu_gib == (None,)


def test_none_visible_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert this_machine().gpu_name is None and this_machine().gpu_gib == ()


@pytest.mark.parametrize(
    ("visible", "names", "ids"),
    [
        ("GPU-22bb,GPU-11aa", ["NVIDIA L40S", "NVIDIA H100 80GB HBM3"], ("1", "0")),
        ("GPU-22", ["NVIDIA L40S"], ("1",)),
        ("1,-1,0", ["NVIDIA L40S"], ("1",)),
        ("0,0", [], ()),
        ("3", [], ()),
        ("0, 5", ["NVIDIA H100 80GB HBM3"], ("0",)),
    ],
)
def test_odd_lists_leave_what_cuda_leaves(
    visible: str, names: list[str], ids: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    machine = this_machine()
    assert machine.gpu_ids == ids == visible_gpu_ids()
    assert len(machine.gpu_gib) == len(names)
    assert machine.gpu_name == (names[0] if names else None)


def test_ids_beyond_the_visible_gpus_are_refused_with_what_hides_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,1")
    config = make_config(inference_gpu_ids=[0], trainer_gpu_ids=[1], device="cuda")
    (problem,) = examine_resources(config, None, this_machine(), "cuda").problems
    assert "CUDA_VISIBLE_DEVICES=1,1 leaves 0 of the 2 GPUs" in problem.what
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    (problem,) = examine_resources(config, None, this_machine(), "cuda").problems
    assert "CUDA_VISIBLE_DEVICES=1 leaves 1 of the 2 GPUs" in problem.what
