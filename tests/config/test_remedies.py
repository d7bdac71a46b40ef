"""A remedy that says what to write is followed, and the key is then accepted."""

import re
from pathlib import Path

import pytest

from rezero_ray.config import ConfigError, Problem, load_config
from tests.config.run_request import RIGHT

WRITE = re.compile(
    r"\b(?:write|For example)(?: at most| at least| less than)? (\[.*?\]|\"[^\"]*\"|[\w.+-]+)( or less)?"
)

# Flags that are wrong, each with a remedy that says what to write.
WRONG = [
    ["--inference_gpu_ids", "0"],
    ["--trainer_gpu_ids", "1,2"],
    ["--trainer_gpu_ids", "[1 2]"],
    ["--trainer_gpu_ids=cuda"],
    ["--trainer_gpu_ids", "1.5"],
    ["--trainer.model.lora.target_modules", "all-linear"],
    ["--trainer.model.lora.target_modules", "q_proj"],
    ["--trainer.model.lora.target_modules", "q_proj, o_proj"],
    ["--trainer.model.lora.target_modules", "['self_attn.q_proj']"],
    ["--trainer.optim.betas", "0.9,0.99"],
    ["--trainer.optim.betas", "0.9"],
    ["--max_steps", '"20"'],
    ["--max_steps", "20.0"],
    ["--seq_len", "'1024'"],
    ["--trainer.optim.lr", '"1e-5"'],
    ["--mlflow.enabled", '"true"'],
    ["--trainer.loss.type", "grppo"],
    ["--model.dtype", "bfloat"],
    ["--infra.kind", "locl"],
    ["--orchestrator.advantage.normalize", "stdd"],
    ["--orchestrator.stale", "retry"],
    ["--orchestrator.rollouts_per_example", "1"],
    ["--orchestrator.sampling.max_tokens", "512"],
    ["--inference.model.max_model_len", "1024"],
    ["--inference.model.max_num_batched_tokens", "8"],
    ["--inference.parallel.dp", "2"],
    ["--trainer.micro_batch_tokens", "8"],
    ["--trainer.optim.warmup_steps", "20"],
    ["--orchestrator.env.0.id", "my-env@1.0"],
    ["--orchestrator.env.0.reward_range", "[1.0, 0.0]"],
    ["--orchestrator.env.0.requirements", "verifiers==0.1.10"],
    ["--weight_sync.mode", "merged"],
    ["--seed", "4294967295", "--inference.parallel.dp", "2", "--inference_gpu_ids", "[0, 4]"],
]  # fmt: skip


@pytest.fixture
def right(tmp_path: Path) -> Path:
    file = tmp_path / "right.toml"
    file.write_text(RIGHT.format(output="out", model="model"))
    return file


def problems(file: Path, flags: list[str]) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as raised:
        load_config([file], flags)
    return raised.value.problems


def suggested(problem: Problem) -> str:
    found = WRITE.search(problem.remedy)
    assert found is not None, problem
    if "less than" in found[0]:
        return str(int(found[1]) - 1)
    return found[1]


@pytest.mark.parametrize("flags", WRONG, ids=" ".join)
def test_what_a_remedy_says_to_write_is_accepted(right: Path, flags: list[str]) -> None:
    found = problems(right, flags)
    problem, name = found[0], found[0].key
    assert {other.key for other in found} == {name}
    if flags[0].startswith("--trainer.model.lora.target_modules") and "self_attn" in flags[1]:
        repaired = f"--{name}=[{suggested(problem)}]"  # the remedy is about one of the list
    else:
        repaired = f"--{name}={suggested(problem)}"
    load_config([right], [*flags, repaired])


@pytest.mark.parametrize(
    ("flags", "remedy"),
    [
        (["--inference_gpu_ids", "0"], "write [0]"),
        (["--trainer_gpu_ids", "1,2"], "write [1, 2]"),
        (["--trainer.optim.betas", "0.9,0.99"], "write [0.9, 0.99]"),
        (["--trainer.model.lora.target_modules", "q_proj, o_proj"], 'write ["q_proj", "o_proj"]'),
        (["--trainer.model.lora.target_modules", "all-linear"], 'For example ["q_proj", "v_proj"]'),
        (["--max_steps", '"20"'], "write 20, without quotes"),
        (["--max_steps", "20.0"], "write 20"),
    ],
)
def test_a_value_of_the_wrong_type_is_written_out_in_the_right_one(
    right: Path, flags: list[str], remedy: str
) -> None:
    (problem,) = problems(right, flags)
    assert remedy in problem.remedy


def test_words_that_are_no_number_are_not_to_be_written_without_quotes(right: Path) -> None:
    (problem,) = problems(right, ["--max_steps", "many"])
    assert "without quotes" not in problem.remedy and problem.remedy


def test_a_dotted_key_in_quotes_is_explained(right: Path) -> None:
    text = (
        right.read_text()
        .replace('[model]\nname = "model"', "")
        .replace("max_steps", '"model.name" = "x"\nmax_steps', 1)
    )
    right.write_text(text)
    (problem,) = problems(right, [])
    assert problem.key == '"model.name"' and "write model.name without quotes" in problem.remedy
    assert problem.origin is not None and problem.origin.line == 3
    right.write_text(text.replace('"model.name"', "model.name"))
    assert load_config([right]).model.name == "x"


def test_a_seed_beyond_32_bits_is_refused_and_one_within_is_not(right: Path) -> None:
    assert load_config([right], [f"--seed={2**32 - 1}"]).seed == 2**32 - 1
    (problem,) = problems(right, [f"--seed={2**32}"])
    assert problem.key == "seed" and f"at most {2**32 - 1}" in problem.what
    two = ["--inference_gpu_ids=[0, 4]", "--inference.parallel.dp=2"]
    (problem,) = problems(right, [f"--seed={2**32 - 1}", *two])
    assert f"write {2**32 - 2} or less" in problem.remedy
    load_config([right], [f"--seed={2**32 - 2}", *two])


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_byte_order_mark_and_line_endings_of_windows_change_nothing(
    right: Path, mark: str, ending: str
) -> None:
    plain = load_config([right])
    text = right.read_text() + "\n[mlflow]\n# comment\nexperiment = 'a'\n"
    right.write_bytes((mark + text.replace("\n", ending)).encode())
    assert load_config([right], ["--mlflow.experiment", "x"]) == plain.model_copy(
        update={"mlflow": plain.mlflow.model_copy(update={"experiment": "x"})}
    )
    wrong = text.replace("lr = 1e-3", "lr = -1")
    right.write_bytes((mark + wrong.replace("\n", ending)).encode())
    (problem,) = problems(right, [])
    line = next(number for number, written in enumerate(wrong.splitlines(), 1) if written == "lr = -1")
    assert problem.origin is not None and problem.origin.line == line


def test_a_byte_order_mark_within_a_file_is_named(right: Path) -> None:
    right.write_text(right.read_text() + "\ufeff[mlflow]\n")
    (problem,) = problems(right, [])
    assert "byte order mark" in problem.remedy and problem.origin is not None
    assert problem.origin.line == len(right.read_text().splitlines())


def test_a_file_that_is_not_utf_8_is_refused_by_name(right: Path) -> None:
    right.write_bytes(right.read_text().encode("utf-16"))
    (problem,) = problems(right, [])
    assert "not UTF-8" in problem.what and "save the file as UTF-8" in problem.remedy
