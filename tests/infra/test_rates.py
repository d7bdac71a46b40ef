"""What an hour costs, by its owner's word or the backend's."""

from pathlib import Path

import pytest

from infra.rates import rate_of
from rezero_ray.config import ConfigError, load_config
from rezero_ray.cost import NO_RATE, Rate, RatePart, cost_lines
from tests.config.run_request import write_right


@pytest.mark.parametrize("kind", ["local", "ray"])
def test_an_hour_of_somebodys_machines_costs_what_he_says(tmp_path: Path, kind: str) -> None:
    infra = load_config([write_right(tmp_path)], [f"--infra.kind={kind}", "--infra.usd_per_hour=2.5"]).infra
    rate = rate_of(infra)
    assert isinstance(rate, Rate)
    assert (rate.usd_per_hour, rate.source) == (2.5, "infra.usd_per_hour")
    assert cost_lines(rate, None, 10, None) == ["cost: 2.50 dollars an hour (infra.usd_per_hour)"]


@pytest.mark.parametrize("kind", ["local", "ray"])
def test_where_nobody_said_so_nothing_is_told(tmp_path: Path, kind: str) -> None:
    rate = rate_of(load_config([write_right(tmp_path)], [f"--infra.kind={kind}"]).infra)
    assert rate == NO_RATE
    assert cost_lines(rate, 60.0, 10, 60.0) == []


def test_a_backend_with_rates_is_asked_unless_its_owner_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "backend"
    folder.mkdir()
    (folder / "rates.py").write_text(
        "from rezero_ray.cost import Rate, RatePart\n"
        "def rate(table):\n    return Rate((RatePart('2 boxes', 3.0),), 'a price list', factor=2.0)\n"
    )
    monkeypatch.setattr("infra.local.__path__", [str(folder)])
    table = load_config([write_right(tmp_path)], []).infra
    assert rate_of(table) == Rate((RatePart("2 boxes", 3.0),), "a price list", factor=2.0)
    assert cost_lines(rate_of(table), None, 10, None) == [
        "cost: 6.00 dollars an hour (2 boxes 3.00, all times 2 for the region; a price list)"
    ]
    owned = rate_of(table.model_copy(update={"usd_per_hour": 1.0}))
    assert isinstance(owned, Rate) and owned.usd_per_hour == 1.0


def test_a_limit_in_dollars_needs_to_know_what_an_hour_costs(tmp_path: Path) -> None:
    request = write_right(tmp_path)
    with pytest.raises(
        ConfigError, match=r"(?s)budget\.max_usd 2: what an hour costs .* is not known.*infra\.usd_per_hour"
    ):
        load_config([request], ["--budget.max_usd", "2"])
    budget = load_config([request], ["--budget.max_usd", "2", "--infra.usd_per_hour", "0.5"]).budget
    assert budget.hours(0.5) == 4.0
    assert load_config([request], ["--budget.max_hours", "3"]).budget.hours(None) == 3.0
