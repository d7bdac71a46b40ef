"""Claims about the findings on what ranks exchange and on a Volume."""

import msgspec

from rezero_ray.place.exchange import judge_ranks, judge_volume, no_all_reduce
from rezero_ray.place.records import Compute, RanksFigures, VolumeFigures

FAST = RanksFigures(
    backend="nccl",
    hosts=["box"] * 3,
    computes=[Compute("cuda", "bfloat16", 7e14, 3000.0)] * 3,
    mib=512,
    bus_gb_s=300.0,
    latency_us=20.0,
)
VOLUME = VolumeFigures("re-zero-checkpoints", 256, 1.0, 3.0)


def test_ranks_that_are_fast_enough() -> None:
    ranks, products = judge_ranks(FAST, 2400.0, "43 micro-batches gather 2,400 GB a step", 3600)
    assert ranks.verdict == products.verdict == "ok"
    assert ranks.needed == "43 micro-batches gather 2,400 GB a step: 8 s"
    assert "3 ranks on 1 machine, nccl" in ranks.value
    assert products.value.startswith("700 TFLOP/s each in bfloat16, 3 at a time")


def test_a_step_that_cannot_end_in_time_is_bad() -> None:
    found = judge_ranks(msgspec.structs.replace(FAST, bus_gb_s=0.5), 2400.0, "2,400 GB a step", 3600)[0]
    assert found.verdict == "bad"
    assert "limits.train_step is 3,600" in found.needed


def test_gpus_that_exchange_through_something_slow_are_low() -> None:
    found = judge_ranks(msgspec.structs.replace(FAST, bus_gb_s=2.0), 0.0, "", 3600)[0]
    assert found.verdict == "low"
    assert "nvidia-smi topo -m" in found.remedy
    gloo = msgspec.structs.replace(FAST, backend="gloo", bus_gb_s=0.7)
    assert judge_ranks(gloo, 0.0, "", 3600)[0].verdict == "ok"


def test_one_slow_gpu_is_named() -> None:
    slow = [*FAST.computes[:2], msgspec.structs.replace(FAST.computes[0], flop_s=3e14)]
    products = judge_ranks(msgspec.structs.replace(FAST, computes=slow), 0.0, "", 3600)[1]
    assert products.verdict == "low"
    assert products.remedy.startswith("rank 2's GPU is slow")


def test_a_lone_rank_exchanges_nothing() -> None:
    alone = msgspec.structs.replace(FAST, hosts=["box"], bus_gb_s=None, latency_us=None)
    assert judge_ranks(alone, 0.0, "", 3600)[0].value == "one rank: nothing to exchange"


def test_a_hang_is_told_with_the_settings_that_end_it() -> None:
    message = "waited 60 s for 3 ranks to sum four bytes; no answer"
    one = no_all_reduce(message, device="cuda", nodes=1)
    assert (one.verdict, one.value) == ("bad", message)
    for setting in ("NCCL_P2P_DISABLE=1", "NCCL_SHM_DISABLE=1", "NCCL_CUMEM_ENABLE=0", "NCCL_DEBUG=INFO"):
        assert setting in one.remedy
    assert "NCCL_HOSTID" not in one.remedy
    assert "NCCL_HOSTID" in no_all_reduce(message, device="cuda", nodes=2).remedy
    assert "NCCL_HOSTID" in no_all_reduce("Duplicate GPU detected", device="cuda", nodes=1).remedy
    assert "GLOO_SOCKET_IFNAME" in no_all_reduce(message, device="cpu", nodes=2).remedy


def test_a_volume_must_take_a_checkpoint_before_a_container_is_gone() -> None:
    found = judge_volume(VOLUME, 0.13)
    assert found.verdict == "ok"
    assert found.value == "256 MiB written in 1.0 s and committed in 3.0"
    assert found.needed == "a checkpoint of 133 MiB takes 2.1 s"
    assert judge_volume(msgspec.structs.replace(VOLUME, commit_s=60.0), 0.13).verdict == "low"
    assert judge_volume(msgspec.structs.replace(VOLUME, error="Volume is gone"), 0.13).verdict == "bad"
