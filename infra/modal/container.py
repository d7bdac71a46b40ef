"""What runs in the container: the same command as everywhere, watched over.

The command is a process of its own, because vLLM, DeepSpeed and Ray want the main thread and the signals that
Modal's own entry point uses. Here its checkpoints are committed to the Volume as they become complete, its state
is told to `rezero runs`, and what Modal says (preemption, stop) becomes the command's Ctrl-C.
"""

import contextlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infra.modal.attempts import FAILED, MAX_IDLE_STARTS, WRONG_REQUEST, may_start, verdict
from infra.modal.bootstrap import DASHBOARD_PORT, DASHBOARD_URL, RUN_NAME
from infra.modal.client import modal_client
from infra.modal.records import HEARTBEAT_SECONDS, Records, RunRecord
from infra.modal.table import ModalInfraConfig
from rezero_ray.config import ConfigError
from rezero_ray.config.infra_table import LAUNCHED, PAID_SINCE
from rezero_ray.holding.lock import clear_dead, wait_until_free

PREEMPTION_SECONDS = 25.0
"""Modal gives a container 30 seconds. A step that takes longer is lost, and taken again."""

STOP_SECONDS = 900.0
"""A run that is asked to stop finishes its step and saves; it is waited for this long."""

POLL_SECONDS = 0.5


class AttemptFailedError(Exception):
    """The run failed after it had got on; Modal starts it again, and it resumes."""


def train(run: str, config_toml: str, resume: bool) -> int:
    """The function that Modal calls, once an attempt: the exit status of the command.

    Raises:
        AttemptFailedError: to be called again (up to `infra.retries` times).
    """
    record = Records().get(run)
    if record is None:
        print(f"{run}: its record is gone from the Dict of runs; launch it again with --resume")
        return FAILED
    table = ModalInfraConfig.model_validate(tomllib.loads(config_toml)["infra"])
    return Attempt(table, record, config_toml, resume=resume).run()


class Attempt:
    """One life of the run in one container."""

    def __init__(self, table: ModalInfraConfig, record: RunRecord, config_toml: str, *, resume: bool) -> None:
        modal = modal_client()
        self._table, self._record, self._records = table, record, Records()
        self._config_toml = config_toml
        self._checkpoints = modal.Volume.from_name(table.checkpoints_volume)
        self._mlflow = modal.Volume.from_name(table.mlflow_volume)
        self._hf_cache = modal.Volume.from_name(table.hf_cache_volume)
        self._output = Path(record.output_dir)
        self._resume = resume or bool(record.starts)
        self._began_at = newest_step(self._output)
        self._told = 0.0

    def run(self) -> int:
        """From the start of the container to the end of the command."""
        starts = self._record.starts
        if not may_start(starts, self._began_at):
            print(f"{MAX_IDLE_STARTS} attempts began after step {self._began_at} and none got on: given up")
            self._tell(status="failed")
            return FAILED
        print(f"attempt {len(starts) + 1} of {self._record.name}, after step {self._began_at}", flush=True)
        call_id = modal_client().current_function_call_id()  # the launcher may not have written it yet
        self._tell(status="running", call_id=call_id, starts=[*starts, self._began_at], step=self._began_at)
        if not self._is_free():
            self._tell(status="refused")
            return WRONG_REQUEST
        with contextlib.ExitStack() as stack:
            store = self._mlflow_store()
            variables = os.environ | {LAUNCHED: "1", RUN_NAME: self._record.name}
            variables |= {PAID_SINCE: str(_began())}
            variables |= {"MLFLOW_TRACKING_URI": f"sqlite:///{store}/mlflow.db"}
            variables |= stack.enter_context(self._dashboard())
            command = stack.enter_context(self._command())
            self._fetch_model()
            process = subprocess.Popen(command, env=variables, cwd=store, start_new_session=True)
            return self._watch(process)

    def _is_free(self) -> bool:
        """Wait for a container of another call that may still write there. The Volume shows what it wrote after a
        reload only, which the command cannot do: it has files open."""
        limit = tomllib.loads(self._config_toml)["limits"]["takeover"]
        try:
            wait_until_free(self._output, limit=limit, refresh=self._checkpoints.reload, say=print)
        except ConfigError as error:
            print(error, flush=True)
            return False
        return True

    def _watch(self, process: subprocess.Popen[bytes]) -> int:
        cancelled = modal_client().exception.InputCancellation
        try:
            while process.poll() is None:
                self._keep()
                time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            self._let_end(process, PREEMPTION_SECONDS)
            self._commit()
            self._tell(status="preempted")
            raise
        except cancelled:
            self._let_end(process, STOP_SECONDS)
            self._commit()
            self._tell(status="stopped")
            raise
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        self._commit()
        answer = verdict(process.returncode, progressed=newest_step(self._output) > self._began_at)
        if answer == "again":
            self._tell(status="failed, to be tried again")
            raise AttemptFailedError(f"ended with {process.returncode} after step {self._record.step}")
        self._tell(status=self._status() if answer == "done" else answer)
        return WRONG_REQUEST if answer == "refused" else process.returncode

    def _keep(self) -> None:
        """Commit a checkpoint that has become complete; now and then tell that this lives."""
        if newest_step(self._output) > self._record.step:
            self._commit()
        elif time.monotonic() - self._told > HEARTBEAT_SECONDS:
            try:
                self._tell()
            except modal_client().exception.Error as error:  # a sign of life that is lost costs nothing
                print(f"Modal did not take a sign of life: {error}", flush=True)
                self._told = time.monotonic()

    def _commit(self) -> None:
        """The MLflow store first: run.json names a run in it. The record of a command that was killed is removed, so
        that the next container does not wait for its heartbeat."""
        clear_dead(self._output)
        step = newest_step(self._output)
        self._mlflow.commit()
        self._checkpoints.commit()
        if step > self._record.step:
            print(f"checkpoint of step {step} is on the Volume {self._table.checkpoints_volume}", flush=True)
        self._tell(step=step, cost=self._cost())

    def _let_end(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        """Ctrl-C for the command, which finishes its step and saves; what still lives after `seconds` is killed."""
        process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < deadline:
            self._keep()
            time.sleep(POLL_SECONDS)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _status(self) -> str:
        """Why the run itself says that it ended: `done` or `out of budget`."""
        return str(json.loads((self._output / "run.json").read_text("utf-8"))["status"])

    def _cost(self) -> float | None:
        """Dollars until the last recorded step, of all attempts; None where the run does not know."""
        try:
            last = (self._output / "metrics.jsonl").read_text("utf-8").splitlines()[-1]
            return float(json.loads(last)["cost/usd"])
        except (OSError, LookupError, ValueError):  # no step yet, a line cut short, or no rate
            return None

    def _tell(self, **changes: Any) -> None:
        self._record = self._records.update(self._record, **changes)
        self._told = time.monotonic()

    def _mlflow_store(self) -> Path:
        """A folder of the run's own, because SQLite on a Volume has one writer. MLflow puts artifacts into mlruns/ of
        the current directory, so the command runs in it."""
        folder = Path(self._table.home, "mlflow", self._record.name)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextlib.contextmanager
    def _dashboard(self) -> Iterator[dict[str, str]]:
        """A token of this attempt's own, and the tunnel. The token goes into the record and is never printed."""
        token = secrets.token_urlsafe(32)
        guarded = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        if not self._table.dashboard:
            yield guarded
            return
        port = _free_port()
        with modal_client().forward(port) as tunnel:
            self._tell(ray_dashboard=tunnel.url, ray_token=token)
            try:
                yield {**guarded, DASHBOARD_PORT: str(port), DASHBOARD_URL: tunnel.url}
            finally:
                self._tell(ray_dashboard="", ray_token="")

    @contextlib.contextmanager
    def _command(self) -> Iterator[list[str]]:
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder, "config.toml")
            config.write_text(self._config_toml, "utf-8")
            command = [sys.executable, "-m", "rezero_ray.train", str(config)]
            yield [*command, "--resume"] if self._resume else command

    def _fetch_model(self) -> None:
        """Download a model of the hub, unless the Volume has it."""
        name = str(tomllib.loads(self._config_toml)["model"]["name"])
        if name.startswith("/"):
            return
        from huggingface_hub import snapshot_download

        snapshot_download(name)
        self._hf_cache.commit()


def newest_step(output_dir: Path) -> int:
    """The step of the newest checkpoint that is complete; 0 where there is none."""
    found = (path.parent.name for path in output_dir.glob("checkpoints/step_*/COMPLETE.json"))
    return max((int(match[1]) for name in found if (match := re.fullmatch(r"step_(\d+)", name))), default=0)


def _began() -> float:
    """Unix time at which this process, the container's own, was started."""
    import psutil

    return float(psutil.Process().create_time())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
