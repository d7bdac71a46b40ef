"""Claims about checkpoints: complete or not there, and a whole one is never lost to a broken one."""

import json
from pathlib import Path

import numpy as np
import pytest

from rezero_ray import checkpoint
from rezero_ray.checkpoint import COMPLETE, RunState, checkpoint_path, load_before, load_newest
from rezero_ray.codec import encode
from rezero_ray.records import Prompt
from rezero_ray.sampler import SamplerState
from rezero_ray.schedule import ScheduleState
from tests.record_builders import make_adapter, make_group, make_rollout

FILES = {
    "adapter/adapter_model.safetensors",
    "adapter/adapter_config.json",
    "state/learner.safetensors",
    "state/run.json",
    "state/groups.msgpack",
}


def state(step: int) -> RunState:
    schedule = ScheduleState(
        sampler=SamplerState(position=8 * step, taken={"a": 8 * step}),
        waiting=[Prompt(index=8 * step - 1, environment="a", example=2)],
        attempts={8 * step - 1: 1},
        ready=[make_group([make_rollout([1, 2], [3], reward=0.25, policy_version=step)], index=8 * step - 2)],
    )
    return RunState(step=step, seed=3, schedule=schedule)


def save(output: Path, *steps: int, keep_last: int = 10) -> None:
    for step in steps:
        content = f"step {step}".encode()
        learner = np.frombuffer(b"learner " + content, dtype=np.uint8)
        checkpoint.save(output, state(step), learner, make_adapter(content), keep_last=keep_last)


def steps_there(output: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step_")) for path in (output / "checkpoints").iterdir())


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    save(tmp_path, 5, 12)
    found, passed_over = load_newest(tmp_path)
    assert found is not None
    assert encode(found.run) == encode(state(12))
    assert found.learner.tobytes() == b"learner step 12"
    assert encode(found.adapter) == encode(make_adapter(b"step 12"))
    assert passed_over == []


def test_the_layout_is_the_contracts(tmp_path: Path) -> None:
    save(tmp_path, 12)
    folder = tmp_path / "checkpoints" / "step_000012"
    assert folder == checkpoint_path(tmp_path, 12)
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == FILES | {COMPLETE}
    assert json.loads((folder / COMPLETE).read_text())["sha256"].keys() == FILES


def test_without_a_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert load_newest(tmp_path) == (None, [])


@pytest.mark.parametrize("file", sorted(FILES))
def test_one_flipped_byte_passes_the_checkpoint_over_and_says_where(tmp_path: Path, file: str) -> None:
    save(tmp_path, 5, 10)
    flip_a_byte(checkpoint_path(tmp_path, 10) / file)
    found, passed_over = load_newest(tmp_path)
    assert found is not None
    assert found.run.step == 5
    assert passed_over == [f"step_000010: {file} differs from its checksum"]


@pytest.mark.parametrize("file", [*sorted(FILES), COMPLETE])
def test_a_missing_file_passes_the_checkpoint_over_and_is_named(tmp_path: Path, file: str) -> None:
    save(tmp_path, 5, 10)
    (checkpoint_path(tmp_path, 10) / file).unlink()
    found, passed_over = load_newest(tmp_path)
    assert found is not None
    assert found.run.step == 5
    assert passed_over == [f"step_000010: {Path(file).name} is missing"]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"sha256": {}}', '{"sha256": null}'])
def test_a_completion_mark_that_says_nothing_does_not_count(tmp_path: Path, content: str) -> None:
    save(tmp_path, 5, 10)
    (checkpoint_path(tmp_path, 10) / COMPLETE).write_text(content)
    found, passed_over = load_newest(tmp_path)
    assert found is not None
    assert found.run.step == 5
    assert len(passed_over) == 1
    assert passed_over[0].startswith("step_000010: COMPLETE.json cannot be read")


def test_every_broken_one_is_accounted_for(tmp_path: Path) -> None:
    save(tmp_path, 5, 10, 15)
    flip_a_byte(checkpoint_path(tmp_path, 10) / "state/run.json")
    (checkpoint_path(tmp_path, 15) / COMPLETE).unlink()
    (checkpoint_path(tmp_path, 5) / "state/learner.safetensors").unlink()
    assert load_newest(tmp_path) == (
        None,
        [
            "step_000015: COMPLETE.json is missing",
            "step_000010: state/run.json differs from its checksum",
            "step_000005: learner.safetensors is missing",
        ],
    )


def test_the_newest_is_newest_by_number(tmp_path: Path) -> None:
    save(tmp_path, 999_999, 1_000_000)
    found, _ = load_newest(tmp_path)
    assert found is not None
    assert found.run.step == 1_000_000


def test_a_checkpoint_before_a_step_is_the_newest_whole_one_below_it(tmp_path: Path) -> None:
    save(tmp_path, 5, 10, 15)
    flip_a_byte(checkpoint_path(tmp_path, 10) / "state/run.json")
    found, passed_over = load_before(tmp_path, 15)
    assert found is not None
    assert found.run.step == 5
    assert passed_over == ["step_000010: state/run.json differs from its checksum"]
    assert load_before(tmp_path, 5) == (None, [])


def test_the_last_few_are_kept(tmp_path: Path) -> None:
    save(tmp_path, 5, 10, 15, 20, keep_last=2)
    assert steps_there(tmp_path) == [15, 20]


def test_debris_of_a_crash_goes_with_the_checkpoints_of_its_time(tmp_path: Path) -> None:
    save(tmp_path, 5, 10)
    (checkpoint_path(tmp_path, 5) / COMPLETE).unlink()
    save(tmp_path, 15, keep_last=2)
    assert steps_there(tmp_path) == [10, 15]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, 5)
    flip_a_byte(checkpoint_path(tmp_path, 5) / "state/run.json")
    save(tmp_path, 5)
    found, passed_over = load_newest(tmp_path)
    assert found is not None
    assert passed_over == []


def test_a_broken_newer_checkpoint_does_not_cost_the_one_just_saved(tmp_path: Path) -> None:
    save(tmp_path, 5, 10)
    flip_a_byte(checkpoint_path(tmp_path, 10) / "state/run.json")
    save(tmp_path, 6, keep_last=1)  # resumed from 5
    found, _ = load_newest(tmp_path)
    assert found is not None
    assert found.run.step == 6


def test_a_broken_checkpoint_is_not_one_of_those_kept(tmp_path: Path) -> None:
    save(tmp_path, 5, 10)
    flip_a_byte(checkpoint_path(tmp_path, 10) / "state/learner.safetensors")
    save(tmp_path, 15, keep_last=2)
    assert {5, 15} <= set(steps_there(tmp_path))


def test_a_crash_while_saving_leaves_the_earlier_ones_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 5, 10, keep_last=2)
    write = checkpoint._write

    def full(path: Path, content: bytes) -> None:
        if path.name == COMPLETE:
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(checkpoint, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 15, keep_last=2)
    found, passed_over = load_newest(tmp_path)
    assert found is not None
    assert found.run.step == 10
    assert passed_over == ["step_000015: COMPLETE.json is missing"]
    assert steps_there(tmp_path) == [5, 10, 15]
