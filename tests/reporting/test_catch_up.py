"""Claims about what MLflow is sent, with a store that can be switched off: everything in the end, in any case."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from rezero_ray.config import Config
from rezero_ray.reporting import catch_up
from rezero_ray.reporting.catch_up import CatchUp, missing, read_cursor
from rezero_ray.run_directory import RunDirectory
from tests.record_builders import make_config, make_group, make_rollout


class OutageError(Exception):
    pass


class Store:
    """What `MlflowReporter` was given; raises OutageError while `down`, or after `left` more calls."""

    def __init__(self) -> None:
        self.down = False
        self.left = 10**9
        self.runs: dict[str, list[tuple[str, Any]]] = {}
        self.refuses: list[str] = []

    def call(self, run_id: str, what: str, value: Any) -> None:
        self.left -= 1
        if self.down or self.left < 0:
            raise OutageError("connection refused\nand a long trace")
        self.runs[run_id].append((what, value))

    def steps(self, run_id: str = "run-0") -> list[int]:
        return [step for what, rows in self.runs[run_id] if what == "metrics" for step, _ in rows]

    def reporter(self, config: Config, output_dir: Path, run_id: str | None) -> "StoreClient":
        return StoreClient(self, run_id)


class StoreClient:
    def __init__(self, store: Store, run_id: str | None) -> None:
        self._store = store
        self.is_new = run_id not in store.runs
        self.run_id = f"run-{len(store.runs)}" if run_id is None or self.is_new else run_id
        if store.down:
            raise OutageError("connection refused")
        store.runs.setdefault(self.run_id, [])

    def params(self, config: Config) -> None:
        self._store.call(self.run_id, "params", None)

    def metrics(self, rows: Sequence[tuple[int, float, Mapping[str, Any]]]) -> list[str]:
        self._store.call(self.run_id, "metrics", [(step, dict(values)) for step, _, values in rows])
        return self._store.refuses

    def samples(self, step: int, rollouts: Sequence[Any]) -> None:
        self._store.call(self.run_id, "samples", (step, len(rollouts)))

    def adapter(self, folder: Path) -> None:
        self._store.call(self.run_id, "adapter", folder)

    def end(self, status: str) -> None:
        self._store.call(self.run_id, "end", status)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    found = Store()
    monkeypatch.setattr(catch_up, "MlflowReporter", found.reporter)
    return found


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return RunDirectory(make_config(output_dir=str(tmp_path / "run")), device="cpu")


def sender(directory: RunDirectory) -> CatchUp:
    return CatchUp(make_config(output_dir=str(directory.path)), directory.path, pytest.fail)


def take(directory: RunDirectory, *steps: int) -> None:
    for step in steps:
        directory.add_rollouts(step, [make_group([make_rollout([1], [2])] * 6)], [[0.0] * 6])
        directory.add_metrics({"step": step, "loss": step / 10, "eval/x/avg@4": 1.0})


def test_what_was_recorded_during_an_outage_is_sent_after_it_and_nothing_twice(
    store: Store, directory: RunDirectory
) -> None:
    sending = sender(directory)
    store.down = True
    take(directory, 1)
    with pytest.raises(OutageError):
        sending.send()
    assert missing(directory.path, sending.cursor) == ["step 1"]
    store.down = False
    take(directory, 2, 3)
    sending.send()
    assert store.steps() == [1, 2, 3]
    store.down = True
    take(directory, 4)
    with pytest.raises(OutageError):
        sending.send("FINISHED")
    assert missing(directory.path, read_cursor(directory.path)) == ["step 4"]
    store.down = False
    sender(directory).send("FINISHED")  # another process: `rezero track`
    assert store.steps() == [1, 2, 3, 4]
    assert missing(directory.path, read_cursor(directory.path)) == []
    assert [value for what, value in store.runs["run-0"] if what == "end"] == ["FINISHED"]


@pytest.mark.parametrize("calls", range(12))
def test_a_store_that_is_lost_after_any_call_has_each_row_once_in_the_end(
    store: Store, directory: RunDirectory, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catch_up, "ROWS_A_CALL", 2)
    take(directory, 1, 2, 3, 4, 5)
    store.left = calls
    try:
        sender(directory).send("FINISHED")
    except OutageError:
        store.left = 10**9
        sender(directory).send("FINISHED")
    assert store.steps() == [1, 2, 3, 4, 5]
    assert [value for what, value in store.runs["run-0"] if what == "samples"] == [
        (n, 4) for n in range(1, 6)
    ]
    assert sum(what == "params" for what, _ in store.runs["run-0"]) == 1


def test_steps_that_are_taken_again_are_sent_again(store: Store, directory: RunDirectory) -> None:
    sending = sender(directory)
    take(directory, 1, 2, 3)
    sending.send()
    directory.rewind(1)
    take(directory, 2)
    directory.rewind(1)
    take(directory, 2, 3)
    sending.send()
    assert store.steps() == [1, 2, 3, 2, 3]


def test_another_store_or_one_that_lost_the_run_gets_everything(
    store: Store, directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(directory, 1, 2)
    sender(directory).send("FINISHED")
    sender(directory).send("FINISHED")
    assert store.steps() == [1, 2]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////elsewhere/mlflow.db")
    sender(directory).send("FINISHED")
    assert store.steps("run-1") == [1, 2]
    store.runs.clear()
    sender(directory).send("FINISHED")
    assert store.steps("run-0") == [1, 2]


def test_a_run_directory_of_an_earlier_version_is_sent_by_its_steps(
    store: Store, directory: RunDirectory
) -> None:
    rows = ['{"step": 1, "loss": 0.5}', '{"step": 2, "loss": NaN}']
    (directory.path / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    sender(directory).send()
    assert store.steps() == [1, 2]


def test_a_metric_that_is_refused_is_told_and_the_others_are_there(
    store: Store, directory: RunDirectory
) -> None:
    store.refuses = ["reward/x of step 1: too odd"]
    notes: list[str] = []
    take(directory, 1)
    CatchUp(make_config(output_dir=str(directory.path)), directory.path, notes.append).send()
    assert notes == ["MLflow refuses reward/x of step 1: too odd"]
    assert missing(directory.path, read_cursor(directory.path)) == []


def test_a_damaged_record_of_rollouts_costs_its_sample_only(store: Store, directory: RunDirectory) -> None:
    take(directory, 1, 2)
    (directory.path / "rollouts/step_000001.jsonl").write_text("{")
    notes: list[str] = []
    CatchUp(make_config(output_dir=str(directory.path)), directory.path, notes.append).send()
    assert "step_000001.jsonl" in notes[0]
    assert [value for what, value in store.runs["run-0"] if what == "samples"] == [(1, 0), (2, 4)]


def test_a_reason_is_one_line() -> None:
    assert catch_up.reason_of(OutageError("\n connection refused\nand a long trace")) == "connection refused"
    assert catch_up.reason_of(OutageError()) == "OutageError"
