"""What a run directory has that MLflow has not, and sending it. The record is in files, so any time will do.

`tracking.json` of the run directory says how far MLflow has it: the timestamps of the last rows sent. Rows that were
taken again after a resume have later timestamps, and are sent again.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from rezero_ray.checkpoint import COMPLETE
from rezero_ray.config import Config, ConfigError
from rezero_ray.evaluation import Score
from rezero_ray.records import Prompt, Rollout
from rezero_ray.reporting.mlflow_reporter import MlflowReporter
from rezero_ray.reporting.mlflow_store import StoreError
from rezero_ray.run_directory import EVALUATIONS, METRICS, TRACKING, read_evaluations, read_metrics
from rezero_ray.step_record import first_rollouts, in_ranges
from rezero_ray.tracking.store import shown_uri, tracking_uri, unreachable

ROWS_A_CALL = 25

MLFLOW_STATUS = {"done": "FINISHED", "interrupted": "KILLED", "out of budget": "KILLED"}
"""Of a run's status; any other is FAILED."""

_NOT_METRICS = {"timestamp"}


class Cursor(msgspec.Struct, frozen=True):
    """How far MLflow has a run. `metrics`, `evaluations` and `samples` are timestamps of rows."""

    uri: str
    run_id: str
    params: bool = False
    metrics: float = 0.0
    evaluations: float = 0.0
    samples: float = 0.0
    adapter: str = ""
    status: str = "RUNNING"


def read_cursor(run: Path) -> Cursor | None:
    """None where nothing was sent yet, or the file cannot be read: then all is sent."""
    try:
        return msgspec.json.decode((run / TRACKING).read_bytes(), type=Cursor)
    except (OSError, msgspec.DecodeError):
        return None


def stamp_of(row: dict[str, Any]) -> float:
    """When a row was written; by its step where an earlier version wrote it, which comes before any clock's time."""
    return float(row.get("timestamp", row.get("step", row.get("policy_version", 0))))


def recorded(run: Path) -> tuple[object, ...]:
    """Differs from before when a row was recorded."""
    return tuple(_identity(run / name) for name in (METRICS, EVALUATIONS))


def newest_adapter(run: Path) -> Path | None:
    """Of the newest complete checkpoint."""
    found = sorted(path.parent for path in run.glob(f"checkpoints/step_*/{COMPLETE}"))
    return found[-1] / "adapter" if found else None


def missing(run: Path, cursor: Cursor | None) -> list[str]:
    """What MLflow lacks, for a reader; nothing when it has all."""
    sent = cursor or Cursor("", "", metrics=-1.0, evaluations=-1.0)
    steps = [row["step"] for row in read_metrics(run) if stamp_of(row) > sent.metrics]
    evaluations = [row for row in read_evaluations(run) if stamp_of(row) > sent.evaluations]
    adapter = newest_adapter(run)
    found = [f"step{'s' if len(steps) > 1 else ''} {in_ranges(steps)}"] if steps else []
    found += [f"{len(evaluations)} evaluation{'s' if len(evaluations) > 1 else ''}"] if evaluations else []
    found += (
        [f"the adapter of {adapter.parent.name}"] if adapter and sent.adapter != adapter.parent.name else []
    )
    return found


class CatchUp:
    """Sends what is missing, as often as it is called, and remembers how far it got."""

    def __init__(self, config: Config, run: Path, note: Callable[[str], None]) -> None:
        """`note` takes a line for the reader about something that MLflow refuses for good."""
        self._config, self._run, self._note = config, run, note
        self._mlflow: MlflowReporter | None = None
        self.cursor = read_cursor(run)

    def send(
        self, status: str | None = None, *, on_metrics: Callable[[Cursor], None] = lambda cursor: None
    ) -> Cursor:
        """Everything that is recorded; with a `status` (of MLflow) also the adapter and the end. `on_metrics` is
        called before the artifacts, which may be large.

        Raises:
            Exception: whatever keeps MLflow from it; what was sent before is remembered.
        """
        mlflow = self._mlflow or self._connect()
        self._params(mlflow)
        self._metrics(mlflow)
        self._evaluations(mlflow)
        if status is not None and self._now.status != status:
            mlflow.end(status)
            self._keep(status=status)
        on_metrics(self._now)
        self._samples(mlflow)
        adapter = newest_adapter(self._run)
        if status is not None and adapter is not None and self._now.adapter != adapter.parent.name:
            mlflow.adapter(adapter)
            self._keep(adapter=adapter.parent.name)
        return self._now

    @property
    def _now(self) -> Cursor:
        assert self.cursor is not None, "connected"
        return self.cursor

    def _connect(self) -> MlflowReporter:
        address = tracking_uri(self._config, self._run)
        why = unreachable(address)  # by itself within seconds; MLflow takes as long only to be imported
        if why is not None:
            raise StoreError(why)
        uri = shown_uri(address)
        known = self.cursor.run_id if self.cursor and self.cursor.uri == uri else None
        found = MlflowReporter(self._config, self._run, known)
        if found.is_new:
            self.cursor = Cursor(uri, found.run_id, metrics=-1.0, evaluations=-1.0, samples=-1.0)
        self._keep(status="RUNNING")
        self._mlflow = found
        return found

    def _params(self, mlflow: MlflowReporter) -> None:
        if not self._now.params:
            mlflow.params(self._config)
            self._keep(params=True)

    def _metrics(self, mlflow: MlflowReporter) -> None:
        rows = [row for row in read_metrics(self._run) if stamp_of(row) > self._now.metrics]
        for begin in range(0, len(rows), ROWS_A_CALL):
            some = rows[begin : begin + ROWS_A_CALL]
            values = [(int(row["step"]), stamp_of(row), _metrics_of(row)) for row in some]
            for line in mlflow.metrics(values):
                self._note(f"MLflow refuses {line}")
            self._keep(metrics=stamp_of(some[-1]))

    def _evaluations(self, mlflow: MlflowReporter) -> None:
        for row in read_evaluations(self._run):
            if stamp_of(row) > self._now.evaluations:
                score = msgspec.convert(row, Score, strict=False)
                for line in mlflow.metrics([(score.policy_version, stamp_of(row), score.metrics())]):
                    self._note(f"MLflow refuses {line}")
                self._keep(evaluations=stamp_of(row))

    def _samples(self, mlflow: MlflowReporter) -> None:
        for row in read_metrics(self._run):
            if stamp_of(row) > self._now.samples:
                step = int(row["step"])
                mlflow.samples(step, self._first_rollouts(step))
                self._keep(samples=stamp_of(row))

    def _first_rollouts(self, step: int) -> list[tuple[Prompt, Rollout]]:
        try:
            return first_rollouts(self._run, step, self._config.mlflow.rollouts_per_step)
        except ConfigError as error:  # damaged: MLflow gets the other steps' samples
            self._note(str(error))
            return []

    def _keep(self, **changes: Any) -> None:
        self.cursor = msgspec.structs.replace(self._now, **changes)
        partial = self._run / f"{TRACKING}.partial"
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(self.cursor)) + b"\n")
        partial.replace(self._run / TRACKING)


def _metrics_of(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value for key, value in row.items() if not key.startswith("eval/") and key not in _NOT_METRICS
    }


def _identity(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def reason_of(error: BaseException) -> str:
    """One line of what was raised."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line[:300]


def status_of_run(run: Path) -> str:
    """MLflow's status of a run that has ended, by run.json."""
    try:
        found = json.loads((run / "run.json").read_text("utf-8")).get("status", "")
    except (OSError, ValueError):
        found = ""
    return MLFLOW_STATUS.get(found, "FAILED")
