"""Each request is one change away from a right one: exit 2, key and remedy named, no file left behind."""

import os
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from rezero_ray import train
from rezero_ray.preflight import Machine
from tests.config.run_request import files_under, refused, write_right

# (a line of the right file, what stands there instead, the key and the remedy that must be named)
WRONG_LINES = [
    ("max_steps = 20", "max_stepz = 20", ["max_stepz", "nearest valid name is max_steps"]),
    ("max_steps = 20", 'max_steps = "20"', ["max_steps", "without quotes"]),
    ("max_steps = 20", "max_steps = 0", ["max_steps", "greater than 0"]),
    ("max_steps = 20", "", ["max_steps", "add max_steps"]),
    ("seq_len = 512", "seq_len = 512.5", ["seq_len", "expected an integer"]),
    ("seq_len = 512", "seq_len = 100000", ["seq_len", "at most 2048"]),
    ('device = "cpu"', 'device = "gpu"', ["device", "auto, cuda, cpu"]),
    ("lr = 1e-3", "learning_rate = 1e-3", ["trainer.optim.learning_rate", "betas, lr"]),
    ("lr = 1e-3", "lr = -1", ["trainer.optim.lr", "greater than 0"]),
    ("lr = 1e-3", "lr = inf", ["trainer.optim.lr", "finite"]),
    ("lr = 1e-3", "lr = 1e-3\nmax_steps = 4", ["optim.max_steps", "max_steps exists at the top level"]),
    ("lr = 1e-3", "lr = 1e-3\nwarmup_steps = 20", ["trainer.optim.warmup_steps", "at most 19"]),
    ("lr = 1e-3", "lr = 1e-3\nmin_lr_ratio = 0.1", ["trainer.optim.min_lr_ratio", "schedule"]),
    ("lr = 1e-3", "lr = 1e-3\nbetas = [0.9]", ["trainer.optim.betas", "too few"]),
    ("rank = 16", "rank = 12", ["trainer.model.lora.rank", "8, 16, 32"]),
    ('["q_proj", "o_proj"]', '["q_prj", "o_proj"]', ["target_modules", "the nearest are", "q_proj"]),
    ('["q_proj", "o_proj"]', '"q_proj"', ["target_modules", 'write ["q_proj"]']),
    ('["q_proj", "o_proj"]', '["self_attn.q_proj"]', ["target_modules", 'write "q_proj"']),
    ('["q_proj", "o_proj"]', '["q_proj", "q_proj"]', ["target_modules", "twice"]),
    ("token_mask_low = 0.125", "clip_high = 0.3", ["trainer.loss.clip_high", "unknown key"]),
    ("token_mask_low = 0.125", 'type = "grppo"', ["trainer.loss.type", "write grpo"]),
    ("token_mask_low = 0.125", "token_mask_low = 9", ["token_mask_low", "below token_mask_high"]),
    ("batch_size = 8", "batch_size = 0", ["orchestrator.batch_size", "greater than 0"]),
    ("rollouts_per_example = 8", "rollouts_per_example = 1", ["rollouts_per_example", 'normalize = "none"']),
    ("rollouts_per_example = 8", 'stale = "retry"', ["orchestrator.stale", "raise max_async_level"]),
    ('id = "phishing-detection"', 'id = "phishing-detection"\nreward_range = [1.0, 0.0]', ["reward_range"]),
    ("max_tokens = 64", "max_tokens = 512", ["orchestrator.sampling.max_tokens", "less than 512"]),
    ("max_tokens = 64", "max_tokens = 64\ntop_p = 0.9", ["sampling.top_p", "max_tokens, temperature"]),
    ("max_model_len = 512", "max_model_len = 1024", ["inference.model.max_model_len", "raise seq_len"]),
    ("max_model_len = 512", "enable_auto_tool_choice = true", ["auto_tool", "tool_call_parser ="]),
    ("max_model_len = 512", "max_num_batched_tokens = 8", ["max_num_batched_tokens", "at least 256"]),
    ("dp = 1", "dp = 2", ["inference.parallel.dp", "write 1"]),
    ("dp = 1", "dp = 1\ntp = 2", ["inference.parallel", "dp * tp"]),
    ("trainer_gpu_ids = [1, 2, 3]", "trainer_gpu_ids = [1, 1]", ["trainer_gpu_ids", "GPU 1 twice"]),
    ("trainer_gpu_ids = [1, 2, 3]", "trainer_gpu_ids = []", ["trainer_gpu_ids", "at least 1"]),
    ('id = "phishing-detection"', 'id = "phising-detection"', ["env.0.id", '"phishing-detection"']),
    ('id = "phishing-detection"', 'id = "me/my-env"', ["env.0.id", "prime env install me/my-env"]),
    ('id = "phishing-detection"', 'id = "my-env@1.0"', ["env.0.id", 'write "my-env"']),
    ('id = "phishing-detection"', 'id = "json"', ["env.0.id", "no load_environment"]),
    ('id = "phishing-detection"', 'id = "json:Nothing"', ["env.0.id", "has no Nothing"]),
    ('id = "phishing-detection"', 'id = "json:"', ["env.0.id", "module:Class"]),
    ('id = "phishing-detection"', 'id = "phishing-detection"\nargs = { sede = 1 }', ["env.0.args", "sede"]),
    ("[model]", "[modell]", ["modell", "nearest valid name is model"]),
    ('name = "', 'name = "/nowhere', ["model.name", "not found on this machine"]),
    ("[model]", '[weight_sync]\nmode = "merged"\n[model]', ["weight_sync.mode", "adapter"]),
    ("[model]", "[wandb]\noffline = false\n[model]", ["wandb.offline", "MLflow"]),
    ("[model]", '[wandb]\nname = "a"\n[mlflow]\nrun_name = "b"\n[model]', ["mlflow.run_name", "keep one"]),
    ("[model]", '[mlflow]\ntracking_uri = "htp://a"\n[model]', ["mlflow.tracking_uri", "sqlite:///PATH"]),
    ("[model]", '[mlflow]\ntracking_uri = "sqlite:///no/a.db"\n[model]', ["mlflow.tracking_uri", "mkdir -p no"]),
    ("seq_len = 512", "seq_len = = 512", ["not valid TOML", "line 4", "column 11"]),
]  # fmt: skip


@pytest.fixture
def right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    no_run = types.ModuleType("rezero_ray.run")  # a wrong request that slips through must fail, not train
    monkeypatch.setitem(sys.modules, "rezero_ray.run", no_run)
    machine = Machine(gpu_gib=(), cpus=2, memory_gib=16.0, shm_gib=8.0)  # the same answers everywhere
    monkeypatch.setattr("rezero_ray.preflight.this_machine", lambda: machine)
    return write_right(tmp_path)


def test_the_right_request_is_accepted(right: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main([str(right), "--dry-run"]) == 0
    assert "1 inference + 3 training" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "instead", "named"),
    WRONG_LINES,
    ids=[(wrong or f"no {line}").splitlines()[-1] for line, wrong, _ in WRONG_LINES],
)
def test_one_wrong_line_is_named_with_its_remedy(
    right: Path, capsys: pytest.CaptureFixture[str], line: str, instead: str, named: list[str]
) -> None:
    text = right.read_text()
    assert line in text
    right.write_text(text.replace(line, instead, 1))
    before = files_under(right.parent)
    printed = refused(capsys, right)
    for words in named:
        assert words in printed
    assert files_under(right.parent) == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["missing.toml"], ["missing.toml", "no such file"]),
        (["."], [".", "is a directory"]),
        (["right.toml", "--max-stepz", "3"], ["--max-stepz 3", "max_steps"]),
        (["right.toml", "--seed", "-1"], ["--seed -1", "at least 0"]),
        (["right.toml", "--dryrun"], ["--dryrun", "write --dry-run"]),
        (["right.toml", "--orchestrator.env.5.id=x"], ["orchestrator.env.5.id", "0 to 1"]),
        (["right.toml", "--model.name.first", "x"], ["--model.name.first", "drop what follows"]),
        (["right.toml", "--device", "cuda"], ["device", "no GPU", "overlays/cpu.toml"]),
        (["right.toml", "--output_dir", "right.toml"], ["output_dir", "not a directory"]),
        (["right.toml", "--output_dir", "right.toml/out"], ["output_dir", "not a directory"]),
        (["right.toml", "--infra.object_store_gib", "1e6"], ["infra.object_store_gib", "/dev/shm"]),
    ],
    ids=lambda value: " ".join(value[-2:]),
)
def test_one_wrong_argument_is_named_with_its_remedy(
    right: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], named: list[str]
) -> None:
    before = files_under(right.parent)
    printed = refused(capsys, *arguments)
    for words in named:
        assert words in printed
    assert files_under(right.parent) == before


def test_text_that_is_not_utf8_is_refused(right: Path, capsys: pytest.CaptureFixture[str]) -> None:
    right.write_bytes(b'output_dir = "\xff"')
    assert "not UTF-8" in refused(capsys, right)


def test_a_run_that_is_there_is_not_overwritten(right: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (right.parent / "out").mkdir()
    (right.parent / "out" / "run.json").write_text("{}")
    printed = refused(capsys, right)
    assert "output_dir" in printed and "--resume" in printed
    assert train.main([str(right), "--dry-run", "--resume"]) == 0
    assert train.main([str(right), "--dry-run", "--ckpt.resume", "auto"]) == 0


def test_all_problems_are_told_at_once(right: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = right.read_text().replace("max_steps", "max_stepz").replace("dp = 1", "dp = 4")
    right.write_text(text.replace("lr = 1e-3", "lr = -1"))
    printed = refused(capsys, right, "--seed", "-1")
    assert printed.count("error: ") == 4, printed
    assert "4 problems" in printed
    assert f"{right}:3: max_stepz = 20" in printed


@pytest.mark.parametrize("flag", ["--max_stepz=3", "--output_dir=right.toml", "--trainer.loss.type=x"])
def test_a_cheap_mistake_is_answered_in_two_seconds(right: Path, flag: str) -> None:
    """The processor's time, not the clock's: other tests share the machine."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "rezero_ray.train", str(right), flag]
    environment = os.environ | {"PYTHONPATH": str(root)}
    before, started = os.times(), time.monotonic()
    answer = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=right.parent, check=False
    )
    after, wall = os.times(), time.monotonic() - started
    assert answer.returncode == 2 and "Traceback" not in answer.stderr and answer.stderr
    used = after.children_user - before.children_user + after.children_system - before.children_system
    assert min(wall, used) < 2.0
