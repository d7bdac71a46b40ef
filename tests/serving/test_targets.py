"""What `rezero serve` takes for a run, a checkpoint, a model; what it refuses, before anything is started."""

import re
import socket
from pathlib import Path

import pytest

from rezero_ray.config import dump_toml
from rezero_ray.config_history import record_config
from rezero_ray.serve import engine_settings
from rezero_ray.serving.server import command_line
from rezero_ray.serving.targets import Served, find_served
from tests.record_builders import SMOLLM2
from tests.recorded_runs import refused_request
from tests.trained_runs import write_trained_run

LAYERS = ("q_proj", "o_proj")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`first` (rank 16, steps 4 and 8) and `second` (rank 8, step 2), both on SmolLM2."""
    folder = tmp_path_factory.mktemp("served")
    write_trained_run(folder / "first", steps=(4, 8), trainer__model__lora__target_modules=list(LAYERS))
    write_trained_run(folder / "second", steps=(2,), trainer__model__lora__rank=8)
    return folder


def served(*words: str | Path, step: int | None = None, overrides: tuple[str, ...] = ()) -> Served:
    return find_served([str(word) for word in words], step=step, files=[], overrides=overrides)


def test_a_run_is_its_newest_adapter_under_its_own_name_beside_the_base(runs: Path) -> None:
    found = served(runs / "first")
    assert [(each.name, each.step) for each in found.adapters] == [("first", 8)]
    assert (found.base_name, found.config.model.name) == ("SmolLM2-135M-Instruct", str(SMOLLM2))


def test_a_step_is_named_by_flag_or_by_its_directory(runs: Path) -> None:
    assert served(runs / "first", step=4).adapters[0].step == 4
    (one,) = served(runs / "first" / "checkpoints" / "step_000004").adapters
    assert (one.name, one.step) == ("first-step4", 4)


def test_a_step_is_served_with_the_config_it_was_taken_under(tmp_path: Path) -> None:
    config = write_trained_run(tmp_path / "run", steps=(4, 8))
    model = config.inference.model.model_copy(
        update={"tool_call_parser": "hermes", "enable_auto_tool_choice": True}
    )
    inference = config.inference.model_copy(update={"model": model})
    record_config(tmp_path / "run", dump_toml(config.model_copy(update={"inference": inference})), done=4)
    assert served(tmp_path / "run", step=4).config.inference.model.tool_call_parser is None
    assert served(tmp_path / "run", step=8).config.inference.model.tool_call_parser == "hermes"


def test_the_engine_has_room_for_every_adapter_of_every_rank(runs: Path) -> None:
    settings = engine_settings(served(runs / "first", f"late={runs / 'first'}", runs / "second"))
    assert (settings["max_loras"], settings["max_lora_rank"]) == (3, 16)
    assert settings["lora_target_modules"] == ["o_proj", "q_proj", "v_proj"]
    assert settings["logprobs_mode"] == "raw_logprobs"


def test_a_run_that_was_launched_on_modal_is_served_here(tmp_path: Path) -> None:
    write_trained_run(tmp_path / "run")
    file = tmp_path / "run/config.toml"
    text = file.read_text("utf-8").replace(str(SMOLLM2), "owner/model")
    text = text.replace('device = "cpu"', 'device = "auto"').replace(str(tmp_path), "/root/checkpoints")
    text = re.sub(r"\[infra\][^[]*", '[infra]\nkind = "modal"\ngpu = "H100:2"\n\n', text)
    file.write_text(text, "utf-8")
    here = ("--model.name", str(SMOLLM2), "--device", "cpu")
    found = served(tmp_path / "run", overrides=here)
    assert found.notes == (f"run was trained on owner/model, served on {SMOLLM2}",)


def test_a_model_alone_is_served_without_adapters() -> None:
    found = served(SMOLLM2, overrides=("--device", "cpu", "--model.dtype", "float32"))
    assert found.adapters == ()
    assert not [name for name in engine_settings(found) if "lora" in name]


def test_tool_calls_are_parsed_as_the_runs_configuration_says(runs: Path) -> None:
    flags = (
        "--inference.model.enable_auto_tool_choice",
        "true",
        "--inference.model.tool_call_parser",
        "hermes",
    )
    words = command_line(engine_settings(served(runs / "first", overrides=flags)))
    assert words[words.index("--tool-call-parser") + 1] == "hermes"
    assert "--enable-auto-tool-choice" in words


def test_flags_say_of_every_argument_what_it_is() -> None:
    given = {"enforce_eager": True, "enable_chunked_prefill": False, "lora_modules": ["a", "b"], "seed": 0}
    words = "--enforce-eager --no-enable-chunked-prefill --lora-modules a b --seed 0 --limits"
    assert command_line({**given, "limits": {"image": 4}}) == [*words.split(), '{"image": 4}']


def test_requests_that_cannot_be_served_name_what_to_write_instead(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REZERO_NO_SUCH_KEY", raising=False)
    first, second = runs / "first", runs / "second"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for words, what, remedy in (
            (["runs/frist"], "is neither a run", "name the output_dir of a run"),
            ([first, "--step", "5"], "no complete checkpoint of step 5", "the steps 4, 8"),
            ([first, SMOLLM2], "a model is served by itself only", "they bring their base model"),
            ([first, first], "has the name first, as", f"NAME={first}"),
            ([f"SmolLM2-135M-Instruct={first}"], "is the name of the base model", "NAME=RUN"),
            ([f"a b={first}"], "cannot be a model's name", "letters, digits"),
            (
                [second, "--model.name", "models/none"],
                "not found on this machine",
                "name an existing directory",
            ),
            ([second, "--serve.port", port], f"serve.port = {port}: cannot listen", "0 for a free one"),
            (
                [second, "--serve.api_key_env", "REZERO_NO_SUCH_KEY"],
                "is not set",
                "export REZERO_NO_SUCH_KEY=...",
            ),
            ([second, "--serve.arguments.api_key", "secret"], "is set by rezero serve", "take it out"),
            ([second, "--serve.prot", "80"], "serve.prot", "serve.port"),
        ):
            message = refused_request(capsys, "serve", *words)
            assert what in message and remedy in message, message


def test_a_checkpoint_that_was_damaged_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_trained_run(tmp_path / "run", steps=(4,))
    weights = tmp_path / "run/checkpoints/step_000004/adapter/adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert "adapter_model.safetensors differs from its checksum" in refused_request(
        capsys, "serve", tmp_path / "run"
    )


def test_runs_of_two_bases_are_not_put_on_one(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_trained_run(tmp_path / "run")
    config = tmp_path / "run/config.toml"
    config.write_text(config.read_text("utf-8").replace(str(SMOLLM2), "elsewhere/another-model"), "utf-8")
    message = refused_request(capsys, "serve", runs / "first", tmp_path / "run")
    assert "was trained on elsewhere/another-model" in message and "serve it apart" in message
