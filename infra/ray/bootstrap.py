"""Joins a Ray cluster as its driver; the run's actors end with this process, all else there goes on."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from infra.cluster import Cluster, connected, described
from infra.ray.address import address_of, answers_without_token, honour_token, knock, open_to_anybody
from infra.ray.table import RayInfraConfig
from rezero_ray.config.infra_table import LAUNCHED
from rezero_ray.errors import RunError


@contextmanager
def start(infra: RayInfraConfig, *, gpus: int) -> Iterator[Cluster]:
    """Connect to the cluster; disconnect at the end of the context.

    Raises:
        RunError: no cluster answers, it does not take our token, it asks nobody for one, or it has fewer than
            `gpus` GPUs.
    """
    where = address_of(
        None if LAUNCHED in os.environ else infra.address
    )  # Ray tells a job where its cluster is
    import ray

    with ExitStack() as stack:
        try:
            knock(where)
            honour_token()
            context = stack.enter_context(connected(address=where))
        except ray.exceptions.AuthenticationError as error:
            raise RunError(
                "cluster",
                f"the cluster at {where} asks for a token. Set RAY_AUTH_TOKEN to its own (`ray get-auth-token` on "
                "its head prints it).",
            ) from error
        except (OSError, ValueError) as error:  # Ray's ConnectionError is one
            raise RunError(
                "cluster",
                f"no Ray cluster answers at {where} ({error}). Start one with `ray start --head`, or name the "
                "`host:port` of its head in infra.address; if it asks for a token, set RAY_AUTH_TOKEN.",
            ) from error
        have = ray.cluster_resources()
        if have.get("GPU", 0) < gpus:
            raise RunError(
                "cluster",
                f"the run names {gpus} GPUs, and the cluster at {where} has {have.get('GPU', 0):.0f}",
            )
        nodes = sum(node["Alive"] for node in ray.nodes())
        cpus, there = have.get("CPU", 0), have.get("GPU", 0)
        found = f"Ray cluster {where}: {nodes} nodes, {cpus:g} CPUs, {there:g} GPUs"
        cluster = described(context, cpus=cpus, gpus=there, found=found)
        if infra.require_token and cluster.dashboard:
            _require_token(cluster.dashboard)
        yield cluster


def _require_token(dashboard: str) -> None:
    """A dashboard that cannot be reached from here is not asked: it listens on the head's loopback only."""
    try:
        open_at = answers_without_token(dashboard)
    except OSError:
        return
    if open_at is not None:
        raise RunError("cluster", open_to_anybody(open_at))
