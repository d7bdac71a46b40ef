"""The main command as a process, and what is seen of a run from outside."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SMALL = [
    *("--max_steps", "3"),
    *("--ckpt.interval", "1"),
    *("--orchestrator.batch_size", "2"),
    *("--orchestrator.rollouts_per_example", "4"),
    *("--orchestrator.sampling.max_tokens", "24"),
]

BASE_DEFENDS: dict[str, str | float] = {"target": "base", "target_temperature": 0.0, "target_max_tokens": 16}
"""Arguments of redteam-attack: greedy, so that the replies can be told from the policy's."""

ENVIRONMENTS = Path(__file__).parent / "environments"
"""Toys of these tests, to be put on PYTHONPATH."""


def noise(model: Path, marks: Path) -> tuple[str, ...]:
    """Arguments for conversations of three turns with a tiny model: a step takes a second or two, two ranks train,
    and the scores differ, so that every step changes the policy."""
    return (
        *("--model.name", str(model), "--trainer_gpu_ids", "[1, 2]"),
        *("--orchestrator.env.0.id", "slow_scoring"),
        *("--orchestrator.env.0.args", f'{{ marks = "{marks}", seconds = 0.5, turns = 3 }}'),
        *("--trust.canary", "false", "--mlflow.enabled", "false", "--infra.dashboard", "false"),
    )


class TrainProcess:
    """`python -m rezero_ray.train configs/redteam.toml configs/overlays/cpu.toml ...` as a person starts it.

    `request` replaces those files and of SMALL; `program` are the interpreter's arguments for another
    way into the same command. `environment` replaces this process's; `before` are words before the
    command, such as `nohup`.
    """

    def __init__(
        self,
        output: Path,
        *arguments: str,
        request: Path | None = None,
        program: Sequence[str] = ("-m", "rezero_ray.train"),
        environment: Mapping[str, str] | None = None,
        before: Sequence[str] = (),
    ) -> None:
        self.output, self.log = output, output.with_suffix(f".{time.monotonic_ns()}.log")
        usual = ["configs/redteam.toml", "configs/overlays/cpu.toml", *SMALL]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *before,
                    sys.executable,
                    *program,
                    *(usual if request is None else [str(request)]),
                    "--output_dir",
                    str(output),
                    *arguments,
                ],
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{output.parent / 'mlflow.db'}"}
                if environment is None
                else dict(environment),
            )

    @property
    def text(self) -> str:
        return self.log.read_text("utf-8", errors="replace")

    def wait_for(self, line: str, seconds: float = 420) -> None:
        """Wait until a line of the output contains `line`."""
        deadline = time.monotonic() + seconds
        while line not in self.text:
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.text}"
            assert time.monotonic() < deadline, f"no {line!r} within {seconds} s:\n{self.text}"
            time.sleep(0.2)

    def wait(self, seconds: float = 420) -> int:
        return self.process.wait(seconds)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(30)


def descendants(pid: int) -> list[int]:
    """Processes below `pid`, from /proc."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, children.read_text("ascii").split()):
            found += [child, *descendants(child)]
    return found


RAYS_OWN_AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""They look for their dead raylet a few minutes longer, holding nothing: Ray's doing, and not ours to kill."""


def alive(pid: int) -> bool:
    try:
        if Path(f"/proc/{pid}/cmdline").read_text("utf-8", errors="replace").startswith(RAYS_OWN_AGENTS):
            return False
        return Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def still_alive(pids: Sequence[int], seconds: float) -> list[str]:
    """The command lines of those that live on for so long."""
    deadline = time.monotonic() + seconds
    while (left := [pid for pid in pids if alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.5)
    return [Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace") for pid in left]


@dataclass
class ObservedRun:
    """A finished run and what Ray said of itself while it was under way."""

    output: Path
    text: str
    status: int
    actors: list[dict[str, Any]] = field(default_factory=list)
    placement_groups: list[dict[str, Any]] = field(default_factory=list)
    status_without_token: int = 0

    def metrics(self) -> list[dict[str, Any]]:
        return read_lines(self.output / "metrics.jsonl")


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def ask(dashboard: str, what: str) -> list[dict[str, Any]]:
    token = (Path.home() / ".ray" / "auth_token").read_text("ascii").strip()
    request = urllib.request.Request(
        f"{dashboard}/api/v0/{what}?detail=1", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return list(json.load(answer)["data"]["result"]["result"])


def status_without_token(dashboard: str) -> int:
    try:
        with urllib.request.urlopen(f"{dashboard}/api/v0/actors", timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
