"""What the fault matrix does to a run: one class a fault, each on the real stack."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.run.train_process import TrainProcess, descendants, read_lines


class Fault:
    """A fault that strikes a run once in every phase.

    Attributes:
        arguments: flags of the run.
        environment: variables of the run's processes.
        output: the run directory.
        ends_the_command: after a strike the command ends, and is given again with --resume.
    """

    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = {}  # noqa: RUF012 - subclasses assign their own
    ends_the_command = False

    def __init__(self, folder: Path) -> None:
        self.folder, self.output = folder, folder / "run"

    def is_there(self, run: TrainProcess) -> bool:
        """Whether what the last strike took is back, so that the next has something to take."""
        return True

    def strike(self, run: TrainProcess, phase: str) -> None:
        raise NotImplementedError

    def holds(self, run: TrainProcess, steps: int) -> None:
        """Assert what this fault promises beyond what every run does."""

    def end(self) -> None:
        """Release what the fault has started."""


class Killed(Fault):
    """SIGKILL to one of the run's processes: the one whose command line begins so."""

    begins, which = "", 0

    def is_there(self, run: TrainProcess) -> bool:
        return len(self._pids(run)) > self.which

    def strike(self, run: TrainProcess, phase: str) -> None:
        os.kill(self._pids(run)[self.which], signal.SIGKILL)

    def _pids(self, run: TrainProcess) -> list[int]:
        return sorted(pid for pid in descendants(run.process.pid) if _command(pid).startswith(self.begins))


class Engine(Killed):
    begins = "ray::RolloutEngine"


class EngineCore(Killed):
    begins = "VLLM::EngineCore"


class Worker(Killed):
    begins = "ray::EnvironmentWorker"


class Rank0(Killed):
    begins = "ray::LearnerRank"


class Rank1(Rank0):
    which = 1


class Rank2(Rank0):
    which = 2


class Controller(Killed):
    """The command itself."""

    ends_the_command = True

    def _pids(self, run: TrainProcess) -> list[int]:
        return [run.process.pid]


class Node(Killed):
    """A simulated node that holds every actor, in a Ray cluster whose head holds the controller alone.

    Both are raylets on this machine. What dies is the node's, with all below it; an empty node takes its place.
    """

    begins, which = "ray::LearnerRank", 2

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        super().__init__(folder)
        os.environ.setdefault("RAY_worker_niceness", "0")
        self._cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        self._add()
        self.arguments = ("--infra.kind", "ray", "--infra.address", self._cluster.address)

    def strike(self, run: TrainProcess, phase: str) -> None:
        raylet = self._raylet()
        for pid in [raylet, *descendants(raylet)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._cluster.remove_node(self._node, allow_graceful=False)
        self._add()

    def end(self) -> None:
        self._cluster.shutdown()

    def _pids(self, run: TrainProcess) -> list[int]:
        return sorted(pid for pid in descendants(self._raylet()) if _command(pid).startswith(self.begins))

    def _add(self) -> None:
        cpus = len(os.sched_getaffinity(0))
        self._node = self._cluster.add_node(num_cpus=cpus, object_store_memory=500 * 2**20)

    def _raylet(self) -> int:
        return int(self._node.all_processes["raylet"][0].process.pid)


class Tracker(Fault):
    """A real MLflow server, killed in one phase and back before the next."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.arguments = (
            *("--mlflow.enabled", "true", "--mlflow.tracking_uri", f"http://127.0.0.1:{self._port}"),
            *("--mlflow.experiment", "matrix"),
        )
        self._start()

    def is_there(self, run: TrainProcess) -> bool:
        if self._server.poll() is not None:
            self._start()
        return True

    def strike(self, run: TrainProcess, phase: str) -> None:
        self._kill()

    def holds(self, run: TrainProcess, steps: int) -> None:
        """Whatever was out of reach at one time has been sent later: every step's reward is in the store."""
        import mlflow

        client = mlflow.MlflowClient(f"http://127.0.0.1:{self._port}")
        experiment = client.get_experiment_by_name("matrix")
        assert experiment is not None
        (record,) = client.search_runs([experiment.experiment_id])
        history = client.get_metric_history(record.info.run_id, "reward/mean")
        assert sorted({point.step for point in history}) == list(range(1, steps + 1)), run.text[-3000:]

    def end(self) -> None:
        self._kill()

    def _start(self) -> None:
        store = f"sqlite:///{self.folder / 'server.db'}"
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--workers", "1"]
        with (self.folder / "server.log").open("ab") as log:
            self._server = subprocess.Popen(
                [*command, "--host", "127.0.0.1", "--port", str(self._port)],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
                return
            time.sleep(0.2)
        raise AssertionError("the MLflow server does not listen")

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait(30)


class FullDisk(Fault):
    """The run directory's file system has no byte left, from one moment on; there is room again for the resumed run.

    The file system is a tmpfs of its own, so mounting it needs root.
    """

    ends_the_command = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._disk = folder / "disk"
        self._disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", str(self._disk)], check=True)
        (self._disk / "run").mkdir()
        (folder / "run").symlink_to(self._disk / "run")  # the console's log stays on the other disk

    def strike(self, run: TrainProcess, phase: str) -> None:
        filler = self._disk / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            for size in (1 << 20, 4096, 1):
                with contextlib.suppress(OSError):
                    while file.write(bytes(size)):
                        pass
        status = run.wait(180)
        filler.unlink()
        assert status == 1, f"ended with {status} on a full disk:\n{run.text[-4000:]}"
        assert "Traceback" not in run.text, run.text[-4000:]
        assert "No space left on device" in run.text, run.text[-4000:]

    def end(self) -> None:
        subprocess.run(["umount", "--lazy", str(self._disk)], check=False)


class ClockJump(Fault):
    """The wall clock of every process of the run jumps, forwards and backwards by turns (libfaketime)."""

    LIBRARY = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
    JUMPS = ("+7200", "-86400", "+31536000", "-600", "+0")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        assert self.LIBRARY.exists(), "needs libfaketime: apt-get install faketime"
        self._offset = folder / "offset"
        self._offset.write_text("+0")
        self._jumps = iter(self.JUMPS)
        self.environment = {
            "LD_PRELOAD": str(self.LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._offset),
            "FAKETIME_CACHE_DURATION": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def strike(self, run: TrainProcess, phase: str) -> None:
        self._offset.write_text(next(self._jumps))


class Proxied(Engine):
    """A proxy for every address, loopback included, that refuses every request; and an engine is killed."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.asked: list[str] = []
        self._proxy = ThreadingHTTPServer(("127.0.0.1", 0), _refusing(self.asked))
        threading.Thread(target=self._proxy.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{self._proxy.server_address[1]}"
        names = ("http_proxy", "https_proxy", "all_proxy")
        self.environment = dict.fromkeys((*names, *map(str.upper, names)), address)
        self.environment |= {"no_proxy": "", "NO_PROXY": ""}

    def holds(self, run: TrainProcess, steps: int) -> None:
        assert not [line for line in self.asked if "127.0.0.1" in line or "localhost" in line], self.asked

    def end(self) -> None:
        self._proxy.shutdown()


def _refusing(asked: list[str]) -> type[BaseHTTPRequestHandler]:
    class Refusal(BaseHTTPRequestHandler):
        def _refuse(self) -> None:
            asked.append(self.requestline)
            self.send_error(403)

        do_GET = do_POST = do_CONNECT = do_PUT = do_HEAD = _refuse

        def log_message(self, *_: object) -> None: ...

    return Refusal


class SecondProcess(Fault):
    """The same command a second time, with --resume, while the first is at work."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._again: Callable[[], TrainProcess] | None = None

    def again_by(self, start: Callable[[], TrainProcess]) -> None:
        self._again = start

    def strike(self, run: TrainProcess, phase: str) -> None:
        assert self._again is not None
        before = json.loads((self.output / "run.json").read_text("utf-8"))["run_id"]
        lines = len(read_lines(self.output / "metrics.jsonl")) if run_has_steps(self.output) else 0
        second = self._again()
        status = second.wait(180)
        assert status == 2, f"the second ended with {status}:\n{second.text[-3000:]}"
        assert str(run.process.pid) in second.text, second.text[-3000:]
        assert json.loads((self.output / "run.json").read_text("utf-8"))["run_id"] == before
        assert not run_has_steps(self.output) or len(read_lines(self.output / "metrics.jsonl")) >= lines


def run_has_steps(output: Path) -> bool:
    return (output / "metrics.jsonl").exists()


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text("utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


FAULTS: dict[str, Callable[[Path], Fault]] = {
    "engine": Engine,
    "engine core": EngineCore,
    "worker": Worker,
    "rank 0": Rank0,
    "rank 1": Rank1,
    "rank 2": Rank2,
    "node": Node,
    "controller": Controller,
    "tracker": Tracker,
    "disk full": FullDisk,
    "clock jump": ClockJump,
    "engine, behind a proxy": Proxied,
    "second process": SecondProcess,
}
