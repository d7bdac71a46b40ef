"""Claims about the MLflow run of a run that is gone on with."""

from pathlib import Path

import pytest

from rezero_ray.reporting.mlflow_reporter import MlflowReporter
from tests.record_builders import make_config


@pytest.mark.slow  # MLflow takes seconds to make a store
def test_a_run_goes_on_in_its_mlflow_run_and_in_a_new_one_where_the_store_has_lost_it(tmp_path: Path) -> None:
    def reporter(store: str, run_id: str | None) -> MlflowReporter:
        uri = f"sqlite:///{tmp_path / store}"
        return MlflowReporter(make_config(mlflow__tracking_uri=uri), tmp_path / "run", run_id)

    first = reporter("kept.db", None).run_id
    assert reporter("kept.db", first).run_id == first
    assert reporter("lost.db", first).run_id != first
