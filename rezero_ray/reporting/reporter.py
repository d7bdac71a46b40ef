"""One reporter for the controller: console, metrics.jsonl, the report, and MLflow by a process of its own."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from rezero_ray.agreement import CanaryResult
from rezero_ray.config import Config
from rezero_ray.evaluation import Score
from rezero_ray.place.records import Finding
from rezero_ray.records import Group
from rezero_ray.reporting.console import ConsoleReporter
from rezero_ray.reporting.evaluation_table import evaluation_line
from rezero_ray.reporting.report import write_report
from rezero_ray.reporting.reward_signal import run_lines
from rezero_ray.reporting.tracker import Tracker
from rezero_ray.run_directory import RunDirectory
from rezero_ray.schedule import Send


class Phase:
    """Wall seconds of a part of a step."""

    def __init__(self) -> None:
        self.seconds = 0.0


class Reporter:
    """Passes on what happens to everything that records or shows it."""

    def __init__(self, config: Config, directory: RunDirectory) -> None:
        self._config, self._directory = config, directory
        self._console = ConsoleReporter(config.max_steps)
        self._tracker: Tracker | None = None

    def __enter__(self) -> "Reporter":
        self._console.__enter__()
        self.say(f"run {self._directory.run['run_id']} in {self._directory.path}")
        if self._config.mlflow.enabled:
            self._tracker = Tracker(self._config, self._directory.path, self.say, self._tracked)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tracker:
            self._tracker.close()
        self._console.__exit__(kind, error, trace)

    def _tracked(self, run_id: str) -> None:
        self._directory.update(mlflow_run_id=run_id)

    def say(self, line: str) -> None:
        self._console.say(line)

    def place(self, findings: Iterable[Finding]) -> None:
        """What the place lacks: the run goes on, and says why it may fail."""
        for finding in findings:
            if finding.verdict != "ok":
                self.say(f"{finding.what} is {finding.verdict}: {finding.value}. {finding.remedy}")

    def cluster(self, found: str, dashboard: str | None, logs: str, token_command: str) -> None:
        if found:
            self.say(found)
        if dashboard:
            self.say(f"Ray dashboard: {dashboard} (token: `{token_command}`)")
        self.say(f"logs of the actors: {logs}")
        self._console.begin("loading the model")

    def ready(self, parameters: Mapping[str, int], bundles: Sequence[Mapping[str, float]], done: int) -> None:
        self.say(
            f"placement group of {len(bundles)} bundles; model {parameters['model']:,} parameters, "
            f"adapter {parameters['adapter']:,}"
        )
        self._console.resume(done)

    def canary(self, result: CanaryResult) -> None:
        self.say(
            f"canary {result.module}: engine moved {result.engine_move:.4f}, learner {result.learner_move:.4f} "
            f"nats a token, disagreement {result.disagreement:.2%}"
        )

    @contextmanager
    def phase(self, what: str, total: int | None = None) -> Iterator[Phase]:
        """Show and time a part of the work; run.json names the one under way."""
        self._console.begin(what, total)
        self._directory.update(phase=what)
        phase, started = Phase(), time.monotonic()
        try:
            yield phase
        finally:
            phase.seconds = time.monotonic() - started

    def group(self, group: Group) -> None:
        """A group came in."""
        self._console.advance()

    def put_aside(self, send: Send, kind: str, message: str) -> None:
        """A prompt was given up."""
        self._directory.add_quarantined(send, kind, message)
        self.say(f"prompt {send.prompt.index} of {send.prompt.environment} is put aside: {message}")

    def step(self, row: Mapping[str, Any], groups: Sequence[Group]) -> None:
        """A step was taken. Its groups are recorded already (`RunDirectory.add_rollouts`)."""
        self._directory.add_metrics(row)
        self._console.step(row)

    def evaluation(self, scores: Sequence[Score], seconds: float) -> None:
        """The scores of one policy, all environments in `seconds`."""
        for score in scores:
            self._directory.add_evaluation(score, seconds)
            self.say(evaluation_line(score))

    def checkpoint(self, path: Path) -> None:
        self.say(f"checkpoint {path}")

    def end(self, status: str, lines: Sequence[str] = ()) -> None:
        """Write the report, give MLflow some seconds for the rest, say `lines` and where everything is."""
        rows = self._directory.metrics()
        if rows:
            self._report(rows)
        newest = sorted((self._directory.path / "checkpoints").glob("step_*/adapter"))
        if self._tracker:
            self._tracker.finish(status)
        for line in [*run_lines(rows), *lines]:
            self.say(line)
        self.say(f"{status}: {len(rows)} steps in {self._directory.path}")
        if newest and status != "failed":
            self.say(f"adapter: {newest[-1]}")

    def _report(self, rows: Sequence[Mapping[str, Any]]) -> None:
        try:
            write_report(self._directory.path, rows, self._directory.run, self._directory.evaluations())
        except OSError as error:  # the run is over, and its figures are in metrics.jsonl
            self.say(f"report.html cannot be written: {error}")
