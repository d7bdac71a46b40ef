"""Claims about `RunDirectory`: what a run leaves behind, and what a resumed one makes of it."""

import errno
import json
import math
import os
import socket
from pathlib import Path

import msgspec
import pytest

from rezero_ray.checkpoint_writer import CheckpointWriter
from rezero_ray.config import ConfigError, config_id, load_config
from rezero_ray.errors import RunError
from rezero_ray.holding.holder import encoded, new_holder
from rezero_ray.records import Prompt
from rezero_ray.run_directory import QUARANTINE, RunDirectory, read_metrics
from rezero_ray.schedule import Send
from tests.record_builders import make_config, make_group, make_rollout


def opened(folder: Path) -> RunDirectory:
    return RunDirectory(make_config(output_dir=str(folder / "run")), device="cpu")


def with_steps(folder: Path, *steps: int) -> RunDirectory:
    directory = opened(folder)
    for step in steps:
        directory.add_metrics({"step": step, "loss": step / 10})
        directory.add_rollouts(step, [], [])
    return directory


def steps_of(directory: RunDirectory) -> list[int]:
    return [row["step"] for row in directory.metrics()]


def test_a_run_says_what_it_is(tmp_path: Path) -> None:
    directory = opened(tmp_path)
    run = json.loads((directory.path / "run.json").read_text())
    assert run["status"] == "running"
    assert run["config_id"] == config_id(make_config(output_dir=str(tmp_path / "run")))
    assert run["run_id"].startswith(run["config_id"])
    assert run["started"]
    assert run["ended"] is None
    assert {"python", "torch", "transformers"} <= run["versions"].keys()
    assert run["hardware"]["device"] == "cpu"


def test_its_configuration_loads_as_the_same(tmp_path: Path) -> None:
    directory = opened(tmp_path)
    assert load_config([directory.path / "config.toml"]) == make_config(output_dir=str(directory.path))


def test_a_run_that_is_gone_on_with_keeps_its_id_and_its_start(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.update(mlflow_run_id="abc", started="2026-01-01T00:00:00+00:00")
    first.end("interrupted")
    second = opened(tmp_path)
    for key in ("run_id", "started", "mlflow_run_id"):
        assert second.run[key] == first.run[key]
    assert (second.run["status"], second.run["ended"]) == ("running", None)


def test_the_config_of_a_run_that_resumes_stays_until_its_checkpoint_was_loaded(tmp_path: Path) -> None:
    first = with_steps(tmp_path, 1, 2, 3, 4)
    first.close()
    before = (first.path / "config.toml").read_bytes()
    config = make_config(output_dir=str(first.path), max_steps=20, trainer__optim__lr=0.5)
    second = RunDirectory(config, device="cpu")
    assert (first.path / "config.toml").read_bytes() == before
    assert second.run["config_id"] == first.run["config_id"]
    second.adopt_config(4)
    assert load_config([second.path / "config.toml"]) == config
    assert json.loads((second.path / "run.json").read_text())["config_id"] == config_id(config)
    assert (second.path / "configs/from_step_000001.toml").read_bytes() == before


def test_rollouts_that_wait_are_made_again_under_another_temperature_only(tmp_path: Path) -> None:
    first = with_steps(tmp_path, 1, 2, 3)
    first.close()

    def makes_again(**changes: object) -> bool:
        config = make_config(output_dir=str(first.path), **changes)
        with RunDirectory(config, device="cpu") as directory:
            return directory.makes_rollouts_again(3)

    assert not makes_again()
    assert not makes_again(trainer__optim__lr=0.5, orchestrator__batch_size=8)
    assert makes_again(orchestrator__sampling__temperature=0.5)
    assert makes_again(seq_len=128)


def test_two_runs_of_one_configuration_have_different_ids(tmp_path: Path) -> None:
    config = make_config(output_dir=str(tmp_path / "one"))
    one, two = (
        RunDirectory(config.model_copy(update={"output_dir": str(tmp_path / name)}), device="cpu")
        for name in ("one", "two")
    )
    assert one.run["run_id"] != two.run["run_id"]


def test_a_second_process_in_the_directory_changes_nothing(tmp_path: Path) -> None:
    directory = with_steps(tmp_path, 1, 2)
    files = [path for path in directory.path.rglob("*") if path.is_file() and path.name != "lock.json"]
    before = {path: path.read_bytes() for path in files}
    with pytest.raises(ConfigError, match=f"in use by process {os.getpid()} on {socket.gethostname()}"):
        opened(tmp_path)
    assert {path: path.read_bytes() for path in files} == before
    assert [row["step"] for row in read_metrics(directory.path)] == [1, 2]  # reading stays allowed


def test_a_run_that_another_host_has_taken_over_writes_nothing_more(tmp_path: Path) -> None:
    directory = with_steps(tmp_path, 1)
    mine = new_holder("f" * 16)
    other = msgspec.structs.replace(mine, place=msgspec.structs.replace(mine.place, host="gpu-17"))
    (directory.path / "lock.json").write_bytes(encoded(other, 3.0))
    before = {path: path.read_bytes() for path in directory.path.rglob("*") if path.is_file()}
    saver = CheckpointWriter(directory.path, 1, pytest.fail, directory.require_held)
    for write in (
        lambda: directory.add_metrics({"step": 2}),
        lambda: directory.add_rollouts(2, [], []),
        lambda: directory.rewind(0),
        lambda: (saver.begin(None, None, None), saver.finish()),  # type: ignore[arg-type]
    ):
        with pytest.raises(RunError, match=r"taken over by process .* on gpu-17"):
            write()
    directory.update(phase="rollouts")
    directory.end("failed")
    assert {path: path.read_bytes() for path in directory.path.rglob("*") if path.is_file()} == before


def test_a_full_disk_is_an_error_that_names_the_file_and_costs_no_earlier_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    directory = with_steps(tmp_path, 1)
    monkeypatch.setattr("os.fsync", full)
    monkeypatch.setattr(Path, "write_text", full)
    for write in (
        lambda: directory.add_metrics({"step": 2}),
        lambda: directory.add_rollouts(2, [], []),
        lambda: directory.rewind(1),
        lambda: directory.write_forecast({}),
    ):
        with pytest.raises(
            RunError, match=r"directory error: .*run.* cannot be written: No space left on device"
        ):
            write()
    directory.update(phase="rollouts")  # a note that the next one repeats
    directory.record_end("failed")
    monkeypatch.undo()
    directory.rewind(1)
    assert steps_of(directory) == [1]


def test_a_directory_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(RunError, match=r"directory error: .*run cannot be written: File exists"):
        opened(tmp_path)


def test_another_configuration_may_begin_where_a_run_ended_before_its_first_step(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.update(mlflow_run_id="abc", attempts=[{"started": "then", "seconds": 9.0}])
    first.end("failed")
    second = RunDirectory(make_config(output_dir=str(first.path), seed=7), device="cpu")
    assert second.run["run_id"] != first.run["run_id"]
    assert second.run["mlflow_run_id"] is None
    assert second.run["attempts"] == [{"started": "then", "seconds": 9.0}]  # what it cost was spent


def test_every_line_is_strict_json_and_numbers_that_are_not_finite_come_back(tmp_path: Path) -> None:
    directory = opened(tmp_path)
    row = {
        "step": 1,
        "grad_norm": math.nan,
        "loss": -math.inf,
        "nested": {"a": [1.0, math.inf]},
        "text": "\ud83d",
    }
    directory.add_metrics(row)
    (line,) = (directory.path / "metrics.jsonl").read_text().splitlines()
    strict = json.loads(line, parse_constant=pytest.fail)
    assert (strict["grad_norm"], strict["loss"], strict["nested"]["a"]) == (None, None, [1.0, None])
    assert strict["not_finite"] == [
        ["grad_norm", "NaN"],
        ["loss", "-Infinity"],
        ["nested", "a", 1, "Infinity"],
    ]
    assert msgspec.json.decode(line) == strict  # a reader that refuses half a surrogate pair
    directory.rewind(1)
    (read,) = directory.metrics()
    assert math.isnan(read.pop("grad_norm"))
    assert (read["loss"], read["nested"], read["text"]) == (-math.inf, {"a": [1.0, math.inf]}, "?")


def test_timestamps_rise_although_the_clock_is_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = with_steps(tmp_path, 1)
    monkeypatch.setattr("rezero_ray.run_directory.time.time", lambda: 1000.0)
    directory.add_metrics({"step": 2})
    directory.end("interrupted")
    again = opened(tmp_path)
    again.add_metrics({"step": 3})
    stamps = [row["timestamp"] for row in again.metrics()]
    assert stamps == sorted(set(stamps))


def test_the_end_is_recorded(tmp_path: Path) -> None:
    directory = opened(tmp_path)
    directory.end("done")
    run = json.loads((directory.path / "run.json").read_text())
    assert run["status"] == "done"
    assert run["ended"] >= run["started"]


def test_rewinding_forgets_the_later_steps(tmp_path: Path) -> None:
    directory = with_steps(tmp_path, 1, 2, 3, 4)
    directory.rewind(2)
    assert steps_of(directory) == [1, 2]
    assert {path.name for path in (directory.path / "rollouts").iterdir()} == {
        "step_000001.jsonl",
        "step_000002.jsonl",
    }


def test_rewinding_forgets_what_was_put_aside_in_later_steps(tmp_path: Path) -> None:
    directory = with_steps(tmp_path, 1)
    early, late = (
        Send(Prompt(index=i, environment="a", example=i), engine=0, version=i, attempt=3) for i in (1, 2)
    )
    directory.add_quarantined(early, "environment", "the rubric broke")
    directory.add_metrics({"step": 2})
    directory.add_quarantined(late, "engine", "the engine died")
    directory.rewind(2)
    (row,) = [json.loads(line) for line in (directory.path / QUARANTINE).read_text().splitlines()]
    assert (row["step"], row["prompt"]["index"], row["kind"]) == (2, 1, "environment")
    assert (row["attempts"], row["error"]) == (3, "the rubric broke")
    directory.rewind(1)
    assert not (directory.path / QUARANTINE).exists()


def test_rewinding_forgets_compressed_records_too(tmp_path: Path) -> None:
    directory = with_steps(tmp_path, 1)
    later = directory.path / "rollouts" / "step_000003.jsonl.gz"
    later.write_bytes(b"")
    directory.rewind(2)
    assert not later.exists()


def test_steps_taken_again_have_one_line_each(tmp_path: Path) -> None:
    directory = with_steps(tmp_path, 1, 2, 3)
    directory.rewind(1)
    for step in (2, 3, 4):
        directory.add_metrics({"step": step})
    assert steps_of(directory) == [1, 2, 3, 4]


def test_a_new_run_has_nothing_to_rewind(tmp_path: Path) -> None:
    directory = opened(tmp_path)
    directory.rewind(0)
    assert steps_of(directory) == []


def test_a_last_line_that_a_crash_cut_off_is_left_out_wherever_it_was_cut(tmp_path: Path) -> None:
    directory = with_steps(tmp_path, 1, 2)
    path = directory.path / "metrics.jsonl"
    whole = path.read_text()
    first = whole.index("\n") + 1
    for end in range(first + 1, len(whole)):
        path.write_text(whole[:end])
        directory.rewind(2)
        directory.add_metrics({"step": 3})
        # Without its line feed the second line is whole all the same.
        assert steps_of(directory) == ([1, 2, 3] if end == len(whole) - 1 else [1, 3])


def test_every_rollout_of_a_step_is_recorded_with_its_ids_and_its_advantage(tmp_path: Path) -> None:
    directory = opened(tmp_path)
    groups = [
        make_group([make_rollout([1], [2, 3], reward=1.0), make_rollout([1], [4])], index=7),
        make_group([make_rollout([5], [6])], index=8),
    ]
    path = directory.add_rollouts(12, groups, [[0.5, -0.5], [0.0]])
    assert path == directory.path / "rollouts" / "step_000012.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["token_ids"] for record in records] == [[1, 2, 3], [1, 4], [5, 6]]
    assert [record["advantage"] for record in records] == [0.5, -0.5, 0.0]
    assert [record["prompt"]["index"] for record in records] == [7, 7, 8]
    first = groups[0].rollouts[0]
    assert records[0]["logprobs"] == first.logprobs.tolist()
    assert records[0]["loss_mask"] == first.loss_mask.tolist()
