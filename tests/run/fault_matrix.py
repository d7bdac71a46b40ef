"""Strikes a run with each fault in each phase of a step, on the real stack, and records the recovery.

    python -m tests.run.fault_matrix [--into docs/reliability.md] [--faults engine worker ...]

One run a fault, of a tiny model made on the spot: the fault strikes during generation, once the run has recovered
during scoring, and so on. A command that the fault ends is given again with --resume. Asserted of every run: exit
status 0, every step in metrics.jsonl once, every prompt trained on once, none quarantined. About five minutes a fault
on two idle cores.
"""

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from rezero_ray.models.tiny import make_tiny_llama
from tests.run.faults import FAULTS, SecondProcess
from tests.run.train_process import ENVIRONMENTS, ROOT, TrainProcess, read_lines

PHASES = ("generation", "scoring", "training", "publishing", "checkpoint")
BATCH = 2
STEPS = 3 * len(PHASES)
"""Two steps can be trained while the engine is away, so many lie between two strikes."""
LONGEST = 300.0
MARK = "<!-- matrix -->"


class Trial:
    """A run and the strikes that it must survive."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.fault = name, FAULTS[name](folder)
        self.marks, self.output = folder / "marks", self.fault.output
        self.marks.mkdir()
        model = make_tiny_llama(folder / "model", tokenizer_from=ROOT / "models/SmolLM2-135M-Instruct")
        flags = {
            "model.name": str(model),
            "max_steps": str(STEPS),
            "ckpt.keep_last": "3",
            "orchestrator.max_async_level": "1",
            "orchestrator.batch_size": str(BATCH),
            "orchestrator.sampling.max_tokens": "200",
            "mlflow.enabled": "false",
            "orchestrator.env.0.id": "slow_scoring",
            "orchestrator.env.0.args": f'{{ marks = "{self.marks}" }}',
            "faults.restarts": "10",
            "faults.attempts": "10",
        }
        given = iter(self.fault.arguments)
        flags |= {key.removeprefix("--"): value for key, value in zip(given, given, strict=True)}
        self._arguments = [part for key, value in flags.items() for part in (f"--{key}", value)]
        if isinstance(self.fault, SecondProcess):
            self.fault.again_by(lambda: self._start("--resume"))
        self.run = self._start()

    def survive(self) -> dict[str, float]:
        """Strike in every phase. Returns the seconds from each strike to the end of the next step.

        Raises:
            AssertionError: the run did not recover, or did not end as it should.
        """
        seconds = {}
        for phase in PHASES:
            self._wait_for(phase)
            done, struck = self._steps_done(), time.monotonic()
            self.fault.strike(self.run, phase)
            if self.fault.ends_the_command:
                self.run.process.wait(30)
                self.run = self._start("--resume")
            self._until(lambda done=done: self._steps_done() > done, f"a step after the strike in {phase}")
            seconds[phase] = time.monotonic() - struck
        status = self.run.wait(LONGEST)
        assert status == 0, self.run.text[-4000:]
        self._holds()
        self.fault.holds(self.run, STEPS)
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
        with patch.dict(os.environ, self.fault.environment):
            return TrainProcess(self.output, *self._arguments, *more)

    def _steps_done(self) -> int:
        return max(map(int, re.findall(r"Orchestrator Step (\d+):", self.run.text)), default=0)

    def _wait_for(self, phase: str) -> None:
        """Until the run is in `phase`, after the start-up canary, and has recovered from the strike before."""
        self._until(lambda: "canary o_proj" in self.run.text, "the canary to pass")
        self._until(lambda: self.fault.is_there(self.run), f"a new {self.name}")
        if phase in ("generation", "scoring"):
            mark = self.marks / phase
            before = mark.stat().st_mtime_ns if mark.exists() else 0
            self._until(lambda: mark.exists() and mark.stat().st_mtime_ns != before, phase)
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


def row(name: str) -> str:
    """One line of the table: seconds from each strike to the end of the next step.

    Raises:
        AssertionError: the run did not survive.
    """
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Path(folder), name)
        try:
            seconds = trial.survive()
        finally:
            trial.run.end()
            trial.fault.end()
    return f"| {name} | {' | '.join(f'{seconds[phase]:.0f} s' for phase in PHASES)} |"


def merged(page: str, rows: dict[str, str]) -> str:
    """The page with these rows in its table; rows of other faults stay."""
    head, mark, old = page.partition(MARK)
    there = {line.split("|")[1].strip(): line for line in old.splitlines() if line.startswith("| ")} | rows
    lines = [f"| fault | {' | '.join(PHASES)} |", f"|---|{'---|' * len(PHASES)}"]
    lines += [there[name] for name in FAULTS if name in there]
    return f"{head}{mark}\n\n" + "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--into", type=Path, help=f"page whose table, behind `{MARK}`, gets the rows")
    parser.add_argument("--faults", nargs="+", choices=list(FAULTS), default=list(FAULTS))
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(ENVIRONMENTS), os.environ.get("PYTHONPATH")])
    )
    failed = 0
    for name in options.faults:
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
