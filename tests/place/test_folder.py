"""Claims about the file that is written to measure a folder."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from rezero_ray.place import folder
from rezero_ray.place.folder import GIB, MIB, measure_folder


def test_a_file_is_written_read_and_gone_again(tmp_path: Path) -> None:
    found = measure_folder(tmp_path, 8)
    assert found.error == ""
    assert found.file_mib == 8
    assert found.write_gb_s is not None
    assert found.write_gb_s > 0
    assert found.flush_ms is not None
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_measured_above_and_not_made(tmp_path: Path) -> None:
    found = measure_folder(tmp_path / "outputs/run", 4)
    assert found.path == str(tmp_path)
    assert found.write_gb_s is not None
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_file_says_why() -> None:
    found = measure_folder(Path("/proc/self"), 4)
    assert found.error
    assert found.write_gb_s is None


def test_memory_has_no_speed_of_reading() -> None:
    found = measure_folder(Path("/dev/shm"), 4)
    assert found.write_gb_s is not None
    assert found.read_gb_s is None


class Usage(NamedTuple):
    total: int
    free: int


@pytest.mark.parametrize(
    ("free", "written"), [(GIB // 4 + 8 * MIB, 8 * MIB), (2 * MIB, MIB), (GIB, 64 * MIB)]
)
def test_a_folder_is_never_filled_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, written: int
) -> None:
    monkeypatch.setattr(folder.shutil, "disk_usage", lambda path: Usage(2 * GIB, free))
    most = largest_offset(monkeypatch)
    measure_folder(tmp_path, 64)
    assert most() == written


def test_a_full_folder_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder.shutil, "disk_usage", lambda path: Usage(GIB, 100))
    assert measure_folder(tmp_path, 64).error == "is full"


def largest_offset(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Where the last byte was written."""
    pwrite, ends = os.pwrite, [0]

    def watched(file: int, data: bytes, start: int) -> int:
        ends.append(start + len(data))
        return pwrite(file, data, start)

    monkeypatch.setattr(folder.os, "pwrite", watched)
    return lambda: max(ends)
