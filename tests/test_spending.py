"""Claims about what a run says that it has spent, and about a run that is to go on without room for a step."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from rezero_ray import spending, train
from rezero_ray.config import Config
from rezero_ray.config.infra_table import PAID_SINCE
from rezero_ray.cost import NO_RATE, NoRate, Rate, RatePart
from rezero_ray.run import DONE, FAILED, INTERRUPTED, outcome
from rezero_ray.run_directory import RunDirectory
from rezero_ray.spending import Spending, attempts_of, paid_since, refusal
from tests.config.run_request import refused, write_right
from tests.record_builders import make_config

RATE = Rate((RatePart("all", 6.0),), "a price list")


def began(ago: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this attempt was paid for since `ago` seconds."""
    monkeypatch.setenv(PAID_SINCE, str(time.time() - ago))


def attempt(config: Config, rate: Rate | NoRate = RATE) -> Spending:
    return Spending(config, rate, RunDirectory(config, device="cpu"))


def write_attempt(run: Path, steps: int = 3, **fields: Any) -> None:
    """A run directory of `steps` steps of ten seconds, and one attempt."""
    run.mkdir(parents=True)
    entry = {"started": "2026-01-01T00:00:00+00:00", "seconds": 3000.0, "start_up": 300.0, "checkpoint": 5.0}
    (run / "run.json").write_text(json.dumps({"attempts": [entry | fields]}))
    rows = [{"step": step, "time/step": 10.0} for step in range(1, steps + 1)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_an_attempt_counts_from_when_it_is_paid_for_and_adds_to_those_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(output_dir=str(tmp_path / "run"))
    began(1800, monkeypatch)
    with RunDirectory(config, device="cpu") as directory, Spending(config, RATE, directory) as first:
        first.ready()
        assert first.metrics()["cost/hours"] == pytest.approx(0.5, abs=1e-3)
        assert first.metrics()["cost/usd"] == pytest.approx(3.0, abs=1e-2)
    began(3600, monkeypatch)
    with attempt(config, Rate((RatePart("all", 12.0),), "another")) as second:
        assert second.metrics()["cost/hours"] == pytest.approx(1.5, abs=1e-3)
        assert second.metrics()["cost/usd"] == pytest.approx(3 + 12, abs=1e-2)
        (line,) = second.lines(steps=4)
    assert line == "cost: 15.00 dollars, 1.5 hours in 2 attempts (12.00 dollars an hour: another)"
    one, two = attempts_of(tmp_path / "run")
    assert (one.usd_per_hour, one.rate, two.usd_per_hour, two.rate) == (6.0, "a price list", 12.0, "another")
    assert one.start_up == pytest.approx(1800, abs=2)
    assert two.start_up is None


def test_seconds_are_noted_while_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spending, "BEAT_SECONDS", 0.01)
    with attempt(make_config(output_dir=str(tmp_path / "run"))):
        first = attempts_of(tmp_path / "run")[0].seconds
        deadline = time.monotonic() + 5
        while attempts_of(tmp_path / "run")[0].seconds <= first and time.monotonic() < deadline:
            time.sleep(0.01)
        assert attempts_of(tmp_path / "run")[0].seconds > first


def test_without_a_rate_hours_are_told_and_no_dollars(tmp_path: Path) -> None:
    with attempt(make_config(output_dir=str(tmp_path / "run")), NO_RATE) as found:
        assert found.metrics().keys() == {"cost/hours"}
        assert found.lines(steps=1) == []


def test_without_a_launcher_it_counts_from_the_start_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PAID_SINCE, raising=False)
    assert time.time() - 86_400 < paid_since() < time.time()


def test_it_stops_where_no_step_fits_anymore_and_an_evaluation_ends_where_no_checkpoint_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for ago, stops, gives_up in ((3000.0, False, False), (3530.0, True, False), (3580.0, True, True)):
        began(ago, monkeypatch)
        budget = {"budget__max_usd": 6.0, "infra__usd_per_hour": 6.0}
        found = attempt(make_config(output_dir=str(tmp_path / f"after_{ago:.0f}"), **budget))
        found.pace.stepped(40.0)
        found.look_ahead(1, 10.0)
        assert (found.stopped is not None, found.used_up()) == (stops, gives_up), ago
    assert found.lines(steps=1)[0].startswith(
        "stopped by budget.max_usd: 5.97 of 6.00 dollars are spent, and 0.13"
    )
    assert found.lines(steps=1)[0].endswith("; go on with --resume --budget.max_usd 12")
    assert found.lines(steps=0)[0].endswith("; begin anew with --budget.max_usd 12")


def test_after_the_last_step_no_further_one_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began(7200, monkeypatch)
    found = attempt(make_config(output_dir=str(tmp_path / "run"), max_steps=5, budget__max_hours=1.0))
    found.look_ahead(5, None)
    assert found.stopped is None
    found.look_ahead(4, None)
    assert found.stopped is not None


def test_a_budget_that_was_kept_to_is_a_success_and_one_that_bought_no_step_is_none() -> None:
    assert outcome(interrupted=False, out_of_budget=True, steps=3) == ("out of budget", DONE)
    assert outcome(interrupted=False, out_of_budget=True, steps=0) == ("out of budget", FAILED)
    assert outcome(interrupted=True, out_of_budget=True, steps=3) == ("interrupted", INTERRUPTED)
    assert outcome(interrupted=False, out_of_budget=False, steps=3) == ("done", DONE)


@pytest.mark.parametrize(
    ("hours", "refuses"),
    [(0.8, True), ((3000 + 300 + 10 + 5 + 29) / 3600, True), ((3000 + 300 + 10 + 5 + 31) / 3600, False)],
)
def test_a_run_is_gone_on_with_only_if_start_up_and_one_step_fit(
    tmp_path: Path, hours: float, refuses: bool
) -> None:
    write_attempt(tmp_path / "run")
    config = make_config(output_dir=str(tmp_path / "run"), budget__max_hours=hours)
    assert (refusal(config, tmp_path / "run") is not None) == refuses


def test_dollars_are_held_against_the_rate_of_the_last_attempt(tmp_path: Path) -> None:
    write_attempt(tmp_path / "run", usd_per_hour=6.0)
    config = make_config(output_dir=str(tmp_path / "run"), budget__max_usd=5.1, infra__usd_per_hour=6.0)
    found = refusal(config, tmp_path / "run")
    assert found is not None
    assert found.key == "budget.max_usd"
    assert found.what.startswith("5.00 of 5.10 dollars are spent")


def test_a_run_that_has_all_its_steps_is_not_refused(tmp_path: Path) -> None:
    write_attempt(tmp_path / "run", steps=10)
    config = make_config(output_dir=str(tmp_path / "run"), max_steps=10, budget__max_hours=0.1)
    assert refusal(config, tmp_path / "run") is None


def test_resuming_without_room_is_a_wrong_request_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = write_right(tmp_path)
    write_attempt(tmp_path / "out")
    before = (tmp_path / "out/run.json").read_bytes()
    said = refused(capsys, request, "--resume", "--budget.max_hours", "0.9")
    assert (
        "--budget.max_hours 0.9: 0.833 of 0.9 hours are spent, and 0.096 hours more would be taken by" in said
    )
    assert "write 1.8" in said
    assert (tmp_path / "out/run.json").read_bytes() == before


def test_the_plan_says_what_an_hour_costs_and_where_the_run_will_stop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--infra.usd_per_hour", "1.5", "--budget.max_usd", "20", "--budget.max_hours", "12"]
    assert train.main([str(write_right(tmp_path)), *flags, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "# cost: 1.50 dollars an hour (infra.usd_per_hour)" in printed
    assert "# budget: at most 20.00 dollars and 12 hours" in printed
