"""Claims about what a config wants of a place: the arithmetic, by hand."""

import math

import pytest

from rezero_ray.config import Config, load_config
from rezero_ray.place.needs import exchanged_gb, machine_needs
from rezero_ray.preflight.memory import GIB
from rezero_ray.preflight.model_facts import find_model
from tests.record_builders import SMOLLM2
from tests.run.train_process import ROOT

GLM = find_model("zai-org/GLM-4.7-Flash")
LORA = 9_818_112  # parameters of the recipe's adapter


def recipe(*files: str, flags: tuple[str, ...] = ()) -> Config:
    return load_config([ROOT / "configs" / file for file in ("redteam.toml", *files)], flags)


def test_a_checkpoint_is_the_adapter_in_both_precisions_and_two_moments() -> None:
    needs = machine_needs(recipe(), GLM, "cuda", engines=1, ranks=3, writes=True)
    assert needs.checkpoint_gib * GIB == 14 * LORA
    assert needs.disk.gib == pytest.approx(4 * 14 * LORA / GIB)  # keep_last = 3 and the one being written


def test_shared_memory_holds_objects_adapters_and_nccl() -> None:
    flags = ("--infra.object_store_gib", "4", "--orchestrator.max_async_level", "1")
    needs = machine_needs(recipe(flags=flags), GLM, "cuda", engines=1, ranks=3, writes=True)
    assert needs.shm.gib == pytest.approx(4 + 3 * 2 * LORA / GIB + 1.0 + 0.1)
    assert needs.shm.why == "Ray's objects, 3 adapters, NCCL, queues"


def test_on_the_cpu_memory_is_that_of_all_bundles_there() -> None:
    facts = find_model(str(SMOLLM2))
    config = recipe("overlays/cpu.toml", flags=("--model.name", str(SMOLLM2)))
    whole = machine_needs(config, facts, "cpu", engines=1, ranks=3, writes=True).memory
    engine = machine_needs(config, facts, "cpu", engines=1, ranks=0, writes=True).memory
    ranks = machine_needs(config, facts, "cpu", engines=0, ranks=3, writes=True).memory
    assert whole.gib == pytest.approx(engine.gib + ranks.gib)
    assert 0 < whole.floor < whole.gib


def test_gpus_are_wanted_by_number_here_and_by_count_on_a_cluster() -> None:
    assert GLM is not None
    here = machine_needs(recipe(), GLM, "cuda", engines=1, ranks=3, writes=True)
    assert list(here.gpus) == [0, 1, 2, 3]
    assert (here.gpus[0].engine_share, here.gpus[0].learner_gib) == (0.92, 0.0)
    assert here.gpus[1].engine_share == 0.0
    shard = GLM.parameters * 2 / 3 / GIB
    assert shard < here.gpus[1].learner_floor_gib < here.gpus[1].learner_gib
    cluster = recipe(flags=("--infra.kind", "ray", "--device", "cuda"))
    there = machine_needs(cluster, GLM, "cuda", engines=0, ranks=3, writes=False)
    assert (there.gpus, there.gpu_count) == ({}, 3)


def test_zero_3_gathers_the_base_twice_a_micro_batch() -> None:
    assert GLM is not None
    gb, what = exchanged_gb(recipe(), GLM)
    sharded = sum(n for shape in GLM.tensors.values() if (n := math.prod(shape)) >= 1_000_000)
    rounds = math.ceil(128 * 4 * 4096 / (3 * 16384))
    by_hand = 2 * rounds * 2 * sharded * (2 / 3) + 2 * 2 * LORA * (2 / 3)
    assert gb == pytest.approx(by_hand / 1e9)
    assert what.startswith(f"at most {rounds} micro-batches gather")


def test_a_base_that_every_rank_keeps_whole_is_not_gathered() -> None:
    facts = find_model(str(SMOLLM2))
    assert facts is not None
    gb, what = exchanged_gb(recipe("overlays/cpu.toml", flags=("--model.name", str(SMOLLM2))), facts)
    assert gb < 0.05
    assert "gradients" in what
    assert exchanged_gb(recipe(flags=("--trainer_gpu_ids", "[1]")), GLM) == (0.0, "")


def test_what_is_not_known_is_not_wanted() -> None:
    needs = machine_needs(recipe(), None, "cpu", engines=1, ranks=3, writes=True)
    assert (needs.memory.gib, needs.disk.gib, needs.checkpoint_gib) == (0, 0, 0)
