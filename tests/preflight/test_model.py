"""What the model's files say against the config, without loading the model."""

import json
from pathlib import Path

import pytest

from rezero_ray.config import ConfigError, load_config
from rezero_ray.preflight import Machine, preflight
from rezero_ray.preflight.model import examine_model
from rezero_ray.preflight.model_facts import find_model
from tests.config.run_request import make_model, write_right

MACHINE = Machine(gpu_gib=(), cpus=2, memory_gib=16.0, shm_gib=8.0)


def complaint(tmp_path: Path, *flags: str, for_run: bool = False) -> str:
    config = load_config([write_right(tmp_path)], flags)
    with pytest.raises(ConfigError) as raised:
        preflight(config, for_run=for_run, machine=MACHINE)
    return str(raised.value)


def test_shapes_are_read_from_the_header_and_only_adaptable_modules_are_named(tmp_path: Path) -> None:
    facts = find_model(str(make_model(tmp_path / "model")))
    assert facts is not None
    assert facts.linear_modules == {name: [(64, 64)] * 2 for name in ("q_proj", "k_proj", "v_proj", "o_proj")}
    assert facts.parameters == 256 * 64 + 8 * 64 * 64


def test_the_known_shapes_of_glm_4_7_flash_have_its_published_size() -> None:
    facts = find_model("zai-org/GLM-4.7-Flash")
    assert facts is not None and facts.multi_head_latent_attention
    assert facts.parameters == pytest.approx(29.94e9, rel=1e-3)  # the model card's 29.9 B
    assert facts.linear_modules["q_b_proj"] == [(5120, 768)] * 47
    assert facts.linear_modules["o_proj"] == [(2048, 5120)] * 47


def test_the_known_shapes_of_nemotron_3_nano_have_its_published_size() -> None:
    facts = find_model("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16")
    assert facts is not None and not facts.multi_head_latent_attention
    assert facts.parameters == pytest.approx(31.58e9, rel=1e-3)  # the model card's 31.6 B
    assert (facts.recurrent_layers, facts.attention_layers) == (23, 6)
    assert facts.linear_modules["in_proj"] == [(2 * 4096 + 2 * 8 * 128 + 64, 2688)] * 23
    assert facts.largest_layer == 128 * (2 * 2688 * 1856 + 2688) + 2 * 2688 * 3712


def make_recurrent(folder: Path, model_type: str) -> Path:
    """A model's files; its layers are a Mamba mixer and an attention."""
    model = make_model(folder)
    config = json.loads((model / "config.json").read_text())
    kinds = {"model_type": model_type, "layer_types": ["linear_attention", "full_attention"]}
    (model / "config.json").write_text(json.dumps(config | kinds))
    return model


def test_the_out_proj_of_a_mamba_mixer_is_refused_as_peft_would(tmp_path: Path) -> None:
    model = make_recurrent(tmp_path / "nemotron", "nemotron_h")
    message = complaint(
        tmp_path, f"--model.name={model}", '--trainer.model.lora.target_modules=["q_proj", "out_proj"]'
    )
    assert "PEFT takes no adapter on the out_proj" in message and "in_proj can be trained" in message


def test_recurrent_layers_whose_sequences_the_learner_cannot_keep_apart_are_refused(tmp_path: Path) -> None:
    model = make_recurrent(tmp_path / "other", "qwen3_next")
    assert "from one sequence into the next" in complaint(tmp_path, f"--model.name={model}")
    config = load_config([tmp_path / "right.toml"], [f"--model.name={make_model(tmp_path / 'plain')}"])
    assert preflight(config, for_run=False, machine=MACHINE).facts is not None


def set_config(model: Path, **changes: object) -> None:
    config = json.loads((model / "config.json").read_text()) | changes
    (model / "config.json").write_text(json.dumps(config))


def test_a_window_shorter_than_seq_len_is_refused_and_the_shorter_seq_len_is_accepted(tmp_path: Path) -> None:
    request = write_right(tmp_path)
    model = tmp_path / "model"
    set_config(model, model_type="mistral", architectures=["MistralForCausalLM"], sliding_window=300)
    with pytest.raises(ConfigError) as raised:
        preflight(load_config([request]), for_run=False, machine=MACHINE)
    assert "config.json has sliding_window = 300" in str(raised.value)
    assert "write seq_len = 300 or less" in str(raised.value)
    config = load_config([request], ["--seq_len=300", "--inference.model.max_model_len=300"])
    assert preflight(config, for_run=False, machine=MACHINE).facts is not None


def test_everything_that_is_wrong_with_a_model_is_told_at_once(tmp_path: Path) -> None:
    request = write_right(tmp_path)
    changes = {"final_logit_softcapping": 30.0, "quantization_config": {"quant_method": "fp8"}}
    set_config(tmp_path / "model", model_type="gemma3_text", logits_scaling=2.0, **changes)
    with pytest.raises(ConfigError) as raised:
        preflight(load_config([request]), for_run=False, machine=MACHINE)
    for told in ("final_logit_softcapping = 30.0", "logits_scaling = 2.0", 'quant_method = "fp8"'):
        assert told in str(raised.value)


def test_what_only_the_learner_cannot_do_is_not_asked_of_a_model_without_one(tmp_path: Path) -> None:
    config = load_config([write_right(tmp_path)])
    set_config(tmp_path / "model", sliding_window=8, quantization_config={"quant_method": "fp8"})
    evaluated = config.model_copy(update={"trainer_gpu_ids": []})
    assert len(examine_model(config, must_be_here=True)[1].problems) == 2
    assert not examine_model(evaluated, must_be_here=True)[1].problems
    set_config(tmp_path / "model", architectures=["GPTNeoXForCausalLM"])
    assert (
        len(examine_model(evaluated, must_be_here=True)[1].problems) == 1
    )  # the engine has LoRA all the same
    assert not examine_model(config, must_be_here=True, purpose="serve")[1].problems


def test_kv_b_proj_on_a_latent_attention_model_is_refused_with_both_ways_out(tmp_path: Path) -> None:
    model = make_model(tmp_path / "latent", latent=True)
    flags = [f"--model.name={model}", '--trainer.model.lora.target_modules=["q_b_proj", "kv_b_proj"]']
    message = complaint(tmp_path, *flags)
    assert "kv_b_proj" in message and "silently ignore" in message
    assert 'drop "kv_b_proj"' in message and 'weight_sync.mode = "merged"' in message


def test_kv_b_proj_is_refused_even_where_the_model_is_not_here(tmp_path: Path) -> None:
    for name in ("zai-org/GLM-4.7-Flash", "deepseek-ai/DeepSeek-V3"):
        folder = tmp_path / name.partition("/")[2]
        folder.mkdir()
        flags = [f"--model.name={name}", '--trainer.model.lora.target_modules=["q_b_proj", "kv_b_proj"]']
        assert "silently ignore" in complaint(folder, *flags)


def test_q_b_proj_and_o_proj_of_a_latent_attention_model_are_accepted(tmp_path: Path) -> None:
    model = make_model(tmp_path / "latent", latent=True)
    flags = [f"--model.name={model}", '--trainer.model.lora.target_modules=["q_b_proj", "o_proj"]']
    config = load_config([write_right(tmp_path)], flags)
    assert preflight(config, for_run=False, machine=MACHINE).facts is not None


def test_heads_that_the_engine_cannot_divide_are_refused(tmp_path: Path) -> None:
    flags = ["--inference_gpu_ids=[0, 4, 5]", "--inference.parallel.tp=3", "--device=auto"]
    assert "the 4 attention heads" in complaint(tmp_path, *flags)


def test_layers_of_multi_token_prediction_do_not_count(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    facts = find_model(str(model))
    assert facts is not None and facts.linear_modules["q_proj"] == [(64, 64)]


def test_a_model_that_is_to_be_fetched_is_a_note_for_a_dry_run_and_refused_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    flag = "--model.name=some-owner/some-model-that-nobody-has"
    config = load_config([write_right(tmp_path / "a")], [flag])
    notes = preflight(config, for_run=False, machine=MACHINE).notes
    assert any("hf download some-owner/some-model" in note for note in notes)
    assert "hf download some-owner/some-model" in complaint(tmp_path, flag, for_run=True)


def test_the_demos_model_is_made_by_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    message = complaint(tmp_path, "--model.name=models/SmolLM2-135M-Instruct")
    assert "python -m rezero_ray.models.smollm2" in message


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda model: (model / "config.json").unlink(), "holds no config.json"),
        (lambda model: (model / "config.json").write_text("{"), "cannot be read"),
        (lambda model: (model / "config.json").write_text("[]"), "not a JSON object"),
        (lambda model: (model / "model.safetensors").write_bytes(b"short"), "damaged"),
        (lambda model: (model / "model.safetensors").write_bytes(b"\xff" * 64), "damaged"),
        (lambda model: (model / "chat_template.jinja").unlink(), "no chat template"),
        (lambda model: (model / "tokenizer.model").unlink(), "no tokenizer"),
        (
            lambda model: (model / "model.safetensors.index.json").write_text(
                json.dumps({"weight_map": {"x": "model-00002-of-00002.safetensors"}})
            ),
            "lacks model-00002-of-00002.safetensors",
        ),
    ],
)
def test_a_damaged_model_is_told_by_file(tmp_path: Path, damage: object, told: str) -> None:
    assert callable(damage)
    config = load_config([write_right(tmp_path)])
    damage(tmp_path / "model")
    with pytest.raises(ConfigError) as raised:
        preflight(config, for_run=False, machine=MACHINE)
    assert told in str(raised.value) and "model.name" in str(raised.value)
