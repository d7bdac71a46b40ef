"""Claims about `rezero replay` when the request is wrong: status 2, the place and the remedy, nothing loaded."""

from pathlib import Path

import pytest

from rezero_ray import cli
from tests.recorded_runs import refused_request, write_run


def refused(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    return refused_request(capsys, "replay", *argv)


def test_a_directory_that_holds_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is no run directory" in refused(capsys, tmp_path, "--step", "1")


def test_a_step_that_is_not_recorded_is_answered_by_those_that_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, write_run(tmp_path), "--step", "3")
    assert "step 3 is not recorded" in message
    assert "1 to 2" in message


def test_a_step_between_the_checkpoint_and_the_one_asked_for_must_be_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path, steps=4)
    for step in (1, 3):
        (run / "rollouts" / f"step_{step:06d}.jsonl").unlink()
    message = refused(capsys, run, "--step", "4")
    assert "step 4 is replayed from the start of the run, and not recorded are: 1, 3" in message


def test_a_step_without_metrics_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path)
    (run / "metrics.jsonl").unlink()
    assert "metrics.jsonl has no line for step 1 to 2" in refused(capsys, run, "--step", "2")


def test_a_model_that_is_not_here_is_named_with_the_file_that_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path, model=tmp_path / "nowhere")
    message = refused(capsys, run, "--step", "2")
    assert str(run / "config.toml") in message
    assert "not found on this machine" in message


def test_an_unknown_loss_is_answered_by_those_that_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, write_run(tmp_path), "--step", "2", "--loss", "gropo")
    assert "importance_sampling" in message
    assert "dapo" in message


@pytest.mark.parametrize("arguments", [[], ["--step", "2", "--tolerance", "-1"], ["--step", "2", "--x", "1"]])
def test_wrong_arguments_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert "usage: rezero replay" in refused(capsys, write_run(tmp_path), *arguments)


def test_help_explains_the_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["replay", "--help"]) == 0
    text = capsys.readouterr().out
    assert "something differs" in text
    assert "gspo" in text
