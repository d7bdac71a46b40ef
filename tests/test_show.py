"""Claims about `rezero show`: a step's rollouts are readable, and harmless whatever a model wrote."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rezero_ray import cli
from rezero_ray.config import dump_toml
from rezero_ray.config_history import record_config
from rezero_ray.reporting.printable import printable
from tests.record_builders import make_config
from tests.recorded_runs import PROMPT_IDS, refused_request, write_run

ROOT = Path(__file__).parents[1]


def shown(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    assert cli.main(["show", *map(str, argv)]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    return refused_request(capsys, "show", *argv)


def test_a_step_is_shown_by_prompt_and_rollout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line.strip() for line in shown(capsys, write_run(tmp_path), "--step", "1").splitlines()]
    assert lines[0].endswith("run, step 1 of 10")
    assert lines[1] == "reward 0.5, loss 0.0123, staleness 0, at most 0"
    assert lines[2] == "2 prompts, 4 rollouts"
    assert "prompt 10: phishing-detection, example 10" in lines
    facts = "reward 0.75, advantage +0.707, policy version 0, 2 turns, 3 tokens written, truncated"
    assert f"rollout 1 of 2: {facts}" in lines
    assert "verdict 1, form 0.5" in lines
    conversation = lines[lines.index("verdict 1, form 0.5") + 1 :][:4]
    assert conversation == ["assistant:", "It is phishing.", "user:", "Are you sure?"]


def test_without_a_number_the_last_recorded_step_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "step 2 of 10" in shown(capsys, write_run(tmp_path))


def test_each_step_is_shown_with_the_config_it_was_taken_under(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path)
    longer = dump_toml(make_config(output_dir=str(run), max_steps=77, model__name=str(tmp_path / "gone")))
    record_config(run, longer, done=1)
    assert "step 1 of 10" in shown(capsys, run, "--step", "1")
    second = shown(capsys, run, "--step", "2")
    assert "step 2 of 77" in second
    assert f"the model {tmp_path / 'gone'} is not on this machine" in second


def test_the_prompt_is_decoded_special_tokens_included(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoTokenizer

    from tests.record_builders import SMOLLM2

    text = AutoTokenizer.from_pretrained(SMOLLM2).decode(PROMPT_IDS)
    assert "<|im_start|>" in text
    assert text in shown(capsys, write_run(tmp_path))


def test_without_the_model_only_the_ids_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path, model=tmp_path / "nowhere")
    assert f"4 token ids, no text: the model {tmp_path / 'nowhere'} is not on this" in shown(capsys, run)


@pytest.mark.parametrize("content", [None, "{"])
def test_without_a_tokenizer_file_it_is_said_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    if content is not None:
        (model / "tokenizer.json").write_text(content)
    why = "has no tokenizer.json" if content is None else "cannot be read"
    assert why in shown(capsys, write_run(tmp_path, model=model))


def test_one_prompt_can_be_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path)
    text = shown(capsys, run, "--prompt", "11")
    assert "prompt 11:" in text
    assert "prompt 10:" not in text
    assert "10 to 11" in refused(capsys, run, "--prompt", "12")


def test_a_limit_says_how_much_it_leaves_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, write_run(tmp_path), "--limit", "1")
    assert "prompt 11:" not in text
    assert "1 more prompt" in text


def test_a_prompt_that_differs_within_its_group_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path, steps=1)
    path = run / "rollouts" / "step_000001.jsonl"
    path.write_text(path.read_text().replace('"token_ids":[1,2,3,4,8]', '"token_ids":[1,2,9,4,8]', 1))
    assert shown(capsys, run).count("its prompt is another") == 1


ESCAPES = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202etxt\r\x08"


def test_escape_sequences_of_a_model_do_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path, text=ESCAPES)
    text = shown(capsys, run)
    assert r"\x1b[2J\x1b]0;owned\x07\x9b31m\u202etxt\r\x08" in text
    assert not set(text) & set("\x1b\x07\x9b\u202e\r\x08")
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal: our own styles, and nothing of the model's
    assert "\x1b[2J" not in (coloured := shown(capsys, run))
    assert "\x1b]0;" not in coloured


@pytest.mark.parametrize("text", ["[red]alarm[/red]", "[/]", "[link=x]y[/link] :warning:", "[1, 2]"])
def test_markup_of_a_model_is_text(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert text in shown(capsys, write_run(tmp_path, text=text))


def test_a_long_line_is_not_broken_for_a_pipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "word " * 100 + "end"
    assert text in shown(capsys, write_run(tmp_path, text=text))


def test_a_reader_who_leaves_early_is_no_failure(tmp_path: Path) -> None:
    run = write_run(tmp_path, text="word " * 60_000)  # more than a pipe holds
    command = [sys.executable, "-m", "rezero_ray.cli", "show", str(run)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "step 2" in process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 0


@given(st.text())
def test_what_is_printable_has_no_control_character_and_keeps_its_lines(text: str) -> None:
    shown = printable(text)
    assert all(c in "\n\t" or c.isprintable() for c in shown)
    assert shown.count("\n") == text.count("\n")
    assert printable(shown) == shown


def test_a_directory_that_holds_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is no run directory: it has no config.toml" in refused(capsys, tmp_path)
    assert "there is no such directory" in refused(capsys, tmp_path / "nowhere")


def test_a_step_that_is_not_recorded_is_answered_by_those_that_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, write_run(tmp_path), "--step", "7")
    assert "step 7 is not recorded" in message
    assert "1 to 2" in message


def test_a_run_without_a_step_yet_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no step is recorded yet" in refused(capsys, write_run(tmp_path, steps=0))


def test_a_record_that_is_cut_short_is_named_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path)
    path = run / "rollouts" / "step_000002.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    assert f"{path}:4: is cut short" in refused(capsys, run)


@pytest.mark.parametrize("arguments", [["--step", "x"], ["--limit", "0"], ["--nonsense"], []])
def test_wrong_arguments_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    run = [str(write_run(tmp_path))] if arguments else []
    assert "usage: rezero show" in refused(capsys, *run, *arguments)


def test_help_explains_the_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert "last recorded one" in shown(capsys, "--help")
