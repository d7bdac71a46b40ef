"""Claims about where the store of a run lies, and what is known of it without MLflow."""

import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from rezero_ray.preflight.tracking import examine_tracking
from rezero_ray.reporting.mlflow_store import no_stray_folder
from rezero_ray.tracking.store import (
    default_store,
    shown_uri,
    sqlite_file,
    sqlite_problem,
    sqlite_uri,
    unreachable,
)
from tests.record_builders import make_config

ODD = ["plain", "q?x", "p%20q", "p%q", "a b#ü", "semi;c&d=1@:"]


@pytest.mark.parametrize("name", ODD)
def test_an_odd_directory_has_an_address_that_sqlalchemy_and_we_read_as_that_directory(
    tmp_path: Path, name: str
) -> None:
    from sqlalchemy import create_engine

    file = tmp_path / name / "mlflow.db"
    file.parent.mkdir()
    engine = create_engine(sqlite_uri(file))
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE here (a)")
    engine.dispose()
    assert file.stat().st_size
    assert sqlite_file(sqlite_uri(file)) == file


def test_the_folder_that_mlflow_makes_of_a_quoted_path_is_removed_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "q?x" / "b" / "mlflow.db"
    file.parent.mkdir(parents=True)
    for kept in (None, tmp_path / "q%3Fx" / "mine"):
        with no_stray_folder(file):
            (tmp_path / "q%3Fx" / "b").mkdir(parents=True, exist_ok=True)
            if kept:
                kept.touch()
        assert (tmp_path / "q%3Fx").exists() == bool(kept)
        assert file.parent.is_dir()
    with no_stray_folder(tmp_path / "plain" / "mlflow.db"):
        (tmp_path / "plain").mkdir()
    assert (tmp_path / "plain").is_dir()


def test_runs_of_one_folder_share_a_store_next_to_them(tmp_path: Path) -> None:
    assert default_store(tmp_path / "runs" / "a") == tmp_path / "runs" / "mlflow.db"
    assert default_store(tmp_path / "runs" / "a") == default_store(tmp_path / "runs" / "b")


def test_a_store_lies_in_the_run_directory_where_the_parent_cannot_be_written_to(tmp_path: Path) -> None:
    assert default_store(tmp_path / "a", is_writable=lambda folder: False) == tmp_path / "a" / "mlflow.db"


def test_a_store_lies_in_the_run_directory_where_that_is_a_volume_of_its_own() -> None:
    """/proc stands for a volume that is mounted as output_dir: its parent is another device."""
    assert default_store(Path("/proc")) == Path("/proc/mlflow.db")


def test_a_store_that_is_in_the_run_directory_is_found_again(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mlflow.db").touch()
    assert default_store(tmp_path / "a") == tmp_path / "a" / "mlflow.db"


def test_a_store_that_was_left_half_made_is_recognised_and_the_run_is_not_refused(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(file)) as store:
        store.execute("CREATE TABLE alembic_version (version_num)")
        store.execute("CREATE TABLE _alembic_tmp_params (a)")
        store.commit()
    problem = sqlite_problem(file)
    assert problem is not None and "half made" in problem and f"mv {file} {file}.broken" in problem
    found = examine_tracking(make_config(output_dir=str(tmp_path / "run")))
    assert not found.problems
    assert "half made" in found.notes[0] and "rezero track" in found.notes[0]


@pytest.mark.parametrize(
    ("content", "said"), [(b"not a database at all" * 100, "no SQLite store"), (b"", None)]
)
def test_a_file_that_is_no_store_is_told_and_an_empty_one_is_made_into_one(
    tmp_path: Path, content: bytes, said: str | None
) -> None:
    (tmp_path / "mlflow.db").write_bytes(content)
    problem = sqlite_problem(tmp_path / "mlflow.db")
    assert problem is None if said is None else said in str(problem)


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_server_that_never_answers_costs_the_preflight_a_bounded_time_and_a_note(silent: str) -> None:
    began = time.monotonic()
    assert unreachable(silent, 0.3) == "no answer within 0 s"
    assert time.monotonic() - began < 30  # of seconds on a loaded machine, not the minutes of MLflow
    assert unreachable("http://127.0.0.1:9") is not None
    found = examine_tracking(make_config(mlflow__tracking_uri="http://127.0.0.1:9"))
    assert not found.problems
    assert "cannot record the run now" in found.notes[0] and "refused" in found.notes[0]


def test_a_dry_run_asks_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rezero_ray.preflight.tracking.unreachable", pytest.fail)
    assert not examine_tracking(make_config(mlflow__tracking_uri="http://127.0.0.1:9"), ask=False).notes


def test_a_password_is_not_shown() -> None:
    assert shown_uri("postgresql://me:secret@db/runs") == "postgresql://me:***@db/runs"
