"""Claims about MLflow itself: its SQLite store and its server, made, lost and restored."""

import math
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from rezero_ray import cli
from rezero_ray.reporting.catch_up import CatchUp, missing, read_cursor
from rezero_ray.reporting.mlflow_reporter import MlflowReporter
from rezero_ray.reporting.mlflow_store import StoreError, ensure_store
from rezero_ray.reporting.tracker import Tracker
from rezero_ray.run_directory import RunDirectory
from rezero_ray.tracking.metric_names import original_name
from rezero_ray.tracking.store import sqlite_uri
from tests.record_builders import make_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MAKE = """
import sys
from pathlib import Path
from rezero_ray.reporting.mlflow_reporter import MlflowReporter
from tests.record_builders import make_config
output = Path(sys.argv[1])
reporter = MlflowReporter(make_config(output_dir=str(output)), output, None)
reporter.metrics([(1, 0.0, {"loss": 0.5})])
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without runs; making one takes many seconds."""
    file = tmp_path_factory.mktemp("made") / "mlflow.db"
    ensure_store(sqlite_uri(file))
    return file


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(made, tmp_path / "mlflow.db"))


def client_of(uri: str) -> Any:
    import mlflow

    return mlflow.MlflowClient(uri)


def steps_of(uri: str, run_id: str, key: str = "loss") -> list[int]:
    return sorted(metric.step for metric in client_of(uri).get_metric_history(run_id, key))


def test_runs_that_begin_at_once_in_an_odd_directory_share_one_whole_store_although_one_is_killed_making_it(
    tmp_path: Path,
) -> None:
    runs = tmp_path / "q?x p%20q #ü"
    runs.mkdir()
    command = [sys.executable, "-c", MAKE]
    killed = subprocess.Popen([*command, runs / "killed"])
    while not list(runs.glob(".mlflow.db.*-journal")) and killed.poll() is None:
        time.sleep(0.01)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    assert not (runs / "mlflow.db").exists()
    others = [subprocess.Popen([*command, runs / f"seed{n}"]) for n in range(3)]
    assert [process.wait(300) for process in others] == [0, 0, 0]
    with closing(sqlite3.connect(runs / "mlflow.db")) as store:
        assert store.execute("SELECT count(*) FROM runs").fetchone() == (3,)
        assert store.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert [path.name for path in tmp_path.iterdir()] == [runs.name]
    assert {path.name for path in runs.iterdir() if not path.name.startswith(".mlflow.db.")} == {"mlflow.db"}


def test_a_run_continues_its_mlflow_run_and_a_new_one_where_the_store_has_lost_it(
    store: Path, made: Path, tmp_path: Path
) -> None:
    def reporter(file: Path, run_id: str | None) -> MlflowReporter:
        return MlflowReporter(make_config(mlflow__tracking_uri=sqlite_uri(file)), tmp_path / "run", run_id)

    first = reporter(store, None).run_id
    assert reporter(store, first).run_id == first
    lost = Path(shutil.copy(made, tmp_path / "lost.db"))
    assert reporter(lost, first).run_id != first


def test_the_store_takes_every_name_and_every_number(store: Path, tmp_path: Path) -> None:
    config = make_config(mlflow__tracking_uri=sqlite_uri(store), output_dir=str(tmp_path / "run"))
    values = {
        "reward/x/<lambda>": 0.5,
        "reward/x/format (%)": math.nan,
        "reward/x/judge": math.inf,
        "reward/x/judge/raw": -math.inf,
        "../a//b/.": 1.0,
        "ü\ud83d\n": 2.0,
        "reward/x/avg@4": 3.0,
        "reward/x/avg_at_4": 4.0,
        "reward/" + "f(" * 200: 5.0,
        "reward/" + "f(" * 200 + "g": 6.0,
    }
    directory = RunDirectory(config, device="cpu")
    directory.add_metrics({"step": 1, **values, "words": "no number"})
    cursor = CatchUp(config, directory.path, pytest.fail).send("FINISHED")
    found = client_of(sqlite_uri(store)).get_run(cursor.run_id).data.metrics
    assert len(found) == len(values) + 1
    short = {key: value for key, value in values.items() if len(key) < 200}
    short = {key.replace("\ud83d", "?"): value for key, value in short.items()}  # as metrics.jsonl has it
    read = {original_name(key): value for key, value in found.items() if "_xhash_" not in key}
    assert read.keys() == short.keys() | {"step"}
    assert math.isnan(read["reward/x/format (%)"])


def test_a_deleted_experiment_and_a_deleted_run_are_named_with_the_way_back(
    store: Path, tmp_path: Path
) -> None:
    config = make_config(mlflow__tracking_uri=sqlite_uri(store), mlflow__experiment="gone")
    client = client_of(sqlite_uri(store))
    reporter = MlflowReporter(config, tmp_path / "run", None)
    client.delete_run(reporter.run_id)
    with pytest.raises(StoreError, match=f"mlflow runs restore --run-id {reporter.run_id}"):
        reporter.metrics([(1, 0.0, {"loss": 0.5})])
    with pytest.raises(StoreError, match="was deleted"):
        MlflowReporter(config, tmp_path / "run", reporter.run_id)
    client.delete_experiment(client.get_experiment_by_name("gone").experiment_id)
    with pytest.raises(StoreError, match="the experiment 'gone' was deleted in MLflow; restore it"):
        MlflowReporter(config, tmp_path / "run", None)


@contextmanager
def served(store: Path, port: int) -> Iterator[None]:
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", sqlite_uri(store)]
    command += [
        "--port",
        str(port),
        "--workers",
        "1",
        "--artifacts-destination",
        str(store.parent / "artifacts"),
    ]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def until(holds: Any, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.nightly
def test_a_server_that_is_lost_restored_and_lost_again_has_every_step_once_and_what_it_lacks_is_sent_later(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    config = make_config(mlflow__tracking_uri=uri, output_dir=str(tmp_path / "run"))
    directory = RunDirectory(config, device="cpu")
    said: list[str] = []
    tracker = Tracker(
        config, directory.path, said.append, lambda run_id: directory.update(mlflow_run_id=run_id)
    )

    def has(step: int) -> bool:
        cursor = read_cursor(directory.path)
        return cursor is not None and cursor.metrics >= directory.metrics()[step - 1]["timestamp"]

    directory.add_metrics({"step": 1, "loss": 0.1})
    until(lambda: said)  # nobody answers yet
    with served(store, port):
        until(lambda: has(1))
    directory.add_metrics({"step": 2, "loss": 0.2})
    until(lambda: len(said) == 3)
    assert "does not take this run" in said[0]
    assert said[1].startswith(f"MLflow: {uri} (run ")
    assert "does not take this run" in said[2]
    with served(store, port):
        until(lambda: has(2))
    directory.add_metrics({"step": 3, "loss": 0.3})
    began = time.monotonic()
    tracker.finish("done")
    assert time.monotonic() - began < 15
    directory.end("done")
    assert said[-1].startswith("MLflow lacks step 3")
    run_id = directory.run["mlflow_run_id"]
    with served(store, port):
        assert cli.main(["track", str(directory.path)]) == 0
        assert "MLflow has everything" in capsys.readouterr().out
        assert cli.main(["track", str(directory.path)]) == 0
    assert steps_of(sqlite_uri(store), run_id) == [1, 2, 3]
    assert client_of(sqlite_uri(store)).get_run(run_id).info.status == "FINISHED"
    assert missing(directory.path, read_cursor(directory.path)) == []
