"""A request that may not resume the run in output_dir is refused before anything starts, with old and new values, and
the run directory stays as it was."""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rezero_ray import checkpoint, cli, train
from rezero_ray.config import Config, dump_toml, load_config
from rezero_ray.config.resume_table import Verdict, row_of
from rezero_ray.config_history import record_config
from rezero_ray.preflight import survey
from rezero_ray.preflight.environment_scoring import QUICK
from rezero_ray.preflight.environments import Looks
from rezero_ray.preflight.findings import Findings
from rezero_ray.preflight.foreign_environments import Seen
from rezero_ray.preflight.model_identity import fingerprint
from rezero_ray.preflight.resuming import examine_resume
from rezero_ray.records import Adapter
from rezero_ray.run_directory import RunDirectory
from rezero_ray.sampler import SamplerState
from rezero_ray.schedule import ScheduleState
from tests.config.changed_configs import another, changed, leaves
from tests.config.run_request import refused, write_right

STEP = 4


def write_run(
    config: Config, *, model: str = "", sizes: dict[str, int] | None = None, step: int = STEP
) -> Path:
    """A run directory of `config` with a checkpoint of `step`, as a run leaves it."""
    directory = RunDirectory(config, device="cpu")
    for done in range(1, step + 1):
        directory.add_metrics({"step": done, "loss": 0.1, "time/step": 1.0})
    directory.adopt_config(0)
    lora = config.trainer.model.lora
    facts = {"r": lora.rank, "lora_alpha": lora.alpha, "target_modules": lora.target_modules}
    weights = np.frombuffer(b"weights", dtype=np.uint8)
    names = [env.id for env in config.orchestrator.env]
    state = checkpoint.RunState(
        step=step,
        seed=config.seed,
        schedule=ScheduleState(
            sampler=SamplerState(position=8, taken=dict.fromkeys(names, 8)),
            waiting=[],
            attempts={},
            ready=[],
        ),
        model=model,
        sizes=sizes or {},
    )
    adapter = Adapter(weights=weights, config=json.dumps(facts).encode(), digest="")
    checkpoint.save(directory.path, state, weights, adapter, keep_last=3)
    directory.end("interrupted")
    directory.close()
    return directory.path


def was(old: str) -> str:
    return f"the run has {old}" if old else "the run leaves it unset"


def contents(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.fixture
def right(tmp_path: Path) -> Path:
    """The request whose run was interrupted after step 4; its environment is not built in these tests."""
    request = write_right(tmp_path)
    write_run(
        load_config([request]), model=fingerprint(tmp_path / "model"), sizes={"phishing-detection": 512}
    )
    return request


REJECTED: list[tuple[str, str, str]] = [  # flag's key, its value, the recorded value as it is shown
    ("seed", "7", "0"),
    ("model.dtype", "float32", '"bfloat16"'),
    ("trainer.model.lora.rank", "8", "16"),
    ("trainer.model.lora.alpha", "128", "32.0"),
    ("trainer.model.lora.target_modules", '["q_proj"]', '["q_proj", "o_proj"]'),
    ("orchestrator.env.0.args", "{ seed = 3 }", ""),
    ("orchestrator.env.0.id", "network-logs", '["phishing-detection"]'),
    ("orchestrator.env.1.id", "network-logs", '["phishing-detection"]'),
]


@pytest.mark.parametrize("command", ["train", "dry-run", "auto"])
def test_what_may_not_change_is_refused_by_every_command_with_both_values_and_nothing_changes(
    right: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = right.parent / "out"
    before = contents(run)
    flags = [word for key, value, _ in REJECTED[:6] for word in (f"--{key}", value)]
    how = {"train": ["--resume"], "dry-run": ["--resume", "--dry-run"], "auto": ["--ckpt.resume", "auto"]}
    message = refused(capsys, right, *flags, *how[command])
    assert contents(run) == before
    lines = message.splitlines()
    for key, _, old in REJECTED[:6]:
        (line,) = (line for line in lines if f"--{key}" in line)
        assert was(old) in line and "may not change" in line
    recorded = (run / "config.toml").read_text().splitlines()
    assert f"({run / 'config.toml'}:{recorded.index('seed = 0') + 1})" in message


def test_check_refuses_it_too(right: Path, capsys: pytest.CaptureFixture[str]) -> None:
    no_environment = [
        "--orchestrator.env.0.id",
        "none-of-this-name",
    ]  # there is nothing to build, which takes seconds
    assert cli.main(["check", str(right), "--resume", "--seed", "7", *no_environment]) == 2
    assert "--seed 7: the run has 0" in capsys.readouterr().err


@pytest.mark.parametrize(("key", "value", "old"), REJECTED, ids=[f"{key}" for key, *_ in REJECTED])
def test_one_change_that_may_not_be_made_is_one_problem(
    right: Path, key: str, value: str, old: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, right, "--resume", "--dry-run", f"--{key}", value)
    assert "1 problem; nothing was started" in message
    assert was(old) in message


def test_the_same_request_and_what_may_change_is_accepted_and_told(
    right: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    free = ["--max_steps", "20", "--limits.group", "5", "--faults.attempts", "9", "--infra.num_cpus", "2"]
    for flags in ([], free, ["--trainer_gpu_ids", "[1]"], ["--budget.max_hours", "100"]):
        assert train.main([str(right), "--resume", "--dry-run", *flags]) == 0
        assert "--resume" not in capsys.readouterr().out
    flags = ["--trainer.optim.lr", "5e-4", "--max_steps", "30"]
    assert train.main([str(right), "--resume", "--dry-run", *flags]) == 0
    out = capsys.readouterr().out
    assert f"--resume, from step {STEP + 1} on: trainer.optim.lr = 0.0005, was 0.001" in out
    assert f"--resume, from step {STEP + 1} on: max_steps = 30, was 20" in out
    assert "made again" not in out
    assert (
        train.main([str(right), "--resume", "--dry-run", "--orchestrator.sampling.temperature", "0.7"]) == 0
    )
    assert "rollouts that wait to be trained on are made again" in capsys.readouterr().out


def test_compared_is_the_config_of_the_newest_checkpoint_and_not_a_later_attempt(
    right: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An attempt with another rate that saved nothing leaves nothing to compare with."""
    run = right.parent / "out"
    later = dump_toml(load_config([right], ["--trainer.optim.lr", "0.5"]))
    record_config(run, later, done=STEP)
    assert train.main([str(right), "--resume", "--dry-run"]) == 0
    assert "trainer.optim.lr = 0.001, was" not in capsys.readouterr().out


def test_a_checkpoint_is_believed_where_config_toml_was_overwritten(
    right: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Earlier versions wrote config.toml before they compared anything."""
    wrong = ["--seed", "7", "--trainer.model.lora.alpha", "128", "--orchestrator.env.0.id", "network-logs"]
    (right.parent / "out/config.toml").write_text(dump_toml(load_config([right], wrong)))
    message = refused(capsys, right, "--resume", "--dry-run", *wrong)
    assert "the checkpoint of step 4" in message
    for old in ("has 0,", "has 32.0,", 'has the environments ["phishing-detection"]'):
        assert old in message


def test_a_model_that_was_moved_is_the_same_and_one_whose_weights_changed_is_not(
    right: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, moved = right.parent / "model", right.parent / "moved"
    shutil.copytree(model, moved)
    assert train.main([str(right), "--resume", "--dry-run", "--model.name", str(moved)]) == 0
    weights = moved / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    capsys.readouterr()
    message = refused(capsys, right, "--resume", "--dry-run", "--model.name", str(moved))
    assert f'the run has "{model}"' in message
    shutil.copy(weights, model / "model.safetensors")
    message = refused(capsys, right, "--resume", "--dry-run")
    assert "its weights or its config.json are not those" in message


@pytest.mark.parametrize("size", [511, 512, 1024])
def test_an_environment_with_another_number_of_tasks_is_refused(
    right: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen(prompts=["?"], turns=1, size=size, held_out=0, tools=[], notes=[])
    monkeypatch.setattr(
        "rezero_ray.preflight.look_at", lambda config, *_, **__: Looks({0: seen}, None, Findings())
    )
    _, problems = survey(load_config([right]), resume=True, effort=QUICK)
    found = [problem for problem in problems if problem.key == "orchestrator.env.0"]
    assert bool(found) == (size != 512)
    if found:
        assert f"has {size} training tasks; the run in {right.parent / 'out'} began with 512" in found[0].what


def test_a_run_without_a_step_has_nothing_to_compare(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = write_right(tmp_path)
    with RunDirectory(load_config([request]), device="cpu") as directory:
        directory.end("failed")
    assert train.main([str(request), "--resume", "--dry-run", "--seed", "7"]) == 0
    assert "has no step yet; the run starts from step 1" in capsys.readouterr().out


def test_steps_without_a_checkpoint_are_the_recorded_configs(
    right: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(right.parent / "out/checkpoints")
    assert "the run has 0" in refused(capsys, right, "--resume", "--dry-run", "--seed", "7")


def test_a_checkpoint_of_an_earlier_version_is_compared_as_far_as_it_goes(
    right: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has no fingerprint and no sizes."""
    file = checkpoint.checkpoint_path(right.parent / "out", STEP) / checkpoint.RUN
    state = json.loads(file.read_text())
    del state["model"], state["sizes"]
    rewrite(file, json.dumps(state).encode())
    assert train.main([str(right), "--resume", "--dry-run"]) == 0
    assert "may not change" in refused(capsys, right, "--resume", "--dry-run", "--seed", "7")


@pytest.mark.parametrize("text", ["", "max_steps = 3\n", "not TOML", 'seed = "x"\n'])
def test_a_recorded_config_that_is_not_valid_refuses_the_resume(
    right: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = right.parent / "out"
    (run / "config.toml").write_text(text)
    message = refused(capsys, right, "--resume", "--dry-run")
    assert f"error: {run}: cannot be resumed" in message


def rewrite(file: Path, content: bytes) -> None:
    """Replace a file of a checkpoint, its checksum too."""
    import hashlib

    file.write_bytes(content)
    complete = file.parents[1] / checkpoint.COMPLETE
    sums = json.loads(complete.read_text())
    sums["sha256"][str(file.relative_to(file.parents[1]))] = hashlib.sha256(content).hexdigest()
    complete.write_text(json.dumps(sums))


KEYS = {
    key: value
    for key in leaves()
    if key not in ("output_dir", "infra.kind", "trainer.loss.type") and (value := another(key)) is not None
}


@settings(max_examples=40)
@given(
    st.dictionaries(st.sampled_from(sorted(KEYS)), st.none(), max_size=4),
    st.dictionaries(st.sampled_from(sorted(KEYS)), st.none(), max_size=4),
)
def test_of_random_pairs_of_configs_exactly_the_changes_of_the_table_are_refused(
    of_run: dict[str, None], of_resume: dict[str, None]
) -> None:
    with tempfile.TemporaryDirectory() as folder:

        def config(keys: dict[str, None]) -> Config:
            return changed({key: KEYS[key] for key in keys} | {"output_dir": f"{folder}/run"})

        old, new = config(of_run), config(of_resume)
        run = write_run(old)
        before = contents(run)
        found = examine_resume(new, None, run)
        assert contents(run) == before
    differ = (of_run.keys() ^ of_resume.keys()) - {"orchestrator.env.0.name"}
    if old.orchestrator.env[0].name != new.orchestrator.env[0].name:
        differ = {key for key in differ if not key.startswith("orchestrator.env.")} | {"orchestrator.env"}
    args = "orchestrator.env.0.args"
    refused_keys = {problem.key for problem in found.problems}
    assert {args if key.startswith(args) else key for key in refused_keys} == {
        key for key in differ if row_of(key).verdict is Verdict.FIXED
    }
    assert {note.split(": ")[1].split(" = ")[0] for note in found.notes if " = " in note} == {
        key for key in differ if row_of(key).verdict in (Verdict.NOTED, Verdict.AGAIN)
    }
