"""Claims about when a run stops for its budget, in simulated time."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rezero_ray.budget import END_SECONDS, Attempt, Pace, Spent, out_of_budget, spent_in
from rezero_ray.config.budget import BudgetConfig

MAX_STEPS = 200


@dataclass
class Run:
    """A run whose steps all take `step` seconds and whose checkpoints are written beside the next step, in less."""

    limits: BudgetConfig
    rate: float | None
    start_up: float
    step: float
    checkpoint: float
    interval: int
    attempts: list[Attempt] = field(default_factory=list)
    steps: int = 0
    written: bool = False

    def attempt(self) -> bool:
        """One attempt, as `rezero_ray.run` makes it; whether its budget stopped it."""
        seconds, before = self.start_up, self.steps
        pace = Pace([self.step] * before, interval=self.interval)
        stopped = self._stops(seconds, pace)
        while self.steps < MAX_STEPS and not stopped:
            seconds, self.steps = seconds + self.step, self.steps + 1
            pace.stepped(self.step)
            stopped = self.steps < MAX_STEPS and self._stops(seconds, pace)
            self.written = self.written or self.steps > self.interval
        seconds += self.checkpoint if self.steps > before else 0.0
        self.attempts.append(Attempt("", seconds + END_SECONDS, self.rate))
        return stopped

    def _stops(self, seconds: float, pace: Pace) -> bool:
        pace.checkpoint = self.checkpoint if self.written else None
        spent = spent_in([*self.attempts, Attempt("", seconds, self.rate)], self.rate)
        return out_of_budget(self.limits, spent, pace.step_ahead(evaluation=False), self.rate) is not None

    @property
    def spent(self) -> Spent:
        return spent_in(self.attempts, self.rate)


seconds = st.floats(min_value=0.1, max_value=600)
runs = st.builds(
    lambda hours, usd, rate, start_up, step, share, interval: Run(
        BudgetConfig(max_hours=hours, max_usd=usd), rate, start_up, step, share * step, interval
    ),
    hours=st.none() | st.floats(min_value=0.01, max_value=10),
    usd=st.none() | st.floats(min_value=0.01, max_value=100),
    rate=st.floats(min_value=0.1, max_value=50),
    start_up=seconds,
    step=seconds,
    share=st.floats(min_value=0.01, max_value=1),
    interval=st.integers(min_value=1, max_value=7),
)


def passed(run: Run) -> bool:
    """Whether more was spent than a limit allows, by more than rounding."""
    hours, usd = run.limits.max_hours, run.limits.max_usd
    assert run.spent.usd is not None
    return (hours is not None and run.spent.seconds / 3600 > hours * (1 + 1e-9)) or (
        usd is not None and run.spent.usd > usd * (1 + 1e-9)
    )


@given(runs)
def test_no_limit_is_passed_unless_by_the_start_and_a_first_step_that_nobody_could_foresee(run: Run) -> None:
    run.attempt()
    assert run.steps <= 1 or not passed(run)


@given(runs)
def test_a_run_is_not_stopped_while_two_more_steps_with_checkpoints_would_fit(run: Run) -> None:
    stopped = run.attempt()
    room = run.start_up + (run.steps + 1) * (run.step + run.checkpoint) + run.step + END_SECONDS
    hours = run.limits.hours(run.rate)
    assert not stopped or (hours is not None and room > hours * 3600 * (1 - 1e-9))


@given(runs, st.integers(min_value=2, max_value=5))
def test_attempts_count_together(run: Run, attempts: int) -> None:
    for _ in range(attempts):
        before, taken = run.spent, run.steps
        run.attempt()
        assert run.spent.seconds > before.seconds
        assert run.steps in (taken, 1) or not passed(run)


@given(runs)
def test_who_was_stopped_gets_no_step_from_another_attempt(run: Run) -> None:
    run.written = True
    if run.attempt() and run.steps:
        taken = run.steps
        assert run.attempt()
        assert run.steps == taken


def test_an_attempt_counts_at_its_own_rate_and_at_todays_where_it_had_none() -> None:
    attempts = [Attempt("", 3600, 2.0), Attempt("", 1800, None), Attempt("", 3600, 5.0)]
    assert spent_in(attempts, 10.0) == Spent(9000, 2.0 + 5.0 + 5.0)
    assert spent_in(attempts, None) == Spent(9000, None)
    assert spent_in([], None) == Spent(0, 0.0)


def test_the_longest_of_the_last_steps_is_expected_and_an_evaluation_where_one_is_due() -> None:
    pace = Pace([500.0, 1.0, 2.0, 9.0, 2.0], checkpoint=4.0)
    pace.stepped(3.0)
    pace.evaluated(100.0)
    assert pace.step_ahead(evaluation=False) == 9 + 4 + END_SECONDS
    assert pace.step_ahead(evaluation=True) == 9 + 4 + 100 + END_SECONDS
    assert pace.end_ahead() == 4 + END_SECONDS


def test_of_steps_between_two_checkpoints_none_is_forgotten() -> None:
    pace = Pace([50.0, *[1.0] * 9], interval=10, checkpoint=0.0)
    assert pace.step_ahead(evaluation=False) == 50 + END_SECONDS
    pace.stepped(1.0)
    assert pace.step_ahead(evaluation=False) == 1 + END_SECONDS


def test_the_stop_names_the_limit_how_things_stand_and_what_would_be_enough() -> None:
    stop = out_of_budget(BudgetConfig(max_usd=2.0, max_hours=9.0), Spent(3600, 1.92), 360, 1.5)
    assert stop is not None
    assert stop.key == "budget.max_usd"
    assert stop.standing == "1.92 of 2.00 dollars are spent, and 0.15 dollars more"
    assert stop.enough == "4"
    stop = out_of_budget(BudgetConfig(max_hours=1.0), Spent(3590, None), 36, None)
    assert stop is not None
    assert (stop.key, stop.enough) == ("budget.max_hours", "2")
    assert stop.standing.startswith("0.997 of 1 hours are spent, and 0.01 hours more")


def test_what_would_be_enough_is_more_than_is_needed() -> None:
    stop = out_of_budget(BudgetConfig(max_hours=1.0), Spent(3600 * 700, None), 0, None)
    assert stop is not None
    assert stop.enough == "1400"


def test_dollars_cannot_be_limited_where_an_hour_has_no_price() -> None:
    with pytest.raises(ValueError, match="what an hour costs"):
        out_of_budget(BudgetConfig(max_usd=1.0), Spent(0, None), 0, None)
