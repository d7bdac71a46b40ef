"""Claims about asking the driver. There is no GPU here: nvidia-smi is a script and libcuda an object, each with the
answers of a real one."""

import ctypes
import time
from pathlib import Path
from typing import Any

import pytest

from rezero_ray.place import gpus
from rezero_ray.place.gpus import DriverError, ask_driver
from rezero_ray.place.machine import QUICK, measure_machine
from rezero_ray.place.records import Gpu

TWO = "GPU-a1, NVIDIA H100 80GB HBM3, 81559, 4, 580.95.05\nGPU-b2, NVIDIA H100 80GB HBM3, 81559, 2048, 580.95.05"


def nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_name_memory_and_driver_of_each_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, monkeypatch, f"echo '{TWO}'")
    first, second = gpus.gpus()
    assert first == Gpu("NVIDIA H100 80GB HBM3", 81559 / 1024, 4 / 1024, "580.95.05")
    assert second.used_gib == 2


@pytest.mark.parametrize(
    ("visible", "used"),
    [("1,0", [2048, 4]), ("GPU-b", [2048]), ("0,-1,1", [4]), ("1,1", []), ("0,7,1", [4]), ("GPU-a1,1", [4])],
)
def test_gpus_are_those_that_cuda_sees_in_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str, used: list[int]
) -> None:
    nvidia_smi(tmp_path, monkeypatch, f"echo '{TWO}'")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu.used_gib * 1024 for gpu in gpus.gpus()] == used


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18", "version mismatch"),
        ("echo 'GPU-a, NVIDIA H100, [N/A], [N/A], 580.1'", "says 'GPU-a, NVIDIA H100"),
        ("exec sleep 30", "no answer within 0 s"),
    ],
)
def test_a_sick_driver_is_told_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, why: str
) -> None:
    nvidia_smi(tmp_path, monkeypatch, script)
    if "sleep" in script:
        monkeypatch.setattr(gpus, "SECONDS", 0.2)
    began = time.monotonic()
    with pytest.raises(DriverError, match=why):
        gpus.gpus()
    assert time.monotonic() - began < 5


def test_a_driver_that_fails_leaves_the_rest_of_the_machine_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi(tmp_path, monkeypatch, "echo broken >&2; exit 9")
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(gpus, "DEV", tmp_path)
    found = measure_machine(None, QUICK)
    assert found.gpus == []
    assert found.gpus_error == "broken"
    assert found.shm.write_gb_s is not None


def test_a_machine_without_devices_is_not_asked_about_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi(tmp_path, monkeypatch, "echo broken >&2; exit 9")
    monkeypatch.setattr(gpus, "DEV", tmp_path / "dev")
    assert measure_machine(None, QUICK).gpus_error == ""
    monkeypatch.setattr(gpus, "DEV", tmp_path)
    (tmp_path / "nvidia0").touch()
    for none in ("", "-1", "NoDevFiles", "-1,0"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
        assert not gpus.devices()
    assert measure_machine(None, QUICK).gpus_error == ""


class FakeCuda:
    """Three devices, of which 0 and 1 read each other's memory."""

    def cuInit(self, flags: int) -> int:
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = 3
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:
        device._obj.value = 10 + index
        return 0

    def cuDeviceCanAccessPeer(self, answer: Any, one: int, other: int) -> int:
        answer._obj.value = int({one, other} == {10, 11})
        return 0


class WithoutDriver(FakeCuda):
    def cuInit(self, flags: int) -> int:
        return 100  # CUDA_ERROR_NO_DEVICE


def test_the_matrix_is_what_the_driver_says_of_each_pair() -> None:
    assert ask_driver(FakeCuda()) == [[True, True, False], [True, True, False], [False, False, True]]


def test_a_driver_without_devices_is_an_error_with_its_number() -> None:
    with pytest.raises(DriverError, match="cuInit answers 100"):
        ask_driver(WithoutDriver())


def test_the_driver_is_asked_in_a_process_of_its_own() -> None:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        with pytest.raises(DriverError, match="libcuda"):
            gpus.peers()
    else:
        assert all(row[number] for number, row in enumerate(gpus.peers()))
