"""In which order the actors of a run start."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from actors import crew
from tests.record_builders import make_config


@pytest.mark.parametrize(
    ("device", "trainer_gpu_ids", "first"),
    [
        ("cuda", [0], "engines are there"),
        ("cuda", [1, 2, 3], "learner"),
        ("cpu", [0], "learner"),
    ],
)
def test_a_learner_waits_for_the_engines_only_where_it_shares_their_gpu(
    device: str, trainer_gpu_ids: list[int], first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    engines = SimpleNamespace(started=lambda _: events.append("engines are there"))
    learners = SimpleNamespace(start=lambda: events.append("learner"))
    scorers = crew.Scorers(engines, environments=None)  # type: ignore[arg-type]

    def begin(*_: Any) -> Any:
        events.append("engines begin")
        return nullcontext((scorers, ["starting"]))

    monkeypatch.setattr(crew, "seating_here", lambda *_: SimpleNamespace(ranks=[], bundles=[]))
    monkeypatch.setattr(crew, "reserved", lambda *_: nullcontext())
    monkeypatch.setattr(crew, "_scorers", begin)
    monkeypatch.setattr(crew, "LearnerGroup", lambda *_: learners)
    config = make_config(inference_gpu_ids=[0], trainer_gpu_ids=trainer_gpu_ids)
    with crew.start_crew(config, device):
        pass
    assert events[:2] == ["engines begin", first] and {"learner", "engines are there"} <= set(events)
