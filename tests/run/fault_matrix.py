"""Kills each kind of process in each phase of a step, on the real stack, and writes down what came of it.

    python -m tests.run.fault_matrix [--into docs/reliability.md] [--targets engine worker ...]

One run a target, of a tiny model made on the spot: the process is killed during generation, once it is back
during scoring, and so on. A run that has lost its controller is started again with the same command and --resume.
Held against every run: exit status 0, every step in metrics.jsonl once, every prompt trained on once, none put aside.
Takes about forty minutes on two cores.
"""

import argparse
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from rezero_ray.models.tiny import make_tiny_llama
from tests.run.train_process import ENVIRONMENTS, ROOT, TrainProcess, descendants, read_lines

PHASES = ("generation", "scoring", "training", "publishing", "checkpoint")
BATCH = 2
STEPS = 3 * len(PHASES)
"""Two steps can go on while the engine is away, so many lie between two kills."""
LONGEST = 300.0
MARK = "<!-- matrix -->"


class Process:
    """Of the run's processes, those whose command line begins so, one of them."""

    arguments: tuple[str, ...] = ()

    def __init__(self, begins: str, which: int = 0) -> None:
        self._begins, self._which = begins, which

    def is_there(self, run: TrainProcess) -> bool:
        return len(self._pids(run)) > self._which

    def kill(self, run: TrainProcess) -> None:
        os.kill(self._pids(run)[self._which], signal.SIGKILL)

    def end(self) -> None: ...

    def _pids(self, run: TrainProcess) -> list[int]:
        return sorted(pid for pid in descendants(run.process.pid) if _command(pid).startswith(self._begins))


class Controller(Process):
    """The command itself, which is then given again with --resume."""

    def __init__(self) -> None:
        super().__init__("")

    def _pids(self, run: TrainProcess) -> list[int]:
        return [run.process.pid]


class Node(Process):
    """A simulated node that holds every actor, in a Ray cluster whose head holds the controller alone.

    Both are raylets on this machine. What dies is the node's, with all below it; an empty node takes its place.
    """

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        super().__init__("ray::LearnerRank", 2)
        os.environ.setdefault("RAY_worker_niceness", "0")
        self._cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        self._add()
        self.arguments = ("--infra.kind", "ray", "--infra.address", self._cluster.address)

    def kill(self, run: TrainProcess) -> None:
        raylet = self._raylet()
        for pid in [raylet, *descendants(raylet)]:
            os.kill(pid, signal.SIGKILL)
        self._cluster.remove_node(self._node, allow_graceful=False)
        self._add()

    def end(self) -> None:
        self._cluster.shutdown()

    def _pids(self, run: TrainProcess) -> list[int]:
        return sorted(pid for pid in descendants(self._raylet()) if _command(pid).startswith(self._begins))

    def _add(self) -> None:
        cpus = len(os.sched_getaffinity(0))
        self._node = self._cluster.add_node(num_cpus=cpus, object_store_memory=500 * 2**20)

    def _raylet(self) -> int:
        return int(self._node.all_processes["raylet"][0].process.pid)


TARGETS: dict[str, Callable[[], Process]] = {
    "engine": lambda: Process("ray::RolloutEngine"),
    "engine core": lambda: Process("VLLM::EngineCore"),
    "worker": lambda: Process("ray::EnvironmentWorker"),
    "rank 0": lambda: Process("ray::LearnerRank", 0),
    "rank 1": lambda: Process("ray::LearnerRank", 1),
    "rank 2": lambda: Process("ray::LearnerRank", 2),
    "node": Node,
    "controller": Controller,
}


class Trial:
    """A run and the kills that it is to outlive."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.target = name, TARGETS[name]()
        self.marks, self.output = folder / "marks", folder / "run"
        self.marks.mkdir()
        model = make_tiny_llama(folder / "model", tokenizer_from=ROOT / "models/SmolLM2-135M-Instruct")
        self._arguments = [
            *("--model.name", str(model), "--max_steps", str(STEPS), "--ckpt.keep_last", "3"),
            *("--orchestrator.max_async_level", "1", "--orchestrator.batch_size", str(BATCH)),
            *("--orchestrator.sampling.max_tokens", "200", "--mlflow.enabled", "false"),
            *("--orchestrator.env.0.id", "slow_scoring", "--faults.restarts", "10"),
            *("--orchestrator.env.0.args", f'{{ marks = "{self.marks}" }}', "--faults.attempts", "10"),
            *self.target.arguments,
        ]
        self.run = self._start()

    def outlive(self) -> dict[str, float]:
        """Kill in every phase. Returns the seconds from each kill to the end of the next step.

        Raises:
            AssertionError: the run did not go on, or did not end as it should.
        """
        seconds = {}
        for phase in PHASES:
            self._wait_for(phase)
            done, killed = self._steps_done(), time.monotonic()
            self.target.kill(self.run)
            if self.name == "controller":
                self.run.process.wait(30)
                self.run = self._start("--resume")
            self._until(lambda done=done: self._steps_done() > done, f"a step after the kill in {phase}")
            seconds[phase] = time.monotonic() - killed
        status = self.run.wait(LONGEST)
        assert status == 0, self.run.text[-4000:]
        self._holds()
        return seconds

    def _holds(self) -> None:
        rows = read_lines(self.output / "metrics.jsonl")
        assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
        trained = Counter(
            row["prompt"]["index"]
            for step in range(1, STEPS + 1)
            for row in read_lines(self.output / "rollouts" / f"step_{step:06d}.jsonl")
        )
        assert trained == Counter(dict.fromkeys(range(STEPS * BATCH), 4))
        assert not (self.output / "rollouts/quarantine.jsonl").exists()

    def _start(self, *more: str) -> TrainProcess:
        return TrainProcess(self.output, *self._arguments, *more)

    def _steps_done(self) -> int:
        return max(map(int, re.findall(r"Orchestrator Step (\d+):", self.run.text)), default=0)

    def _wait_for(self, phase: str) -> None:
        """Until the run is in `phase`, after the start-up canary, and with the target back from the kill before."""
        self._until(lambda: "canary o_proj" in self.run.text, "the canary to pass")
        self._until(lambda: self.target.is_there(self.run), f"a new {self.name}")
        if phase in ("generation", "scoring"):
            mark, now = self.marks / phase, time.time()
            self._until(lambda: mark.exists() and mark.stat().st_mtime > now, phase)
        else:
            self._until(lambda: self._phase() == phase, phase)

    def _phase(self) -> str | None:
        try:
            phase: str | None = json.loads((self.output / "run.json").read_text("utf-8"))["phase"]
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return phase

    def _until(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + LONGEST
        while not holds():
            assert self.run.process.poll() is None, f"ended, waiting for {what}:\n{self.run.text[-4000:]}"
            assert time.monotonic() < deadline, f"no {what}:\n{self.run.text[-4000:]}"
            time.sleep(0.005)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text("utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def row(name: str) -> str:
    """One line of the table: seconds from each kill to the end of the next step.

    Raises:
        AssertionError: the run did not outlive them.
    """
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Path(folder), name)
        try:
            seconds = trial.outlive()
        finally:
            trial.run.end()
            trial.target.end()
    return f"| {name} | {' | '.join(f'{seconds[phase]:.0f} s' for phase in PHASES)} |"


def merged(page: str, rows: dict[str, str]) -> str:
    """The page with these rows in its table; rows of other targets stay."""
    head, mark, old = page.partition(MARK)
    there = {line.split("|")[1].strip(): line for line in old.splitlines() if line.startswith("| ")} | rows
    lines = [f"| killed | {' | '.join(PHASES)} |", f"|---|{'---|' * len(PHASES)}"]
    lines += [there[name] for name in TARGETS if name in there]
    return f"{head}{mark}\n\n" + "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--into", type=Path, help=f"page whose table, behind `{MARK}`, gets the rows")
    parser.add_argument("--targets", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(ENVIRONMENTS), os.environ.get("PYTHONPATH")])
    )
    failed = 0
    for name in options.targets:
        try:
            line = row(name)
        except AssertionError as error:
            failed, line = 1, ""
            print(f"{name}: {error}", flush=True)
        print(line or f"{name}: FAILED", flush=True)
        if line and options.into is not None:
            options.into.write_text(merged(options.into.read_text("utf-8"), {name: line}), "utf-8")
    return failed


if __name__ == "__main__":
    sys.exit(main())
