"""The terminal: a progress display where there is one, plain lines where not, and the contract's four lines."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from rezero_ray.reporting.reward_signal import step_lines


class ConsoleReporter:
    """Says what a run is doing. The four lines of every step are printed with and without a terminal."""

    def __init__(self, max_steps: int) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._steps = self._progress.add_task("steps", total=max_steps, note="")
        self._work = self._progress.add_task("starting", total=None, note="")

    def __enter__(self) -> "ConsoleReporter":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        """Print one line above the display."""
        self._console.print(line, markup=False)

    def resume(self, done: int) -> None:
        """Count the steps of earlier attempts as done."""
        self._progress.update(self._steps, completed=done)

    def begin(self, what: str, total: int | None = None) -> None:
        """Name the part of the step that is under way."""
        self._progress.reset(self._work, description=what, total=total, completed=0, note="")

    def advance(self, note: str = "") -> None:
        self._progress.update(self._work, advance=1, note=note)

    def step(self, row: Mapping[str, Any]) -> None:
        """The four lines of the contract, what is wrong with the rewards, and the display moved on."""
        number = row["step"]
        self.say(f"Orchestrator Step {number}: Reward={row['reward/mean']:.2f}")
        self.say(f"Trainer Step {number}: Loss={row['loss']:.2f}, Entropy={row['entropy']:.2f}")
        self.say(f"Mismatch KL={row['mismatch_kl']:.4f}")
        self.say(f"Throughput: {row['throughput/tokens_per_s']:.0f} tokens/s")
        for line in step_lines(row):
            self.say(line)
        self._progress.update(
            self._steps,
            completed=number,
            note=f"reward {row['reward/mean']:+.3f}  {row['time/step']:.1f} s/step",
        )
