"""Ray inside the container, told everything: a container's /proc shows the whole host."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from infra.cluster import Cluster, connected, described
from infra.modal.table import SHM_GIB, ModalInfraConfig
from rezero_ray.errors import RunError

DASHBOARD_PORT = "REZERO_DASHBOARD_PORT"
DASHBOARD_URL = "REZERO_DASHBOARD_URL"
RUN_NAME = "REZERO_RUN"

STORE_BYTES = int(min(8.0, SHM_GIB / 2) * 1024**3)
"""Adapters and rollouts are small; the rest of /dev/shm is for vLLM and NCCL."""


@contextmanager
def start(infra: ModalInfraConfig, *, gpus: int) -> Iterator[Cluster]:
    """Start Ray with the CPUs that are paid for and `gpus` GPUs; shut it down at the end of the context.

    The dashboard listens on the loopback interface, at the end of the tunnel, and asks for the run's token, which
    `infra.modal.container` has put into RAY_AUTH_TOKEN.

    Raises:
        RunError: this is no container of ours.
    """
    if infra.elsewhere():
        raise RunError(
            "cluster", 'infra.kind = "modal" starts Ray in its container only; here: --infra.kind local'
        )
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")
    cpus = int(max(1, infra.cpu))
    with connected(
        address="local",
        num_cpus=cpus,
        num_gpus=gpus,
        object_store_memory=STORE_BYTES,
        include_dashboard=infra.dashboard,
        dashboard_host="127.0.0.1",
        dashboard_port=int(os.environ.get(DASHBOARD_PORT, "8265")),
    ) as context:
        cluster = described(context, cpus=cpus, gpus=gpus)
        name = os.environ.get(RUN_NAME, "NAME")
        yield Cluster(
            cpus=cpus,
            gpus=gpus,
            dashboard=os.environ.get(DASHBOARD_URL, cluster.dashboard) if infra.dashboard else None,
            logs=cluster.logs,
            token_command=f"rezero runs {name}",
        )
