"""Claims about folders for sockets: short enough for Linux, with the files where the user wants them."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Listener
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rezero_ray.host.sockets import (
    LONGEST_PATH,
    LONGEST_TEMPORARY,
    RAYS_PART,
    SHORT,
    NoShortFolderError,
    fits_ray,
    place_for_link,
    ray_folder,
    short_temporary_folder,
)

EVERY: Callable[[str], bool] = lambda folder: True  # noqa: E731


def test_the_bound_is_the_kernels(tmp_path: Path) -> None:
    name = f"{tmp_path}/"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name + "s" * (LONGEST_PATH - len(name)))
    with socket.socket(socket.AF_UNIX) as server, pytest.raises(OSError, match="too long"):
        server.bind(name + "t" * (LONGEST_PATH + 1 - len(name)))


@given(st.text("äöü/abc", max_size=80))
def test_every_socket_of_ray_fits_or_there_is_a_link(name: str) -> None:
    folder = f"/{name}"
    fits = len(ray_folder({"TMPDIR": folder}).encode()) + RAYS_PART <= LONGEST_PATH
    assert place_for_link(folder, EVERY) == (None if fits else "/tmp")
    assert fits_ray(ray_folder({"RAY_TMPDIR": folder, "TMPDIR": "/t"})) == fits


def test_a_link_lies_where_one_may_write() -> None:
    long = "/" + "a" * LONGEST_TEMPORARY
    assert place_for_link(long[:-1], EVERY) is None
    assert place_for_link(long, lambda folder: folder == SHORT[-1]) == SHORT[-1]
    with pytest.raises(NoShortFolderError, match="longer than the 39 bytes"):
        place_for_link(long, lambda folder: False)


def test_files_go_into_a_long_folder_and_sockets_fit_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("deep/" * 20)
    long.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with pytest.raises(OSError, match="too long"):
        Listener(f"{tempfile.gettempdir()}/{'s' * 32}", family="AF_UNIX")
    with short_temporary_folder():
        short = Path(os.environ["TMPDIR"])
        assert len(str(short)) <= LONGEST_TEMPORARY
        Listener(f"{tempfile.gettempdir()}/{'s' * 32}", family="AF_UNIX").close()
        with tempfile.NamedTemporaryFile() as file:
            assert Path(file.name).resolve().parent == long
        code = "import tempfile; print(tempfile.gettempdir())"
        assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == str(short)
    assert os.environ["TMPDIR"] == tempfile.gettempdir() == str(long)
    assert not short.parent.exists()
    assert long.is_dir()


def test_a_short_folder_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/tmp")
    monkeypatch.setattr(tempfile, "tempdir", None)
    with short_temporary_folder():
        assert os.environ["TMPDIR"] == tempfile.gettempdir() == "/tmp"
