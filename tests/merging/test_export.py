"""`rezero export`: the adapter as it is, and one model that does what base and adapter do."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rezero_ray import cli
from rezero_ray.export import write_adapter
from rezero_ray.merging.files import merge_files
from rezero_ray.models.tiny import make_tiny_deepseek_v3, make_tiny_llama
from tests.record_builders import SMOLLM2, make_config
from tests.recorded_runs import refused_request
from tests.trained_runs import make_lora, write_trained_run

LLAMA = ["q_proj", "o_proj", "down_proj"]
MLA = ["q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("models") / "llama", tokenizer_from=SMOLLM2)


@pytest.mark.parametrize(("make", "modules"), [(make_tiny_llama, LLAMA), (make_tiny_deepseek_v3, MLA)])
def test_merged_weights_are_pefts_own_to_the_digit(make, modules: list[str], tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """PEFT's `merge_and_unload` of the base in fp32, an MLA model's `kv_b_proj` among the modules."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = make(tmp_path / "base", num_hidden_layers=1, tokenizer_from=SMOLLM2)
    config = make_config(model__name=str(base), trainer__model__lora__target_modules=modules)
    lora = make_lora(config, size=0.02)
    for folder in (tmp_path / "merged", tmp_path / "adapter"):
        folder.mkdir()
    write_adapter(lora, tmp_path / "adapter")
    rounding = merge_files(base, lora, tmp_path / "merged", torch.float32)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    expected = PeftModel.from_pretrained(model, str(tmp_path / "adapter")).merge_and_unload().state_dict()
    found = load_file(tmp_path / "merged" / "model.safetensors")
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6)
    assert rounding.in_fp32 and rounding.lost_share == 0
    assert rounding.changed == pytest.approx(rounding.weights, rel=1e-3)


def test_rounding_to_bf16_is_counted(llama: Path, tmp_path: Path) -> None:
    """A change far below the spacing of bf16 (2^-8 of the weight) leaves nearly every weight as it was."""
    config = make_config(model__name=str(llama), trainer__model__lora__target_modules=LLAMA)
    shares = {}
    for size in (1e-6, 1e-2):
        output = tmp_path / str(size)
        output.mkdir()
        rounding = merge_files(llama, make_lora(config, size=size), output, None)
        shares[size] = (rounding.changed / rounding.weights, rounding.lost_share)
        before, after = load_file(llama / "model.safetensors"), load_file(output / "model.safetensors")
        differing = sum(int((before[name] != after[name]).sum()) for name in before)
        assert differing == rounding.changed
        assert {tensor.dtype for tensor in after.values()} == {torch.bfloat16}
    assert shares[1e-6][0] < 0.01 and shares[1e-6][1] > 0.9
    assert shares[1e-2][0] > 0.9 and shares[1e-2][1] < 0.1


def test_the_adapter_is_exported_as_the_checkpoint_has_it(llama: Path, tmp_path: Path) -> None:
    write_trained_run(tmp_path / "run", steps=(2, 4), model=llama)
    assert cli.main(["export", str(tmp_path / "run"), "--step", "2", "--output", str(tmp_path / "out")]) == 0
    checkpoint = tmp_path / "run/checkpoints/step_000002/adapter"
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (checkpoint / name).read_bytes()
    assert json.loads((tmp_path / "out/rezero_export.json").read_text())["step"] == 2


@pytest.mark.slow
def test_a_merged_model_does_what_base_and_adapter_do(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In fp32 without loss; in bf16 a small adapter is lost, which is told, refused, and leaves nothing."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    write_trained_run(tmp_path / "run", model=llama, size=2e-4, trainer__model__lora__target_modules=LLAMA)
    arguments = ["export", str(tmp_path / "run"), "--merge", "--output", str(tmp_path / "out")]
    assert cli.main(arguments) == 1
    printed = capsys.readouterr().out
    assert "too little of the adapter is left" in printed and "--dtype float32" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]

    assert cli.main([*arguments, "--dtype", "float32"]) == 0
    printed = capsys.readouterr().out
    assert "0.0% of the effect is lost" in printed, printed
    record = json.loads((tmp_path / "out/rezero_export.json").read_text())
    assert record["difference_nats"] < 1e-5 < record["effect_nats"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.float32
    messages = [{"role": "user", "content": "Hello"}]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert len(tokenizer.apply_chat_template(messages)["input_ids"]) > 3

    assert "is not overwritten" in refused_request(capsys, "export", *arguments[1:])


def test_exports_that_cannot_be_made_name_what_to_write_instead(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_trained_run(tmp_path / "run", model=llama)
    run, output = tmp_path / "run", ("--output", tmp_path / "out")
    other = make_tiny_llama(tmp_path / "other", hidden_size=32, tokenizer_from=SMOLLM2)
    for words, what, remedy in (
        ([tmp_path / "none", *output], "is no run directory", "name the output_dir of a run"),
        ([run, "--step", "9", *output], "no complete checkpoint of step 9", "the steps 4"),
        ([run, "--output", run], "is not overwritten", "name another --output"),
        (
            [run, "--merge", *output, "--model.name", "models/none"],
            "not found on this machine",
            "existing directory",
        ),
        ([run, "--merge", *output, "--model.name", other], "the adapter's", "the model that the run trained"),
    ):
        message = refused_request(capsys, "export", *words)
        assert what in message and remedy in message, message
    assert "usage: rezero export" in refused_request(capsys, "export", run)
    assert not (tmp_path / "out").exists()
