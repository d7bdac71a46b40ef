"""Joins a Ray cluster as its driver; the run's actors end with this process, all else there goes on."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from infra.cluster import Cluster, connected, described
from infra.ray.table import RayInfraConfig
from rezero_ray.errors import RunError


@contextmanager
def start(infra: RayInfraConfig, *, gpus: int) -> Iterator[Cluster]:
    """Connect to the cluster; disconnect at the end of the context.

    Raises:
        RunError: no cluster answers, or it has fewer than `gpus` GPUs.
    """
    where = address_of(infra)
    with ExitStack() as stack:
        try:
            knock(where)
            context = stack.enter_context(connected(address=where))
        except (OSError, ValueError) as error:  # Ray's ConnectionError is one
            raise RunError(
                "cluster",
                f"no Ray cluster answers at {where} ({error}). Start one with `ray start --head`, or name the "
                "`host:port` of its head in infra.address.",
            ) from error
        import ray

        have = ray.cluster_resources()
        if have.get("GPU", 0) < gpus:
            raise RunError(
                "cluster",
                f"the run names {gpus} GPUs, and the cluster at {where} has {have.get('GPU', 0):.0f}",
            )
        yield described(context, cpus=have.get("CPU", 0), gpus=have.get("GPU", 0))


def address_of(infra: RayInfraConfig) -> str:
    """`host:port` of the head, or `auto`: Ray looks for a cluster on this machine."""
    return infra.address or os.environ.get("RAY_ADDRESS") or "auto"


def knock(address: str, seconds: float = 10.0) -> None:
    """Raises OSError or ValueError where nothing listens: `ray.init` would try for minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=seconds):
        pass
