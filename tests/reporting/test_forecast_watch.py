"""The forecast is held against steps that were taken under the config that it was made for."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rezero_ray.config_history import record_config
from rezero_ray.reporting import forecast_watch
from rezero_ray.reporting.forecast_watch import ForecastWatch


@pytest.mark.parametrize(("done", "counted"), [(None, [2, 3, 4, 5]), (3, [4, 5])])
def test_steps_before_a_change_of_the_config_are_not_counted(
    done: int | None, counted: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_config(tmp_path, "old", done=0)
    if done is not None:
        record_config(tmp_path, "new", done=done)
    seen: list[list[int]] = []
    monkeypatch.setattr(forecast_watch, "record", lambda rows, _: {})
    monkeypatch.setattr(forecast_watch, "compare", lambda rows, _: [])
    monkeypatch.setattr(
        forecast_watch, "comparison_lines", lambda compared, steps: seen.append(list(steps)) or []
    )
    directory = SimpleNamespace(
        path=tmp_path,
        metrics=lambda: [{"step": step, "forecast/step": 1.0} for step in range(1, 6)],
        write_forecast=lambda _: None,
    )
    ForecastWatch(cast(Any, object()), cast(Any, directory), print).look(5, last=True)
    assert seen == [counted]
