"""Can MLflow record the run where the config says? What keeps it from that does not keep the run from anything."""

import os
from pathlib import Path

from rezero_ray.config import Config, Problem
from rezero_ray.config.problems import shown
from rezero_ray.preflight.findings import Findings
from rezero_ray.tracking.store import shown_uri, sqlite_file, sqlite_problem, tracking_uri, unreachable

_SCHEMES = (
    *("file", "http", "https", "databricks", "databricks-uc", "uc"),
    *("sqlite", "postgresql", "mysql", "mssql"),
)  # of mlflow 3.17: where a store lies; the last four are databases, with a driver behind a plus sign if wanted


def examine_tracking(config: Config, *, ask: bool = True) -> Findings:
    """Problems of the address as it is written; what is wrong with the store there is a note, because metrics.jsonl
    is the record and the rest can be sent later.

    Args:
        ask: try the store: open the SQLite file, or ask the server, which answers within seconds or not at all.
    """
    if not config.mlflow.enabled:
        return Findings()
    given = config.mlflow.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    if given is not None and given != "databricks":
        problem = _unusable(given)
        if problem is not None:
            return Findings([problem])
    output_dir = Path(config.output_dir).expanduser()
    try:
        uri = tracking_uri(config, output_dir)
        file = sqlite_file(uri)
        why = (sqlite_problem(file) if file else unreachable(uri)) if ask else None
    except OSError:  # of output_dir, which has a problem of its own then
        return Findings()
    if why is None or (given is None and file is not None and not file.parent.is_dir()):  # the run makes it
        return Findings()
    what = f"MLflow ({shown_uri(uri)}) cannot record the run now: {why}"
    later = f"the run starts without it; send it later: rezero track {config.output_dir}"
    return Findings(notes=[f"{what}; {later}"])


def _unusable(given: str) -> Problem | None:
    scheme, colon, _ = given.partition(":")
    if colon and scheme.partition("+")[0] not in _SCHEMES:
        what = f"MLflow has no store {scheme}:"
        remedy = "write sqlite:///PATH, or the http address of a server"
        return Problem("mlflow.tracking_uri", what, remedy, shown(given))
    file = sqlite_file(given)
    if file is not None and not file.parent.is_dir():
        what = f"{file.parent} is not there, and sqlite makes no directory"
        return Problem("mlflow.tracking_uri", what, f"make it: mkdir -p {file.parent}", shown(given))
    return None
