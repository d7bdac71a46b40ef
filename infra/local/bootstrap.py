"""Ray on this machine: started by this process, ended with it, and no other Ray session touched."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.cluster import Cluster, connected, described
from infra.local.table import LocalInfraConfig

GIB = 1024**3
LARGEST_STORE = 8 * GIB
"""Adapters and rollouts are small; a larger object store would only take shared memory from others."""


@contextmanager
def start(infra: LocalInfraConfig, *, gpus: int) -> Iterator[Cluster]:
    """Start Ray with this machine's CPUs and `gpus` GPUs; shut it down at the end of the context.

    The dashboard listens on the loopback interface only. A cluster that `ray.init` starts asks for Ray's token
    (`ray get-auth-token`) unless the user has set RAY_AUTH_MODE otherwise.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own 15 starves the run beside anything else
    cpus = infra.num_cpus or len(os.sched_getaffinity(0))
    with connected(
        address="local",
        num_cpus=cpus,
        num_gpus=gpus,
        object_store_memory=_store_bytes(infra),
        include_dashboard=infra.dashboard,
        dashboard_host="127.0.0.1",
    ) as context:
        yield described(context, cpus=cpus, gpus=gpus)


def _store_bytes(infra: LocalInfraConfig) -> int:
    """As configured, else two fifths of free shared memory, 0.1 to 8 GiB."""
    if infra.object_store_gib is not None:
        return int(infra.object_store_gib * GIB)
    free = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else GIB
    return int(min(LARGEST_STORE, max(0.1 * GIB, 0.4 * free)))
