"""Can MLflow record the run where the config says?"""

import os
from pathlib import Path

from rezero_ray.config import Config, Problem
from rezero_ray.config.problems import shown
from rezero_ray.preflight.findings import Findings

_SCHEMES = (
    *("file", "http", "https", "databricks", "databricks-uc", "uc"),
    *("sqlite", "postgresql", "mysql", "mssql"),
)  # of mlflow 3.17: where a store lies; the last four are databases, with a driver behind a plus sign if wanted


def examine_tracking(config: Config) -> Findings:
    """The address of the store, as it is written: no server is asked."""
    given = config.mlflow.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not config.mlflow.enabled or given is None or given == "databricks":
        return Findings()
    scheme, colon, rest = given.partition(":")
    if colon and scheme.partition("+")[0] not in _SCHEMES:
        what = f"MLflow has no store {scheme}:"
        remedy = "write sqlite:///PATH, or the http address of a server"
        return Findings([Problem("mlflow.tracking_uri", what, remedy, shown(given))])
    if scheme == "sqlite":
        folder = Path(rest.removeprefix("///").partition("?")[0]).parent
        if not folder.is_dir():
            what = f"{folder} is not there, and sqlite makes no directory"
            return Findings(
                [Problem("mlflow.tracking_uri", what, f"make it: mkdir -p {folder}", shown(given))]
            )
    return Findings()
