"""What nvidia-smi says of the GPUs, and which of them are visible."""

from pathlib import Path

import pytest

from rezero_ray.preflight.machine import this_machine

TWO = """81559, NVIDIA H100 80GB HBM3
[N/A], NVIDIA L40S
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
