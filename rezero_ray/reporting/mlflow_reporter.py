"""MLflow: parameters, metrics, sample rollouts and the adapter of a run. Every call may block and may raise.

Only the tracker's process (`rezero_ray.reporting.tracker_process`) and `rezero track` use it: no run waits for it.
"""

import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rezero_ray.config import Config
from rezero_ray.records import Prompt, Rollout
from rezero_ray.reporting.mlflow_store import StoreError, artifact_root, ensure_store, no_stray_folder
from rezero_ray.tracking.metric_names import mlflow_name
from rezero_ray.tracking.store import sqlite_file, tracking_uri

ENVIRONMENT = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}
"""Set unless the user has: what fails is sent again later, by the caller."""

METRICS_A_CALL, PARAMS_A_CALL, VALUE_CHARACTERS = 1000, 100, 6000
"""MLflow's limits."""


class MlflowReporter:
    """One run in MLflow; `run_id` is that of the attempt before.

    Raises:
        StoreError: the store is broken, or the experiment or the run was deleted.
        Exception: whatever MLflow raises.
    """

    def __init__(self, config: Config, output_dir: Path, run_id: str | None) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self.uri = tracking_uri(config, output_dir)
        ensure_store(self.uri)
        import mlflow

        self._client = mlflow.MlflowClient(tracking_uri=self.uri)
        file = sqlite_file(self.uri)
        with no_stray_folder(file) if file else nullcontext():
            self.is_new = run_id is None or not self._knows(run_id)
        if self.is_new:
            run_id = self._new_run(config, output_dir)
        else:
            self._client.update_run(run_id, status="RUNNING")
        assert run_id is not None
        self.run_id: str = run_id

    def _knows(self, run_id: str) -> bool:
        """False where the store was left behind, or lost its end with the machine."""
        from mlflow.exceptions import MlflowException

        try:
            found = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        if found.info.lifecycle_stage != "active":
            raise StoreError(
                f"the run {run_id} was deleted in MLflow; restore it: mlflow runs restore --run-id {run_id}"
            )
        return True

    def _new_run(self, config: Config, output_dir: Path) -> str:
        settings, old = config.mlflow, config.wandb
        name = settings.experiment or (old.project if old else None) or "rezero_ray"
        experiment = self._experiment(name)
        run_name = settings.run_name or (old.name if old else None) or output_dir.name
        run = self._client.create_run(experiment, run_name=run_name, tags={"host": socket.gethostname()})
        return str(run.info.run_id)

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name, artifact_location=artifact_root(self.uri)))
            except MlflowException:  # another run has just made it
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            number = found.experiment_id
            raise StoreError(
                f"the experiment {name!r} was deleted in MLflow; restore it (mlflow experiments restore "
                f"--experiment-id {number}), or name another in mlflow.experiment"
            )
        return str(found.experiment_id)

    def params(self, config: Config) -> None:
        """Every key of the config, as text."""
        from mlflow.entities import Param

        flat = _flat(config.model_dump(mode="json", exclude_none=True))
        found = [Param(mlflow_name(key), str(value)[:VALUE_CHARACTERS]) for key, value in flat.items()]
        for begin in range(0, len(found), PARAMS_A_CALL):
            self._client.log_batch(self.run_id, params=found[begin : begin + PARAMS_A_CALL])

    def metrics(self, rows: Sequence[tuple[int, float, Mapping[str, Any]]]) -> list[str]:
        """Log rows of (step, Unix seconds, values); what is no number is left out.

        Returns a line for each metric that the store refuses for what it is; the others are there.
        """
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        found = [
            Metric(mlflow_name(key), number, int(stamp * 1000), step)
            for step, stamp, values in rows
            for key, value in values.items()
            if (number := _number(value)) is not None
        ]
        refused = []
        for begin in range(0, len(found), METRICS_A_CALL):
            call = found[begin : begin + METRICS_A_CALL]
            try:
                self._client.log_batch(self.run_id, metrics=call)
            except MlflowException as error:
                if error.error_code not in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
                    raise
                self._knows(self.run_id)  # a deleted run refuses everything
                refused += self._one_by_one(call)
        return refused

    def _one_by_one(self, metrics: Iterable[Any]) -> list[str]:
        from mlflow.exceptions import MlflowException

        refused = []
        for metric in metrics:
            try:
                self._client.log_batch(self.run_id, metrics=[metric])
            except MlflowException as error:
                if error.error_code not in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
                    raise
                refused.append(f"{metric.key} of step {metric.step}: {error.message}")
        return refused

    def samples(self, step: int, rollouts: Iterable[tuple[Prompt, Rollout]]) -> None:
        """Some rollouts of a step as a text artifact."""
        text = "\n\n".join(
            f"{prompt.environment} #{prompt.index}  reward {rollout.reward:+.3f}  {rollout.components}\n"
            + "\n".join(f"[{message['role']}] {message['content']}" for message in rollout.text)
            for prompt, rollout in rollouts
        )
        if text:
            self._client.log_text(self.run_id, text, f"rollouts/step_{step:06d}.txt")

    def adapter(self, folder: Path) -> None:
        self._client.log_artifacts(self.run_id, str(folder), "adapter")

    def end(self, status: str) -> None:
        """`FINISHED`, `FAILED` or `KILLED`."""
        self._client.set_terminated(self.run_id, status)


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
