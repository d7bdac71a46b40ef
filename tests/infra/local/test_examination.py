"""Claims about what is wrong with a machine before Ray is started on it."""

import resource
import socket
import tempfile
from typing import Any

import pytest

from infra.examination import examine
from rezero_ray.host import sockets
from tests.record_builders import make_config

CONFIG = make_config()


def test_nothing_is_wrong_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/" + "long/" * 30)
    monkeypatch.setenv("RAY_ADDRESS", "10.255.255.1:6379")
    assert examine(CONFIG, resume=False) == []


def test_a_folder_too_long_for_sockets_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/" + "long/" * 20)
    (problem,) = examine(CONFIG, resume=False)
    assert problem.key == "RAY_TMPDIR"
    assert "43 bytes" in problem.what


def test_no_room_for_a_short_link_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", "/" + "long/" * 20)
    monkeypatch.setattr(sockets, "SHORT", ("/nowhere",))
    (problem,) = examine(CONFIG, resume=False)
    assert problem.key == "TMPDIR"


def test_too_few_files_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 512))
    (problem,) = examine(CONFIG, resume=False)
    assert problem.key == "ulimit -n"
    assert "512 files" in problem.what
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 4096))
    assert examine(CONFIG, resume=False) == [], "Ray raises the soft limit itself"


def test_a_loopback_interface_that_is_down_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError(99, "Cannot assign requested address")

    monkeypatch.setattr(socket, "create_server", unreachable)
    (problem,) = examine(CONFIG, resume=False)
    assert "127.0.0.1" in problem.what
