"""Experiment tracking off the critical path: a process of its own sends what the run directory records.

The run waits for MLflow at its end only, and there for some seconds. What was not sent by then is named, with the
command that sends it later (`rezero track RUN`).
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import rezero_ray
from rezero_ray.config import Config, dump_toml
from rezero_ray.reporting.catch_up import missing, read_cursor
from rezero_ray.tracking.store import shown_uri, tracking_uri

LOG = "tracking.log"

DEAD_SECONDS = 5.0
"""At the end of a run, for a store that has not answered the last time."""

ANSWERING_SECONDS = 8.0
"""At the end of a run, for one that has: until it has the last metrics."""

LONGEST_SECONDS = 30.0
"""At the end of a run, in all: while the adapter is uploaded, or the store is still being made."""


class Tracker:
    """Starts the process, and passes on what it says."""

    def __init__(
        self, config: Config, run: Path, say: Callable[[str], None], on_run: Callable[[str], None]
    ) -> None:
        """`on_run` is given the id of the run in MLflow once it is known."""
        self._run, self._say, self._on_run = run, say, on_run
        self._uri = shown_uri(tracking_uri(config, run))
        self._failing = ""
        self._since = time.monotonic()
        self._stage: Literal["starting", "answering", "artifacts"] = "starting"
        self._process = self._start(config)

    def _start(self, config: Config) -> subprocess.Popen[bytes] | None:
        root = str(Path(rezero_ray.__file__).parents[1])
        path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
        try:
            with (self._run / LOG).open("wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "rezero_ray.reporting.tracker_process", str(self._run.absolute())],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
                    start_new_session=True,  # Ctrl-C is the run's
                )
            assert process.stdin is not None
            process.stdin.write(f"{dump_toml(config)}\n---\n".encode())
            process.stdin.flush()
        except OSError as error:
            self._failed(f"its process cannot be started: {error}")
            return None
        self._listener = threading.Thread(target=self._listen, args=(process,), name="tracker", daemon=True)
        self._listener.start()
        return process

    def finish(self, status: str) -> None:
        """Give the process the end of the run and some seconds to send it; say what MLflow lacks then."""
        process, self._process = self._process, None
        if process is not None:
            self._wait(process, status)
        lacks = missing(self._run, read_cursor(self._run))
        if lacks:
            why = f" ({self._failing})" if self._failing else ""
            self._say(f"MLflow lacks {', '.join(lacks)}{why}. Send them later: rezero track {self._run}")

    def close(self) -> None:
        """End the process at once, where `finish` was not called."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _wait(self, process: subprocess.Popen[bytes], status: str) -> None:
        assert process.stdin is not None
        try:
            process.stdin.write(f"end {status}\n".encode())
            process.stdin.close()
        except OSError:  # it has died; its log says why
            pass
        began = self._since = time.monotonic()
        while process.poll() is None:
            now = time.monotonic()
            if now - self._since > self._patience() or now - began > LONGEST_SECONDS:
                process.kill()
            time.sleep(0.02)
        self._listener.join(1.0)

    def _patience(self) -> float:
        if self._failing:
            return DEAD_SECONDS
        return ANSWERING_SECONDS if self._stage == "answering" else LONGEST_SECONDS

    def _enter(self, stage: Literal["answering", "artifacts"]) -> None:
        self._failing, self._stage, self._since = "", stage, time.monotonic()

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._heard(json.loads(line))
        if self._process is process and process.wait() != 0:
            self._failed(f"its process has ended with {process.returncode}: see {self._run / LOG}")

    def _heard(self, event: dict[str, Any]) -> None:
        if "connected" in event:
            self._enter("answering")
            found = event["connected"]
            self._on_run(found["run_id"])
            self._say(f"MLflow: {found['uri']} (run {found['run_id']})")
        elif "failing" in event:
            self._failed(event["failing"])
        elif "recovered" in event:
            self._enter("answering")
            self._say(f"MLflow answers again, and has everything so far: {self._uri}")
        elif "metrics" in event:
            self._enter("artifacts")
        else:
            self._say(event["note"])

    def _failed(self, why: str) -> None:
        """Report the first time; the run continues."""
        if not self._failing:
            self._say(
                f"MLflow ({self._uri}) does not take this run: {why}. metrics.jsonl has everything; it is sent when "
                "MLflow answers"
            )
        self._failing = why
