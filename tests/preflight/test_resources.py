"""What the machine must have, the arithmetic behind it, and the plan that shows it."""

from dataclasses import replace
from pathlib import Path

import pytest

from rezero_ray.config import Config, ConfigError, load_config
from rezero_ray.plan import Plan, make_plan, render_plan
from rezero_ray.preflight import Machine, preflight
from rezero_ray.preflight.memory import (
    GIB,
    adapter_parameters,
    kv_bytes_per_token,
    learner_need,
    state_bytes_per_sequence,
)
from rezero_ray.preflight.model_facts import find_model
from tests.config.run_request import write_right

ROOT = Path(__file__).parents[2]
CPU_ONLY = Machine(gpu_gib=(), cpus=2, memory_gib=16.0, shm_gib=8.0)
FOUR_H100 = Machine(gpu_gib=(79.6,) * 4, cpus=64, memory_gib=512.0, shm_gib=64.0)
GLM = find_model("zai-org/GLM-4.7-Flash")


def glm(*flags: str) -> Config:
    return load_config([ROOT / "configs/redteam.toml"], flags)


def plan_of(config: Config, machine: Machine) -> Plan:
    return make_plan(config, GLM, machine, machine.device(config))


def test_the_adapter_of_the_recipe_has_the_size_that_its_comment_says() -> None:
    assert GLM is not None
    by_hand = 47 * 16 * ((5120 + 768) + (2048 + 5120))
    assert adapter_parameters(glm(), GLM) == by_hand == 9_818_112


def test_the_kv_cache_of_latent_attention_is_one_vector_a_layer() -> None:
    assert GLM is not None
    assert kv_bytes_per_token(glm(), GLM) == 54_144  # 47 layers x (512 + 64) x 2 bytes


def test_a_hybrid_models_cache_is_keys_of_its_attention_layers_and_a_state_for_each_sequence() -> None:
    """Nemotron 3 Nano: 6 layers of 2 KV heads of 128; 23 of 64 heads of 64 x 128 in float32, 3 inputs of 6,144."""
    facts = find_model("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16")
    assert facts is not None
    assert kv_bytes_per_token(glm(), facts) == 6 * 2 * 2 * 128 * 2
    one = 23 * (64 * 64 * 128 * 4 + 3 * 6144 * 2)
    assert state_bytes_per_sequence(glm("--inference.model.enable_prefix_caching=false"), facts) == one
    assert state_bytes_per_sequence(glm(), facts) == 2 * one
    assert GLM is not None and state_bytes_per_sequence(glm(), GLM) == 0


def test_a_cache_whose_shapes_are_not_known_is_unknown() -> None:
    assert GLM is not None
    unknown = replace(GLM, config={**GLM.config, "layer_types": ["linear_attention", "full_attention"]})
    assert kv_bytes_per_token(glm(), unknown) is None


def test_a_learner_rank_needs_what_the_hand_made_budget_says() -> None:
    """33 GB at 16k tokens: shard 20, gathered 2.6, checkpoints 3.2, layer 4, logits 1.2, process 2."""
    assert GLM is not None
    assert learner_need(glm(), GLM, "cuda").bytes == pytest.approx(33e9, rel=0.03)


def test_the_recipe_fits_four_gpus_of_80_gb_and_its_cache_is_as_large_as_its_comment_says() -> None:
    plan = plan_of(glm(), FOUR_H100)
    assert [bundle.role for bundle in plan.bundles] == ["inference", "train", "train", "train"]
    assert all(b.need and b.has_gib and b.need.bytes < b.has_gib * GIB for b in plan.bundles)
    assert plan.kv_tokens == pytest.approx(300_000, rel=0.1)
    assert "TOO SMALL" not in render_plan(plan, glm())


def test_a_shared_gpu_is_divided_between_engine_and_learner() -> None:
    config = glm("--inference_gpu_ids=[0]", "--trainer_gpu_ids=[0]", "--inference.gpu_memory_utilization=0.4")
    shares = [bundle.share for bundle in plan_of(config, FOUR_H100).bundles]
    assert shares == pytest.approx([0.4, 0.6])


def test_a_plan_without_the_model_says_what_it_cannot_know() -> None:
    plan = make_plan(glm(), None, CPU_ONLY, "cuda")
    assert plan.adapter_parameters is None and plan.rollouts_per_step == 512
    assert "unknown, the model is not on this machine" in render_plan(plan, glm())


def test_steps_and_checkpoints_are_counted_with_the_last_one() -> None:
    assert plan_of(glm("--max_steps=11", "--ckpt.interval=5"), FOUR_H100).checkpoints == 3


def refused(tmp_path: Path, machine: Machine, *flags: str) -> str:
    config = load_config([write_right(tmp_path)], flags)
    with pytest.raises(ConfigError) as raised:
        preflight(config, for_run=False, machine=machine)
    return str(raised.value)


def test_gpus_that_the_machine_lacks_are_named(tmp_path: Path) -> None:
    two = Machine(gpu_gib=(80.0, 80.0), cpus=8, memory_gib=64.0, shm_gib=8.0)
    message = refused(tmp_path, two, "--device=cuda")
    assert "trainer_gpu_ids = [1, 2, 3]: this machine has 2 GPUs" in message and "0 to 1" in message


def test_one_gpu_is_to_be_shared(tmp_path: Path) -> None:
    one = Machine(gpu_gib=(80.0,), cpus=8, memory_gib=64.0, shm_gib=8.0)
    assert "configs/overlays/local-1gpu.toml" in refused(tmp_path, one, "--device=auto")


def test_cuda_without_a_gpu_is_refused(tmp_path: Path) -> None:
    assert "no GPU" in refused(tmp_path, CPU_ONLY, "--device=cuda")


def test_memory_that_can_never_suffice_is_refused(tmp_path: Path) -> None:
    small = Machine(gpu_gib=(), cpus=2, memory_gib=0.5, shm_gib=8.0)
    assert "GiB are needed at least; this machine has 0.5" in refused(tmp_path, small)


def test_shared_memory_too_small_for_the_adapters_is_refused(tmp_path: Path) -> None:
    tiny = Machine(gpu_gib=(), cpus=2, memory_gib=16.0, shm_gib=0.06)
    assert "/dev/shm" in refused(tmp_path, tiny)


def test_auto_takes_the_gpu_where_there_is_one() -> None:
    assert FOUR_H100.device(glm()) == "cuda" and CPU_ONLY.device(glm()) == "cpu"
    assert FOUR_H100.device(glm("--device=cpu")) == "cpu"
