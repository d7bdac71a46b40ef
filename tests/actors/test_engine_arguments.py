"""Claims about what vLLM and DeepSpeed are told. Keys of GPUs are checked here alone: a run with them needs a GPU."""

from typing import Any

import pytest

from actors.deepspeed_learner import zero_settings
from actors.rollout_engine import engine_arguments
from rezero_ray.models.tiny import make_tiny_llama
from tests.record_builders import SMOLLM2, make_config

GIB = 1024**3


@pytest.mark.parametrize(
    ("key", "argument", "value"),
    [
        ("inference__gpu_memory_utilization", "gpu_memory_utilization", 0.55),
        ("inference__model__enforce_eager", "enforce_eager", True),
        ("inference__model__max_num_seqs", "max_num_seqs", 7),
        ("inference__model__max_num_batched_tokens", "max_num_batched_tokens", 640),
        ("inference__model__max_model_len", "max_model_len", 48),
        ("inference__model__trust_remote_code", "trust_remote_code", True),
        ("inference__parallel__tp", "tensor_parallel_size", 2),
    ],
)
def test_each_key_of_the_engine_is_the_argument_of_vllm(key: str, argument: str, value: Any) -> None:
    plain = engine_arguments(make_config(device="cuda"), "cuda", 0)
    assert plain.get(argument) != value
    assert engine_arguments(make_config(device="cuda", **{key: value}), "cuda", 0)[argument] == value


@pytest.mark.parametrize("gib", [0.1, 0.5, 1.0, 1.5, 3.0])
def test_the_cache_on_the_cpu_has_the_gib_that_the_plan_counts_and_not_whole_ones(
    gib: float, tmp_path: Any
) -> None:
    model = str(make_tiny_llama(tmp_path / "model", tokenizer_from=SMOLLM2))
    config = make_config(model__name=model, inference__cpu_kv_cache_gib=gib)
    assert engine_arguments(config, "cpu", 0)["kv_cache_memory_bytes"] == int(gib * GIB)


@pytest.mark.parametrize(
    ("key", "setting", "value"),
    [
        ("param_persistence_threshold", "stage3_param_persistence_threshold", 77),
        ("prefetch_bucket_size", "stage3_prefetch_bucket_size", 770),
        ("max_live_parameters", "stage3_max_live_parameters", 7700),
    ],
)
def test_each_key_of_zero_is_the_setting_of_deepspeed(key: str, setting: str, value: int) -> None:
    assert zero_settings(make_config())["zero_optimization"][setting] != value
    settings = zero_settings(make_config(**{f"trainer__zero__{key}": value}))
    assert settings["zero_optimization"][setting] == value
