"""What the learner ranks can exchange: processes in their seats, joined as the learner's are, that sum tensors.

Failure semantics: every wait is bounded, and the ranks end with the measurement, whether they answer or hang.
"""

import os
import statistics
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
import ray
from ray.util.placement_group import PlacementGroup

from actors.placement import Seating, seat
from actors.rendezvous import join, open_store
from actors.waiting import wait_all
from rezero_ray.place.compute import measure_compute
from rezero_ray.place.records import Compute, RanksFigures

MIB = {"cpu": 32, "cuda": 512}
"""Of the large tensor: ZeRO-3 exchanges buckets of about a GB, and on the CPU gloo's speed is the same from here."""

SECONDS = 1.0  # of the large sums
SMALL_SUMS = 50
BACKENDS = {"cpu": "gloo", "cuda": "nccl"}  # as in DeepSpeedLearner


class Waits(msgspec.Struct, frozen=True):
    """Seconds: for a rank's start, which imports torch, perhaps off a cold disk; and for each exchange."""

    start: float = 180.0
    exchange: float = 60.0


DEFAULT_WAITS = Waits()


class AllReduceRank:
    """One rank. Every public method but `address` and `compute` is collective."""

    def __init__(self, rank: int, world_size: int, device: str) -> None:
        self._rank, self._world_size, self._device = rank, world_size, device

    def address(self) -> tuple[str, int]:
        """Where the ranks meet: a store that this one keeps open."""
        host = ray.util.get_node_ip_address()
        self._store = open_store(host)
        return host, self._store.port

    def join(self, master_address: str, master_port: int, seconds: float) -> str:
        """Join the process group, whose own waits end after `seconds`. Returns the name of this machine."""
        own = ray.util.get_node_ip_address()
        join(master_address, master_port, rank=self._rank, world_size=self._world_size, own=own)
        import platform

        import torch

        if self._device == "cuda":
            torch.cuda.set_device(0)
        torch.distributed.init_process_group(BACKENDS[self._device], timeout=timedelta(seconds=seconds))
        return platform.node()

    def compute(self, dtype: str) -> Compute:
        return measure_compute(self._device, dtype)

    def variables(self) -> dict[str, str]:
        """The settings of NCCL and gloo that this process has."""
        return {name: value for name, value in os.environ.items() if name.startswith(("NCCL_", "GLOO_"))}

    def latency_s(self) -> float:
        """Of the sum of four bytes; the median."""
        import torch

        one = torch.ones(1, device=self._device)
        return statistics.median(self._sum_seconds(one) for _ in range(SMALL_SUMS))

    def large_s(self, mib: int) -> float:
        """Of the sum of `mib` in fp32; the median of as many as SECONDS allow.

        Raises:
            ValueError: the sum is wrong.
        """
        import torch

        tensor = torch.full((mib * 2**18,), float(self._rank + 1), device=self._device)
        first = self._sum_seconds(tensor)
        wanted = self._world_size * (self._world_size + 1) / 2
        if not bool((tensor == wanted).all()):
            raise ValueError(f"the sum over the ranks is wrong: {tensor[tensor != wanted][0]} for {wanted}")
        tensor.zero_()
        count = torch.tensor(float(min(20, max(3, int(SECONDS / first)))), device=self._device)
        torch.distributed.broadcast(count, 0)  # all ranks take as many
        return statistics.median(self._sum_seconds(tensor) for _ in range(int(count.item())))

    def _sum_seconds(self, tensor: Any) -> float:
        import torch

        began = time.perf_counter()
        torch.distributed.all_reduce(tensor)
        if self._device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began


def measure_ranks(
    plan: Seating,
    group: PlacementGroup,
    *,
    device: str,
    dtype: str,
    waits: Waits = DEFAULT_WAITS,
    rank_class: type[AllReduceRank] = AllReduceRank,
) -> RanksFigures:
    """Start a rank in each of the learner's seats and let them sum and reckon.

    Raises:
        RunError: of kind `learner`, where a rank fails, dies or does not answer; the message says in what.
    """
    count = len(plan.ranks)
    actor = ray.remote(max_restarts=0)(rank_class)
    ranks = [seat(actor, group, where).remote(i, count, device) for i, where in enumerate(plan.ranks)]
    try:
        return _measured(ranks, device, dtype, waits)
    finally:
        for rank in ranks:
            ray.kill(rank)


def _measured(ranks: Sequence[Any], device: str, dtype: str, waits: Waits) -> RanksFigures:
    count, mib = len(ranks), MIB[device]

    def all_of(method: str, *arguments: Any, seconds: float = waits.exchange) -> list[Any]:
        answers = [getattr(rank, method).remote(*arguments) for rank in ranks]
        return wait_all(answers, seconds, f"{count} ranks {_WORDS[method]}", kind="learner")

    address = wait_all([ranks[0].address.remote()], waits.start, "rank 0 to start", kind="learner")[0]
    in_group = (
        waits.start + 2 * waits.exchange
    )  # what hangs is told from here, before the ranks give up themselves
    hosts = all_of("join", *address, in_group, seconds=waits.start)
    bus = latency = None
    if count > 1:
        latency = 1e6 * max(all_of("latency_s"))
        bus = 2 * (count - 1) / count * mib * 2**20 / max(all_of("large_s", mib)) / 1e9
    return RanksFigures(
        backend=BACKENDS[device],
        hosts=hosts,
        computes=all_of("compute", dtype),
        mib=mib if count > 1 else 0,
        bus_gb_s=bus,
        latency_us=latency,
        variables=all_of("variables")[0],
    )


_WORDS = {
    "join": "to join the process group",
    "latency_s": "to sum four bytes",
    "large_s": "to sum a large tensor",
    "compute": "to multiply matrices",
    "variables": "to tell their settings",
}
