"""What a run has spent so far, over all its attempts: kept in run.json, and held against its budget."""

import os
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

import msgspec

from rezero_ray.budget import Attempt, OutOfBudget, Pace, Spent, out_of_budget, spent_in
from rezero_ray.config import Config, Problem
from rezero_ray.config.infra_table import PAID_SINCE
from rezero_ray.config.problems import shown
from rezero_ray.cost import NoRate, Rate, dollars
from rezero_ray.run_directory import RunDirectory, read_metrics, read_run

BEAT_SECONDS = 10.0
"""Between two notes of an attempt's seconds: what is not counted when it is killed."""


class Spending:
    """Context of one attempt: notes its seconds in run.json now and then, and knows when the budget is used up."""

    def __init__(self, config: Config, rate: Rate | NoRate, directory: RunDirectory) -> None:
        began = paid_since()
        self._zero = time.monotonic() - max(0.0, time.time() - began)
        self._limits, self._rate, self._directory = config.budget, rate, directory
        self._last, self._evaluation = config.max_steps, config.orchestrator.eval
        self._usd_per_hour = rate.usd_per_hour if isinstance(rate, Rate) else None
        self._earlier = attempts_of(directory.path)
        self._started = datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds")
        self._start_up: float | None = None
        self.pace = _pace(config, self._earlier, directory.path)
        self.stopped: OutOfBudget | None = None
        self._ended = threading.Event()
        self._beat = threading.Thread(target=self._beats, name="spending", daemon=True)

    def __enter__(self) -> "Spending":
        self._note()
        self._beat.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._beat.join()
        self._note()

    def ready(self) -> None:
        """The start-up is over: steps can begin."""
        self._start_up = self._seconds()
        self._note()

    def look_ahead(self, step: int, checkpoint: float | None) -> None:
        """Set `stopped` if the step after `step` would pass a limit.

        `checkpoint`: seconds of the longest of this attempt, if there was one.
        """
        if step >= self._last:
            return
        self.pace.checkpoint = self.pace.checkpoint if checkpoint is None else checkpoint
        evaluation = self._evaluation is not None and self._evaluation.is_due(step + 1, self._last)
        self.stopped = self._passed(self.pace.step_ahead(evaluation=evaluation))
        self._note()

    def used_up(self) -> bool:
        """Whether there is no more room than for stopping now, with a checkpoint."""
        return self._passed(self.pace.end_ahead()) is not None

    def metrics(self) -> dict[str, float]:
        """What metrics.jsonl says of it, from the start of the first attempt to now."""
        spent = self._spent()
        row = {"cost/hours": spent.seconds / 3600}
        return row if spent.usd is None else row | {"cost/usd": spent.usd}

    def lines(self, *, steps: int) -> list[str]:
        """Of the end, for a reader: why it stopped, if for the budget, and what the run has cost."""
        found = []
        if self.stopped:
            key, _, standing, enough = self.stopped
            way = f"go on with --resume --{key} {enough}" if steps else f"begin anew with --{key} {enough}"
            found = [
                f"stopped by {key}: {standing} would be taken by one more step and its checkpoint; {way}"
            ]
        spent = self._spent()
        if spent.usd is not None and isinstance(self._rate, Rate):
            attempts = f" in {len(self._earlier) + 1} attempts" if self._earlier else ""
            an_hour = f"{dollars(self._rate.usd_per_hour)} an hour: {self._rate.source}"
            found.append(
                f"cost: {dollars(spent.usd)}, {spent.seconds / 3600:.3g} hours{attempts} ({an_hour})"
            )
        return found

    def _passed(self, ahead: float) -> OutOfBudget | None:
        return out_of_budget(self._limits, self._spent(), ahead, self._usd_per_hour)

    def _spent(self) -> Spent:
        return spent_in([*self._earlier, self._attempt()], self._usd_per_hour)

    def _attempt(self) -> Attempt:
        source = self._rate.source if isinstance(self._rate, Rate) else ""
        return Attempt(
            self._started, self._seconds(), self._usd_per_hour, source, self._start_up, self.pace.checkpoint
        )

    def _seconds(self) -> float:
        return time.monotonic() - self._zero

    def _note(self) -> None:
        self._directory.update(attempts=msgspec.to_builtins([*self._earlier, self._attempt()]))

    def _beats(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            self._note()


def refusal(config: Config, directory: Path) -> Problem | None:
    """Why a run that is to go on cannot take one more step; None where it can, or has none to take."""
    if config.budget.max_usd is None and config.budget.max_hours is None:
        return None
    attempts, rows = attempts_of(directory), read_metrics(directory)
    if not attempts or (rows and rows[-1]["step"] >= config.max_steps):
        return None
    usd_per_hour = config.infra.usd_per_hour or attempts[-1].usd_per_hour
    limits = config.budget
    if usd_per_hour is None:  # what was spent until now was not known in dollars
        limits = limits.model_copy(update={"max_usd": None})
    start_up = max((attempt.start_up or 0.0 for attempt in attempts), default=0.0)
    ahead = start_up + _pace(config, attempts, directory).step_ahead(evaluation=False)
    found = out_of_budget(limits, spent_in(attempts, usd_per_hour), ahead, usd_per_hour)
    if found is None:
        return None
    what = f"{found.standing} would be taken by starting up, one more step and its checkpoint"
    return Problem(found.key, what, f"write {found.enough}", shown(found.limit))


def attempts_of(run: Path) -> list[Attempt]:
    """The attempts that run.json names, the earliest first."""
    return msgspec.convert(read_run(run).get("attempts", []), list[Attempt])


def paid_since() -> float:
    """Unix time since which this attempt is paid for."""
    if PAID_SINCE in os.environ:
        return float(os.environ[PAID_SINCE])
    import psutil

    return float(psutil.Process().create_time())


def _pace(config: Config, attempts: Sequence[Attempt], run: Path) -> Pace:
    rows = read_metrics(run)
    checkpoint = next((a.checkpoint for a in reversed(attempts) if a.checkpoint is not None), None)
    return Pace((row["time/step"] for row in rows), interval=config.ckpt.interval, checkpoint=checkpoint)
