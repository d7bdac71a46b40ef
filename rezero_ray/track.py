"""`rezero track RUN`: send to MLflow what its run directory has and MLflow has not."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rezero_ray.config import Config, read_request
from rezero_ray.config_history import config_file
from rezero_ray.holding.lock import acquire
from rezero_ray.recorded_run import RecordedRun
from rezero_ray.reporting.catch_up import CatchUp, missing, read_cursor, reason_of, status_of_run

DONE, FAILED = 0, 1


def main(argv: Sequence[str]) -> int:
    """Sends and prints what was sent; returns 0, or 1 where MLflow did not take it.

    Raises:
        ConfigError: there is no such run, or a process holds its directory: it sends by itself.
    """
    options = _parser().parse_args(argv)
    run = RecordedRun(options.run)
    config = read_request([config_file(run.path)]).config
    if options.tracking_uri:
        settings = config.mlflow.model_copy(update={"tracking_uri": options.tracking_uri})
        config = config.model_copy(update={"mlflow": settings})
    lock = acquire(run.path, limit=config.limits.takeover)
    try:
        return _send(config, run.path)
    finally:
        lock.release()


def _send(config: Config, run: Path) -> int:
    sender = CatchUp(config, run, print)
    try:
        cursor = sender.send(status_of_run(run))
    except Exception as error:  # MLflow raises whatever its stores raise
        lacks = ", ".join(missing(run, read_cursor(run)))
        print(f"failed: {reason_of(error)}", file=sys.stderr)
        print(f"MLflow lacks {lacks}; what was sent before is not sent again", file=sys.stderr)
        return FAILED
    print(f"MLflow has everything of {run}: {cursor.uri} (run {cursor.run_id})")
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rezero track",
        description="Send to MLflow what it has not of a run that is over: metrics, evaluations, sample rollouts, "
        "the adapter. What it has is not sent again.",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    parser.add_argument("--tracking-uri", metavar="URI", help="another store than the run's config names")
    return parser
