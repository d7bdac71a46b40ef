"""Models that vLLM, its LoRA or Transformers cannot run are refused from their files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rezero_ray.config.schema import Config
from rezero_ray.preflight.architecture import Architecture
from rezero_ray.preflight.engine_architectures import VLLM
from rezero_ray.preflight.engine_limits import engine_limits
from rezero_ray.preflight.limit import Limit
from rezero_ray.preflight.model_facts import find_model
from rezero_ray.preflight.quantisation import quantised
from tests.config.run_request import make_model, write_weights
from tests.record_builders import make_config

OWN_CODE = {"auto_map": {"AutoModelForCausalLM": "modeling_x.X"}}


def everything(model: Architecture, config: Config) -> list[Limit]:
    return [*engine_limits(model, config), *quantised(model, config)]


def limits(folder: Path, config: Mapping[str, Any], **changes: Any) -> list[str]:
    model = make_model(folder / "model")
    written = json.loads((model / "config.json").read_text()) | config
    written = {key: value for key, value in written.items() if value is not None}
    (model / "config.json").write_text(json.dumps(written))
    facts = find_model(str(model))
    assert facts is not None
    found = everything(Architecture(facts), make_config(**changes))
    return [f"{limit.what} | {limit.remedy}" for limit in found]


def of(model_type: str, architecture: str) -> dict[str, Any]:
    return {"model_type": model_type, "architectures": [architecture]}


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (of("gpt_neox", "GPTNeoXForCausalLM"), f'GPTNeoXForCausalLM"], for which vLLM {VLLM} has no LoRA'),
        (of("gpt2", "GPT2LMHeadModel"), "has no LoRA"),
        (of("mamba", "MambaForCausalLM"), "has no LoRA"),
        (of("stablelm", "StableLmForCausalLM"), "has no LoRA"),
        (of("qwen3_5_text", "Qwen3_5ForCausalLM"), "torchvision"),
        (of("helium", "HeliumForCausalLM"), "does not list among its text models"),
        (of("llama", "LlamaForSequenceClassification"), "not a model that writes text"),
        (of("llama", "LlamaModel"), "not a model that writes text"),
        (of("bert", "BertForMaskedLM"), "not a model that writes text"),
        (of("t5", "T5ForConditionalGeneration"), "encoder-decoders"),
        (of("bart", "BartForConditionalGeneration"), "encoder-decoders"),
        (of("whisper", "WhisperForConditionalGeneration"), "encoder-decoders"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder = true"),
        (
            of("gemma3", "Gemma3ForConditionalGeneration") | {"vision_config": {"hidden_size": 8}},
            "config.json has vision_config",
        ),
        (
            of("qwen2_audio", "Qwen2AudioForConditionalGeneration") | {"audio_config": {"d_model": 8}},
            "config.json has audio_config",
        ),
        (
            of("qwen2_vl", "Qwen2VLForConditionalGeneration") | {"vision_config": {"depth": 2}},
            "vision_config",
        ),
        (of("clip", "CLIPModel"), "not a model that writes text"),
        (
            of("of_tomorrow", "TomorrowForCausalLM"),
            'model_type = "of_tomorrow", which the installed Transformers',
        ),
        (of("qwen33", "Qwen3ForCausalLM"), 'the nearest that it knows is "qwen3"'),
        (of("of_tomorrow", "LlamaForCausalLM") | OWN_CODE, "set trainer.model.trust_remote_code and"),
        ({"model_type": None}, "config.json has no model_type"),
        ({"architectures": None}, 'add "architectures": ["LlamaForCausalLM"]'),
        ({"architectures": []}, 'add "architectures": ["LlamaForCausalLM"]'),
        ({"quantization_config": {"quant_method": "fp8"}}, 'quantization_config (quant_method = "fp8")'),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "bitsandbytes"),
        ({"quantization_config": {"quant_method": "mxfp4"}}, "mxfp4"),
        ({"quantization_config": {"bits": 4}}, "quantization_config (set)"),
        (
            {"text_config": {"quantization_config": {"quant_method": "awq"}}},
            "text_config.quantization_config",
        ),
        ({"compression_config": {"format": "pack-quantized"}}, "compression_config"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_cannot_be_served_is_named_with_key_and_value(
    tmp_path: Path, config: Mapping[str, Any], named: str
) -> None:
    found = limits(tmp_path, config)
    assert any(named in what for what in found), found


@pytest.mark.parametrize(
    "config",
    [
        {},
        of("qwen3_moe", "Qwen3MoeForCausalLM"),
        of("olmo2", "Olmo2ForCausalLM"),
        of("llama", "LLaMAForCausalLM"),
        of("nemotron_h", "NemotronHForCausalLM") | OWN_CODE,
        {"quantization_config": {}, "compression_config": {}},
        {"is_encoder_decoder": False},
    ],
)
def test_what_can_be_served_is_not_refused(tmp_path: Path, config: Mapping[str, Any]) -> None:
    assert limits(tmp_path, config) == []


def test_the_models_own_code_is_accepted_where_both_sides_may_run_it(tmp_path: Path) -> None:
    config = of("internlm2", "InternLM2ForCausalLM") | OWN_CODE
    changes = {"trainer__model": {"trust_remote_code": True}}
    assert limits(tmp_path / "one", config, **changes)
    assert not limits(tmp_path / "two", config, **changes, inference__model={"trust_remote_code": True})


@pytest.mark.parametrize("file", ["hf_quant_config.json", "quantize_config.json"])
def test_a_quantised_checkpoint_is_told_by_its_other_files(tmp_path: Path, file: str) -> None:
    make_model(tmp_path / "model")
    (tmp_path / "model" / file).write_text("{}")
    facts = find_model(str(tmp_path / "model"))
    assert facts is not None
    (limit,) = everything(Architecture(facts), make_config())
    assert file in limit.what


@pytest.mark.parametrize("dtype", ["F8_E4M3", "U8", "I8"])
def test_a_quantised_checkpoint_is_told_by_its_tensors(tmp_path: Path, dtype: str) -> None:
    model = make_model(tmp_path / "model")
    name = "model.layers.0.self_attn.q_proj.weight"
    write_weights(model / "extra.safetensors", {name: (64, 64)}, dtype=dtype, itemsize=1)
    (model / "model.safetensors").unlink()
    facts = find_model(str(model))
    assert facts is not None
    (limit,) = everything(Architecture(facts), make_config())
    assert name in limit.what and dtype in limit.what
