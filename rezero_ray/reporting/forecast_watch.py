"""Forecast against measured while a run is under way: figures for each step's line, and what a person is told."""

from collections.abc import Callable, Mapping, Sequence

from rezero_ray.batch import TrainingBatch
from rezero_ray.config_history import first_step_under_newest
from rezero_ray.forecast.comparison import Expectation, compare, comparison_lines, memory_row, record, steady
from rezero_ray.forecast.lengths import lengths_that_came
from rezero_ray.records import Group
from rezero_ray.run_directory import RunDirectory


class ForecastWatch:
    """Tells at the run's first steady step, its second, and at its last. Without an expectation, memory alone is
    recorded."""

    def __init__(
        self, expectation: Expectation | None, directory: RunDirectory, say: Callable[[str], None]
    ) -> None:
        self._expectation, self._directory, self._say = expectation, directory, say
        self._told: tuple[int, ...] = ()

    def row(
        self, groups: Sequence[Group], batch: TrainingBatch, peaks: Mapping[str, Sequence[int]]
    ) -> dict[str, float]:
        """For the step's line of metrics.jsonl.

        Args:
            groups, batch: that the step was trained on.
            peaks: bytes of memory, of each process, by kind.
        """
        if self._expectation is None:
            return memory_row(peaks)
        return self._expectation.of_step(lengths_that_came(groups, batch)) | memory_row(peaks)

    def look(self, step: int, *, last: bool) -> None:
        """Write forecast.json and tell, where it is time to; step `step` is recorded."""
        if self._expectation is None or not (last or (step > 1 and not self._told)):
            return
        first = first_step_under_newest(self._directory.path)  # steps before it had another config
        rows = [row for row in self._directory.metrics() if row["step"] >= first]
        steps = tuple(row["step"] for row in steady(rows))
        if steps == self._told:
            return
        self._told = steps
        self._directory.write_forecast(record(rows, self._expectation))
        for line in comparison_lines(compare(rows, self._expectation), steps):
            self._say(line)
