"""The process that sends a run to MLflow while it is under way: `python -m rezero_ray.reporting.tracker_process RUN`.

It reads the run directory and never holds up the run. Its stdin is the config (TOML, ended by a line `---`), and then
`end STATUS` or its end, when the run is over or its process has died. Its stdout is one JSON object a line:
`connected` with the store and the run's id, `failing` with a reason, `recovered`, `note`, and at the end `metrics`
once all but artifacts was sent.
"""

import os
import select
import sys
import threading
import time
import tomllib
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

EVENTS = 3
"""File descriptor of what stdout was: it belongs to the events alone."""

POLL_SECONDS = 1.0
RETRY_SECONDS = (2.0, 60.0)
"""Pause after the first failure, doubled up to the second."""

DIED_SECONDS = 10.0
"""After the run's process has died: the run may be resumed at once, and has a tracker of its own then."""

LAST_SECONDS = 40.0
"""After the end of the run: longer than `rezero_ray.reporting.tracker` waits."""


def main(run: Path) -> int:
    """Send until the run is over. Returns 0 when MLflow has everything, else 1."""
    os.nice(5)
    os.dup2(1, EVENTS)
    os.dup2(2, 1)  # MLflow prints addresses of runs
    lines = _lines()
    config_toml = []
    for line in lines:
        if line is None:
            continue
        if line == "---":
            break
        config_toml.append(line)
    from rezero_ray.config import Config
    from rezero_ray.reporting.catch_up import CatchUp, Cursor, reason_of, recorded

    config = Config.model_validate(tomllib.loads("\n".join(config_toml)))
    sender = CatchUp(config, run, lambda text: _say(note=text))
    failing, connected, pause, again = False, False, RETRY_SECONDS[0], 0.0
    sent: object = None

    def metrics_are_there(cursor: Cursor) -> None:
        nonlocal failing, connected
        if not connected:
            _say(connected={"uri": cursor.uri, "run_id": cursor.run_id})
        elif failing:
            _say(recovered=True)
        failing, connected = False, True
        if status is not None:
            _say(metrics=True)

    for line in lines:
        status, there = None if line is None else _status(line, run), recorded(run)
        if status is not None:
            threading.Timer(DIED_SECONDS if line == "end" else LAST_SECONDS, os._exit, (1,)).start()
        elif there == sent or time.monotonic() < again:
            continue
        try:
            sender.send(status, on_metrics=metrics_are_there)
        except Exception as error:
            traceback.print_exc()
            _say(failing=reason_of(error))
            failing, again, pause = True, time.monotonic() + pause, min(2 * pause, RETRY_SECONDS[1])
        else:
            pause, sent = RETRY_SECONDS[0], there
        if status is not None:
            os._exit(int(failing))
    return 1


def _lines() -> Iterator[str | None]:
    """Lines of stdin as they come, None when there was none for a while, and `end` once it has ended."""
    parent, rest = os.getppid(), b""
    while True:
        ready, _, _ = select.select([0], [], [], POLL_SECONDS)
        if not ready:
            if os.getppid() != parent:
                break
            yield None
            continue
        read = os.read(0, 65536)
        if not read:
            break
        *lines, rest = (rest + read).split(b"\n")
        yield from (line.decode() for line in lines)
    yield "end"


def _status(line: str, run: Path) -> str:
    from rezero_ray.reporting.catch_up import MLFLOW_STATUS, status_of_run

    given = line.removeprefix("end").strip()
    return MLFLOW_STATUS.get(given, "FAILED") if given else status_of_run(run)


def _say(**event: object) -> None:
    with suppress(OSError):  # the run has died
        os.write(EVENTS, msgspec.json.encode(event) + b"\n")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
