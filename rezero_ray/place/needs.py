"""What a config wants of the machines that its bundles go to, and of the network between its ranks. Pure arithmetic
over `rezero_ray.preflight.memory`; every figure comes with the words that explain it."""

import math

import msgspec

from rezero_ray.config import Config
from rezero_ray.preflight.machine import Device
from rezero_ray.preflight.memory import (
    GIB,
    adapter_bytes,
    engine_need,
    learner_need,
)
from rezero_ray.preflight.model_facts import ModelFacts
from rezero_ray.preflight.run_directory import checkpoint_bytes, checkpoints_bytes

SAVE_SECONDS = 25.0
"""A container that is taken away has half a minute to save in (docs/modal.md)."""

HOST_PROCESS_GIB = 1.0
"""Of a process that computes on a GPU: torch with its libraries, imported."""

NCCL_SHM_GIB = 1.0
"""NVIDIA's own advice for containers that run NCCL: docker run --shm-size=1g."""

ENGINE_SHM_GIB = 0.1  # queues of the engine's and Ray's own processes, Ray's smallest object store
GATHERS = 2  # of the whole base in a micro-batch: one forward, one with the recomputation backward


class Want(msgspec.Struct, frozen=True):
    """An amount and what it is for; `floor` of it cannot be argued with."""

    gib: float = 0.0
    why: str = ""
    floor: float = 0.0


class GpuWant(msgspec.Struct, frozen=True):
    """Of one GPU: the share that an engine reserves, and what a learner rank takes."""

    engine_share: float = 0.0
    learner_gib: float = 0.0
    learner_floor_gib: float = 0.0


class Needs(msgspec.Struct, frozen=True):
    """Of one machine. `gpus` by their number there; `gpu_count` where the numbers are not known beforehand."""

    memory: Want = Want()
    shm: Want = Want()
    disk: Want = Want()
    checkpoint_gib: float = 0.0
    gpu_count: int = 0
    gpus: dict[int, GpuWant] = {}
    paid_gib: float | None = None  # of memory, where a machine is rented


def machine_needs(
    config: Config, facts: ModelFacts | None, device: Device, *, engines: int, ranks: int, writes: bool
) -> Needs:
    """Of a machine with so many engine replicas and learner ranks; `writes`: output_dir lies there."""
    rented = config.infra.machine()
    if facts is not None and not facts.tensors:
        facts = None
    store = getattr(config.infra, "object_store_gib", None) or 0.0
    tp = config.inference.parallel.tp
    return Needs(
        memory=_memory(config, facts, device, engines, ranks),
        shm=_shared_memory(config, facts, device, ranks, store),
        disk=Want(
            checkpoints_bytes(config, facts) / GIB, f"{config.ckpt.keep_last} checkpoints and one more"
        ),
        checkpoint_gib=checkpoint_bytes(config, facts) / GIB if facts and writes else 0.0,
        gpu_count=engines * tp + ranks if device == "cuda" else 0,
        gpus=_gpus(config, facts) if device == "cuda" and config.infra.on_this_machine() else {},
        paid_gib=rented.memory_gib if rented else None,
    )


def _memory(config: Config, facts: ModelFacts | None, device: Device, engines: int, ranks: int) -> Want:
    """Of the host. With GPUs the processes alone: what they compute with lies on the GPUs."""
    if device == "cuda":
        count = engines + ranks
        return Want(count * HOST_PROCESS_GIB, f"{count} processes")
    if facts is None:
        return Want()
    engine, learner = engine_need(config, facts, device), learner_need(config, facts, device)
    return Want(
        (engines * engine.bytes + ranks * learner.bytes) / GIB,
        f"{engines} x {engine.bytes / GIB:.1f} + {ranks} x {learner.bytes / GIB:.1f} GiB",
        (engines * engine.floor_bytes + ranks * learner.floor_bytes) / GIB,
    )


def _shared_memory(
    config: Config, facts: ModelFacts | None, device: Device, ranks: int, store: float
) -> Want:
    """Ray's objects, the versions of the adapter that are alive, and NCCL where GPUs do not reach each other."""
    versions = config.orchestrator.max_async_level + 2
    parts = {
        "Ray's objects": store,
        f"{versions} adapters": versions * adapter_bytes(config, facts) / GIB if facts else 0.0,
        "NCCL": NCCL_SHM_GIB if device == "cuda" and ranks > 1 else 0.0,
        "queues": ENGINE_SHM_GIB,
    }
    return Want(sum(parts.values()), ", ".join(what for what, gib in parts.items() if gib))


def _gpus(config: Config, facts: ModelFacts | None) -> dict[int, GpuWant]:
    learner = learner_need(config, facts, "cuda") if facts else None
    found = {}
    for gpu in sorted({*config.inference_gpu_ids, *config.trainer_gpu_ids}):
        trains = learner is not None and gpu in config.trainer_gpu_ids
        found[gpu] = GpuWant(
            config.inference.gpu_memory_utilization if gpu in config.inference_gpu_ids else 0.0,
            learner.bytes / GIB if learner and trains else 0.0,
            learner.floor_bytes / GIB if learner and trains else 0.0,
        )
    return found


def exchanged_gb(config: Config, facts: ModelFacts | None) -> tuple[float, str]:
    """GB that each link carries in a step, and what they are; (0, "") where the model is not known.

    ZeRO-3 gathers what is not kept whole for every micro-batch, (n - 1) / n of it from other ranks; the adapter's
    gradients are summed once.
    """
    ranks = len(config.trainer_gpu_ids)
    if facts is None or not facts.tensors or ranks < 2:
        return 0.0, ""
    width, kept = (
        2 if config.model.dtype == "bfloat16" else 4,
        config.trainer.zero.param_persistence_threshold,
    )
    sharded = sum(size for shape in facts.tensors.values() if (size := math.prod(shape)) >= kept)
    orchestrator = config.orchestrator
    tokens = orchestrator.batch_size * orchestrator.rollouts_per_example * config.seq_len
    rounds = -(-tokens // (ranks * max(config.trainer.micro_batch_tokens or 0, config.seq_len)))
    gathered = GATHERS * rounds * sharded * width * (ranks - 1) / ranks / 1e9
    gradients = 2 * adapter_bytes(config, facts) * (ranks - 1) / ranks / 1e9
    if not sharded:
        return gradients, f"{gradients:.3f} GB of gradients a step"
    return gathered + gradients, f"at most {rounds} micro-batches gather {gathered:,.0f} GB a step"
