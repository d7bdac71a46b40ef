"""Findings on what the ranks exchange and reckon, and on a Volume. Pure."""

from rezero_ray.place.needs import SAVE_SECONDS
from rezero_ray.place.records import Compute, Finding, RanksFigures, Verdict, VolumeFigures

SLOW_GB_S = {"nccl": 5.0, "gloo": 0.1}
"""Below it: NCCL over less than half of a PCIe 3 slot (12 GB/s), gloo over Gigabit Ethernet (0.12)."""

UNEVEN = 0.7
"""Of the fastest GPU: one that is slower holds up all others, in every step."""

NCCL_REMEDY = (
    "set one of these before the command and look again (they reach the ranks; on Modal as keys of the Secret): "
    "NCCL_P2P_DISABLE=1 (no GPU reads another's memory), NCCL_SHM_DISABLE=1 (/dev/shm is too small), "
    "NCCL_CUMEM_ENABLE=0 and NCCL_NVLS_ENABLE=0 (containers, gVisor); NCCL_DEBUG=INFO says where it stops"
)
HOSTID_REMEDY = "containers with the same NCCL_HOSTID are taken for one machine: set another on each node"
GLOO_REMEDY = (
    "name the network interface that the nodes share in GLOO_SOCKET_IFNAME, and let its ports through"
)


def judge_ranks(figures: RanksFigures, exchanged_gb: float, what: str, step_seconds: float) -> list[Finding]:
    """
    Args:
        exchanged_gb, what: of `needs.exchanged_gb`.
        step_seconds: how long a step may last.
    """
    found = judge_compute(figures.computes)
    if figures.bus_gb_s is None or figures.latency_us is None:
        return [Finding("all-reduce", "one rank: nothing to exchange"), *found]
    nodes = len(set(figures.hosts))
    seconds = exchanged_gb / figures.bus_gb_s
    value = (
        f"{figures.bus_gb_s:.2f} GB/s over each link, four bytes in {figures.latency_us:,.0f} us "
        f"({len(figures.hosts)} ranks on {nodes} machine{'s' if nodes > 1 else ''}, {figures.backend})"
    )
    needed = f"{what}: {seconds:.2g} s" if what else ""
    verdict: Verdict = "ok"
    if seconds > step_seconds:
        verdict, needed = "bad", f"{needed}, limits.train_step is {step_seconds:,.0f}"
    elif figures.bus_gb_s < SLOW_GB_S[figures.backend]:
        verdict = "low"
    remedy = "ranks on one machine exchange faster than over a network; larger trainer.micro_batch_tokens gather less"
    if figures.backend == "nccl" and nodes == 1:
        remedy = f"is NVLink there (nvidia-smi topo -m)? NCCL_DEBUG=INFO says which way NCCL goes; {remedy}"
    return [Finding("all-reduce", value, needed, verdict, "" if verdict == "ok" else remedy), *found]


def judge_compute(computes: list[Compute]) -> list[Finding]:
    """What each rank reckons while the others do, too."""
    if not computes:
        return []
    speeds = [compute.flop_s for compute in computes]
    slowest, fastest = min(speeds), max(speeds)
    copies = sum(compute.memory_gb_s for compute in computes)
    unit, size = ("TFLOP/s", 1e12) if slowest > 1e12 else ("GFLOP/s", 1e9)
    between = f"{slowest / size:.0f}" + (f" to {fastest / size:.0f}" if fastest > 1.05 * slowest else "")
    value = f"{between} {unit} each in {computes[0].dtype}, {len(speeds)} at a time; "
    value += f"memory {copies:,.0f} GB/s together"
    uneven = computes[0].device == "cuda" and slowest < UNEVEN * fastest
    remedy = (
        f"rank {speeds.index(slowest)}'s GPU is slow: hot, capped or in use? `nvidia-smi -q -d PERFORMANCE`"
    )
    return [Finding("matrix products", value, "", "low" if uneven else "ok", remedy if uneven else "")]


def no_all_reduce(message: str, *, device: str, nodes: int) -> Finding:
    """The ranks failed, or hang: `message` says which and in what."""
    remedy = GLOO_REMEDY
    if device == "cuda":
        remedy = NCCL_REMEDY
        if nodes > 1 or "Duplicate GPU" in message:
            remedy = f"{HOSTID_REMEDY}; {remedy}"
    return Finding("all-reduce", message, "", "bad", remedy)


def judge_volume(figures: VolumeFigures, checkpoint_gib: float) -> Finding:
    """A checkpoint must be written and committed before a container that is taken away ends."""
    what = f"Volume {figures.name}"
    if figures.error:
        return Finding(
            what, figures.error, "", "bad", "nothing that a run writes would be kept: see docs/modal.md"
        )
    seconds = figures.write_s + figures.commit_s
    speed = figures.file_mib / 1024 / seconds
    value = f"{figures.file_mib:.0f} MiB written in {figures.write_s:.1f} s and committed in {figures.commit_s:.1f}"
    takes = checkpoint_gib / speed
    needed = f"a checkpoint of {checkpoint_gib * 1024:.0f} MiB takes {takes:.1f} s" if checkpoint_gib else ""
    slow = takes > SAVE_SECONDS
    remedy = "a container that is taken away loses what it has not committed: lower ckpt.interval"
    return Finding(what, value, needed, "low" if slow else "ok", remedy if slow else "")
