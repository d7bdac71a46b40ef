"""Which rules a configuration file breaks, as checkov and our Rego policies say.

The two cannot be installed beside the trainer's packages (`oracle_worker.py` says why), so they live in an
interpreter of their own, next to the running one, and a child process that is started once judges file after
file. What it found for a file is remembered. A judge that dies or hangs is started afresh once; after that
`OracleError` is raised, which is never a score.
"""

import contextlib
import functools
import json
import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from environments.config_verification.rules import KUBERNETES, RULE_OF, TERRAFORM, Kind

HERE = Path(__file__).parent
PINS = HERE.parents[1] / "requirements" / "config-oracles.txt"
INTERPRETER = Path(sys.prefix) / "config-oracles" / "bin" / "python"

START_SECONDS = 120.0
"""Importing checkov takes 1.5 s, and far longer on a busy machine with cold disks."""

JUDGE_SECONDS = 20.0
"""One file takes 10 to 30 ms."""

FILES_PER_PROCESS = 5000
"""checkov 3.3.30 keeps some 26 kB of each file that it judged, so the process is renewed at 130 MB more."""

REMEMBERED_FILES = 20_000
"""A file with its answer is about 1 kB."""


class OracleError(RuntimeError):
    """The oracles cannot be asked: not installed, or they died or hung twice in a row."""


def install_command() -> str:
    """What to type so that the oracles are there for this interpreter."""
    folder = INTERPRETER.parents[1]
    beside = Path(sys.prefix) / "bin" / "uv"
    uv = beside if beside.exists() else "uv"
    return f"{uv} venv --clear --python {sys.executable} {folder} && {uv} pip install --no-deps -p {folder} -r {PINS}"


class ConfigOracle:
    """The child process. `failing` may be called from any thread; one file is judged at a time."""

    def __init__(
        self,
        interpreter: Path = INTERPRETER,
        *,
        start_seconds: float = START_SECONDS,
        judge_seconds: float = JUDGE_SECONDS,
        files_per_process: int = FILES_PER_PROCESS,
    ) -> None:
        self._interpreter = interpreter
        self._start_seconds = start_seconds
        self._judge_seconds = judge_seconds
        self._files_per_process = files_per_process
        self._judged = 0
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  kept as long as the oracle

    def failing(self, kind: Kind, text: str) -> frozenset[str]:
        """Names of the rules that the file breaks. Raises OracleError when the oracles cannot say."""
        with self._lock:
            try:
                reply = self._ask(kind, text)
            except OracleError:
                reply = self._ask(kind, text)
        failed = reply.get("failed")
        if not isinstance(failed, list):
            raise OracleError(f"the oracles cannot judge a {kind} file: {reply.get('error')}\n{text}")
        rules = self._rules(kind)
        return frozenset(rules.get(found, found) for found in map(str, failed))

    def start(self) -> None:
        """Starts the process if it does not run. Raises OracleError with what to install."""
        with self._lock:
            self._start()

    @property
    def process_id(self) -> int | None:
        """Of the child process, None while there is none."""
        return None if self._process is None else self._process.pid

    def close(self) -> None:
        """Ends the process; `failing` would start another."""
        with self._lock:
            self._stop()

    @staticmethod
    @functools.cache
    def _rules(kind: Kind) -> dict[str, str]:
        """checkov's ids of a kind, and the rule that each stands for."""
        return {check: rule.name for rule in RULE_OF.values() if rule.kind == kind for check in rule.checks}

    def _start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self._stop()
        if not self._interpreter.exists():
            raise OracleError(
                f"config-verification needs checkov and regopy in an interpreter of their own, "
                f"and {self._interpreter} is not there. Install them: {install_command()}"
            )
        self._process = subprocess.Popen(
            [self._interpreter, "-I", HERE / "oracle_worker.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**_offline(os.environ), "LOG_LEVEL": "ERROR", "CHECKOV_PARALLELIZATION_TYPE": "none"},
            start_new_session=True,  # Ctrl-C is for the run; the child ends with its input
        )
        policies = HERE.joinpath("policies").glob("*.rego")
        checks = {kind: sorted(self._rules(kind)) for kind in (KUBERNETES, TERRAFORM)}
        orders = {"checks": checks, "policies": {path.stem: path.read_text() for path in policies}}
        found, wanted = self._exchange(orders, self._start_seconds), oracle_pins()
        if found != wanted:
            self._stop()
            raise OracleError(f"{self._interpreter} has {found}, not {wanted}. Renew it: {install_command()}")

    def _ask(self, kind: Kind, text: str) -> dict[str, object]:
        if self._judged >= self._files_per_process:
            self._stop()
        self._start()
        self._judged += 1
        return self._exchange({"kind": kind, "text": text}, self._judge_seconds)

    def _exchange(self, message: Mapping[str, object], seconds: float) -> dict[str, object]:
        """Sends a message and returns the reply; a process that does not answer is ended."""
        try:
            self._send(json.dumps(message))
            reply = json.loads(self._receive(seconds))
        except (OSError, EOFError, ValueError) as error:
            words = self._last_words()
            self._stop()
            raise OracleError(f"the oracles' process failed ({error}); it said: {words}") from error
        return reply if isinstance(reply, dict) else {"error": f"not a reply: {reply!r}"}

    def _send(self, line: str) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def _receive(self, seconds: float) -> bytes:
        """One line. Raises EOFError at the end of the output, TimeoutError at the end of the time."""
        assert self._process is not None and self._process.stdout is not None
        output, received, deadline = self._process.stdout, b"", time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while not received.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError(f"no answer within {seconds:g} s")
                piece = os.read(output.fileno(), 65536)
                if not piece:
                    raise EOFError("it ended")
                received += piece
        return received

    def _stop(self) -> None:
        process, self._process, self._judged = self._process, None, 0
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _last_words(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-1000:].strip() or "it said nothing"


def _offline(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without the keys that would make checkov talk to its maker's service."""
    return {name: value for name, value in environment.items() if not name.startswith(("BC_", "PRISMA_"))}


def oracle_pins() -> dict[str, str]:
    """The pinned versions of the two oracles."""
    pins = dict(line.split("==") for line in PINS.read_text().splitlines())
    return {name: pins[name] for name in ("checkov", "regopy")}


@functools.cache
def shared_oracle() -> ConfigOracle:
    """The one oracle of this process."""
    return ConfigOracle()


@functools.lru_cache(REMEMBERED_FILES)
def failing_rules(kind: Kind, text: str) -> frozenset[str]:
    """`ConfigOracle.failing` of the shared oracle, remembered by the file's content."""
    return shared_oracle().failing(kind, text)
