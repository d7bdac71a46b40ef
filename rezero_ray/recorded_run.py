"""A run directory as its readers see it: configuration, metrics and rollouts of each step. Changes nothing."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from rezero_ray.config import ConfigError, Origin, Problem, Request, read_request
from rezero_ray.config_history import NEWEST, config_file
from rezero_ray.run_directory import read_metrics
from rezero_ray.step_record import StepRecord, read_step, recorded_steps


class RecordedRun:
    """Opens the run directory `path`.

    Raises:
        ConfigError: there is no run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        config = path / NEWEST
        if not config.is_file():
            what = f"it has no {config.name}" if path.is_dir() else "there is no such directory"
            raise self._wrong(f"is no run directory: {what}", "name the output_dir of a run")

    def request(self, step: int, files: Sequence[Path] = (), overrides: Sequence[str] = ()) -> Request:
        """The resolved config that was in force at `step`, with `files` and then `overrides` laid over it.

        Raises:
            ConfigError: it does not load (anymore).
        """
        return read_request([config_file(self.path, step), *files], overrides)

    def last_step(self) -> int:
        """The last step whose rollouts are recorded.

        Raises:
            ConfigError: there is none.
        """
        steps = recorded_steps(self.path)
        if not steps:
            raise self._wrong("no step is recorded yet", "wait for the run's first step")
        return steps[-1]

    def step(self, step: int) -> StepRecord:
        """See `rezero_ray.step_record.read_step`."""
        return read_step(self.path, step)

    @cached_property
    def metrics(self) -> dict[int, dict[str, Any]]:
        """The lines of metrics.jsonl by step."""
        return {row["step"]: row for row in read_metrics(self.path)}

    def _wrong(self, what: str, remedy: str) -> ConfigError:
        return ConfigError([Problem("", what, remedy, origin=Origin(str(self.path)))])
