"""Claims about `CheckpointWriter`: written beside the run, in order, and a failure is told."""

import threading
from pathlib import Path

import numpy as np
import pytest

from rezero_ray import checkpoint
from rezero_ray.checkpoint import RunState, load_newest
from rezero_ray.checkpoint_writer import CheckpointWriter
from rezero_ray.errors import RunError
from rezero_ray.sampler import SamplerState
from rezero_ray.schedule import ScheduleState
from tests.record_builders import make_adapter

LEARNER = np.frombuffer(b"learner", dtype=np.uint8)


def state(step: int) -> RunState:
    empty = ScheduleState(SamplerState(position=0, taken={}), waiting=[], attempts={}, ready=[])
    return RunState(step=step, seed=0, schedule=empty)


def test_the_caller_goes_on_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_write, save = threading.Event(), checkpoint.save

    def slow_save(*args: object, **kwargs: object) -> Path:
        assert may_write.wait(10)
        return save(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint, "save", slow_save)
    saved: list[Path] = []
    with CheckpointWriter(tmp_path, 3, saved.append) as writer:
        writer.begin(state(1), LEARNER, make_adapter())
        assert saved == []
        may_write.set()
        writer.finish()
        assert [path.name for path in saved] == ["step_000001"]
    found, _ = load_newest(tmp_path)
    assert found is not None
    assert found.run.step == 1


def test_leaving_waits_for_the_last_one(tmp_path: Path) -> None:
    with CheckpointWriter(tmp_path, 3, lambda _: None) as writer:
        for step in (1, 2):
            writer.begin(state(step), LEARNER, make_adapter())
    found, passed_over = load_newest(tmp_path)
    assert found is not None
    assert (found.run.step, passed_over) == (2, [])


def test_a_full_disk_is_an_error_of_the_run_and_costs_no_earlier_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with CheckpointWriter(tmp_path, 1, lambda _: None) as writer:
        writer.begin(state(1), LEARNER, make_adapter())
        writer.finish()

        def full(path: Path, content: bytes) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(checkpoint, "_write", full)
        writer.begin(state(2), LEARNER, make_adapter())
        with pytest.raises(RunError, match="No space left") as found:
            writer.finish()
        assert found.value.kind == "checkpoint"
    newest, _ = load_newest(tmp_path)
    assert newest is not None
    assert newest.run.step == 1
