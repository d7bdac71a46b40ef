"""MLflow: parameters, metrics, sample rollouts and the adapter of a run."""

import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rezero_ray.config import Config
from rezero_ray.records import Group


class MlflowReporter:
    """Records one run; a resumed run goes on in the same MLflow run."""

    def __init__(self, config: Config, output_dir: Path, run_id: str | None) -> None:
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        import mlflow

        settings, old = config.mlflow, config.wandb
        self._client = mlflow.MlflowClient(tracking_uri=tracking_uri(config, output_dir))
        self._samples = settings.rollouts_per_step
        if run_id is None or not self._knows(run_id):
            name = settings.experiment or (old.project if old else None) or "rezero_ray"
            found = self._client.get_experiment_by_name(name)
            experiment = found.experiment_id if found else self._client.create_experiment(name)
            run_name = settings.run_name or (old.name if old else None) or output_dir.name
            run = self._client.create_run(experiment, run_name=run_name, tags={"host": socket.gethostname()})
            run_id = run.info.run_id
            for key, value in _flat(config.model_dump(mode="json", exclude_none=True)).items():
                self._client.log_param(run_id, key, str(value)[:6000])
        else:
            self._client.update_run(run_id, status="RUNNING")
        self.run_id: str = run_id

    def _knows(self, run_id: str) -> bool:
        """False where the store was left behind, or lost its end with the machine."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        return True

    def step(self, row: Mapping[str, Any], groups: Sequence[Group]) -> None:
        """Metrics of a step, and the first rollouts of it as a text artifact."""
        step = int(row["step"])
        self.metrics({key: value for key, value in row.items() if not key.startswith("eval/")}, step)
        rollouts = [(g.prompt, r) for g in groups for r in g.rollouts][: self._samples]
        if rollouts:
            text = "\n\n".join(
                f"{prompt.environment} #{prompt.index}  reward {rollout.reward:+.3f}  {rollout.components}\n"
                + "\n".join(f"[{message['role']}] {message['content']}" for message in rollout.text)
                for prompt, rollout in rollouts
            )
            self._client.log_text(self.run_id, text, f"rollouts/step_{step:06d}.txt")

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        import time

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        # MLflow has no `@` in its names: avg@4 becomes avg_at_4.
        found = [Metric(key.replace("@", "_at_"), float(value), now, step) for key, value in values.items()]
        self._client.log_batch(self.run_id, metrics=found)

    def adapter(self, folder: Path) -> None:
        self._client.log_artifacts(self.run_id, str(folder), "adapter")

    def end(self, status: str) -> None:
        self._client.set_terminated(self.run_id, status)


def tracking_uri(config: Config, output_dir: Path) -> str:
    """`mlflow.tracking_uri`, else MLFLOW_TRACKING_URI, else a sqlite file beside the run directory."""
    fallback = f"sqlite:///{(output_dir.absolute().parent / 'mlflow.db')}"
    return config.mlflow.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or fallback


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
