"""Ray on this machine: started by this process, ended with it, and no other Ray session touched."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from infra.cluster import Cluster, connected, described
from infra.local.table import LocalInfraConfig
from rezero_ray.preflight.machine import GIB, Machine, this_machine

LARGEST_STORE_GIB = 8.0
"""Adapters and rollouts are small; a larger object store would only take shared memory from others."""

SMALLEST_STORE_GIB = 0.1
"""Ray refuses less than 75 MiB."""


@contextmanager
def start(infra: LocalInfraConfig, *, gpus: int) -> Iterator[Cluster]:
    """Start Ray with this machine's CPUs and `gpus` GPUs; shut it down at the end of the context.

    The dashboard listens on the loopback interface only. A cluster that `ray.init` starts asks for Ray's token
    (`ray get-auth-token`) unless the user has set RAY_AUTH_MODE otherwise.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own 15 starves the run beside anything else
    machine = this_machine()
    cpus = infra.num_cpus or machine.cpus
    store = store_gib(infra, machine)
    with connected(
        address="local",
        num_cpus=cpus,
        num_gpus=gpus,
        object_store_memory=int(store * GIB),
        include_dashboard=infra.dashboard,
        dashboard_host="127.0.0.1",
    ) as context:
        yield described(context, cpus=cpus, gpus=gpus, found=statement(machine, cpus, gpus, store))


def store_gib(infra: LocalInfraConfig, machine: Machine) -> float:
    """Of the object store: as configured, else two fifths of free shared memory, 0.1 to 8 GiB."""
    if infra.object_store_gib is not None:
        return infra.object_store_gib
    return min(LARGEST_STORE_GIB, max(SMALLEST_STORE_GIB, 0.4 * machine.shm_gib))


def statement(machine: Machine, cpus: int, gpus: int, store: float) -> str:
    """What this machine has, and what of it Ray takes."""
    return (
        f"this machine: {machine.cpus} CPUs, {machine.memory_gib:.1f} GiB of memory, {_gpus(machine)}, "
        f"{machine.shm_gib:.1f} GiB of shared memory free; "
        f"Ray takes {cpus} CPUs, {gpus} GPUs, {store:.1f} GiB of shared memory for objects"
    )


def _gpus(machine: Machine) -> str:
    known = [f"{gib:.0f}" for gib in machine.gpu_gib if gib is not None]
    sizes = f" ({', '.join(known)} GiB)" if known else ""
    return f"{len(machine.gpu_gib) or 'no'} GPU{'s' if len(machine.gpu_gib) != 1 else ''}{sizes}"
