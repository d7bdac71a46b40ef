"""Claims about what is low and what is bad, one thing wrong at a time, and what is said to do about it."""

from typing import Any

import pytest

from rezero_ray.config import Config, load_config
from rezero_ray.place.needs import Needs, machine_needs
from rezero_ray.place.records import Finding, Gpu
from rezero_ray.place.verdicts import judge_machine
from rezero_ray.preflight.model_facts import find_model
from tests.place.figures import H100, HEALTHY, changed
from tests.run.train_process import ROOT

GLM = find_model("zai-org/GLM-4.7-Flash")


def glm(*flags: str) -> Config:
    return load_config([ROOT / "configs/redteam.toml"], flags)


def needs(*flags: str) -> Needs:
    return machine_needs(glm(*flags), GLM, "cuda", engines=1, ranks=3, writes=True)


def not_ok(found: list[Finding]) -> dict[str, tuple[str, str]]:
    return {each.what: (each.verdict, each.remedy) for each in found if each.verdict != "ok"}


def test_the_recipe_on_four_h100_lacks_nothing() -> None:
    found = judge_machine(HEALTHY, needs())
    assert not_ok(found) == {}
    assert {"CPUs", "memory", "shared memory", "disk", "GPUs", "GPU 3", "peer access", "clock"} <= {
        each.what for each in found
    }


def gpus(*free: float, driver: str = "580.95.05") -> list[Gpu]:
    return [Gpu("H100", 79.6, 79.6 - gib, driver) for gib in free]


WRONG: list[tuple[dict[str, Any], str, str, str]] = [
    ({"shm": {"total_gib": 0.06, "free_gib": 0.06}}, "shared memory", "bad", "--shm-size"),
    ({"shm": {"free_gib": 1.3}}, "shared memory", "low", "NCCL_SHM_DISABLE=1"),
    ({"shm": {"error": "No such file or directory"}}, "shared memory", "bad", "tmpfs"),
    ({"shm": {"write_gb_s": 0.05}}, "shared memory", "low", "df /dev/shm"),
    ({"memory": {"available_gib": 3.0}}, "memory", "bad", "end what else runs"),
    ({"memory": {"limit_gib": 8.0, "used_gib": 5.0}}, "memory", "bad", "end what else runs"),
    ({"cpu_quota": 4.0}, "CPUs", "low", "--infra.num_cpus 4"),
    ({"disk": {"error": "Read-only file system", "write_gb_s": None}}, "disk", "bad", "output_dir"),
    ({"disk": {"free_gib": 0.3}}, "disk", "bad", "ckpt.keep_last"),
    ({"disk": {"write_gb_s": 0.004}}, "disk", "low", "local disk"),
    ({"disk": {"flush_ms": 900.0}}, "disk", "low", "metrics.jsonl"),
    ({"tmp": {"free_gib": 20.0}}, "Ray's folder", "low", "RAY_TMPDIR"),
    ({"open_files": 1024}, "open files", "low", "ulimit -Hn"),
    ({"clock_offset_s": -90.0}, "clock", "low", "NTP"),
    ({"disk": {"clock_offset_s": 3600.0}}, "clock", "low", "file server"),
    ({"gpus": [H100] * 2}, "GPUs", "bad", "configs/overlays/local-1gpu.toml"),
    ({"gpus": [], "gpus_error": "no answer within 20 s"}, "GPUs", "bad", "nvidia-smi"),
    ({"gpus": gpus(60.0, 79, 79, 79)}, "GPU 0", "bad", "others hold 19.6 GiB"),
    ({"gpus": gpus(79.2, 79, 25.0, 79)}, "GPU 2", "low", "others hold"),
    ({"gpus": gpus(79.2, 79, 79, 79, driver="570.12")}, "NVIDIA driver", "bad", "r580"),
    ({"locked_memory_gib": 0.06}, "NVIDIA driver", "low", "memlock=-1"),
    (
        {"peers": [[i == j or {i, j} == {0, 1} for j in range(4)] for i in range(4)]},
        "peer access",
        "low",
        "NCCL_P2P_DISABLE=1",
    ),
]


@pytest.mark.parametrize(("change", "what", "verdict", "remedy"), WRONG)
def test_one_thing_wrong_is_told_with_what_to_do(
    change: dict[str, Any], what: str, verdict: str, remedy: str
) -> None:
    found = not_ok(judge_machine(changed(**change), needs()))
    assert found.pop(what)[0] == verdict
    told = not_ok(judge_machine(changed(**change), needs()))[what][1]
    assert remedy in told
    assert {name for name in found if not name.startswith("GPU")} == set()


def test_pairs_without_peer_access_are_named() -> None:
    matrix = [[{i, j} != {1, 3} for j in range(4)] for i in range(4)]
    (found,) = (f for f in judge_machine(changed(peers=matrix), needs()) if f.what == "peer access")
    assert found.value == "5 of 6 pairs; not 1-3"


def test_a_shared_gpu_has_room_for_both() -> None:
    flags = ("--inference_gpu_ids", "[0]", "--trainer_gpu_ids", "[0]")
    both = needs(*flags, "--inference.gpu_memory_utilization", "0.45")
    (found,) = (f for f in judge_machine(changed(gpus=[H100], peers=None), both) if f.what == "GPU 0")
    assert found.verdict == "bad", "half of it is the engine's, and 60 GB of base do not fit into the other"
    assert "35.8 for the engine" in found.needed


def test_a_container_is_held_to_the_memory_that_is_paid_for() -> None:
    """In gVisor /proc/meminfo is the host's, and there is no control group."""
    modal = ("--infra.kind", "modal", "--infra.memory_gib", "3")
    figures = changed(memory={"host_gib": 1007.0, "available_gib": 990.0})
    (found,) = (f for f in judge_machine(figures, needs(*modal)) if f.what == "memory")
    assert found.value == "3 GiB asked for; /proc/meminfo shows the host's 1007"
    assert (found.verdict, found.remedy) == ("bad", "raise infra.memory_gib")


def test_a_machine_that_nothing_is_asked_of_is_only_looked_at() -> None:
    few = changed(gpus=[], peers=None, memory={"available_gib": 0.5}, shm={"free_gib": 0.3})
    assert not_ok(judge_machine(few, Needs())) == {}
