"""Joins a Ray cluster as its driver; the run's actors end with this process, all else there goes on."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from infra.cluster import Cluster, connected, described
from infra.ray.address import (
    address_of,
    answers_without_token,
    honour_token,
    hosts_of,
    knock,
    open_to_anybody,
)
from infra.ray.table import RayInfraConfig
from rezero_ray.config.infra_table import LAUNCHED
from rezero_ray.errors import RunError
from rezero_ray.host.proxies import LOOPBACK, bypass_proxies

HEAD = "node:__internal_head__"
"""The resource by which Ray marks the head."""

HEAD_SECONDS = 60.0


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
        bypass_proxies(*hosts_of(where))
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
    """A dashboard on the loopback interface of another node, the head, is asked there, by a task.

    Raises:
        RunError: it must be taken for open.
    """
    head = _head_elsewhere() if set(hosts_of(dashboard)) <= set(LOOPBACK) else None
    found = answers_without_token(dashboard) if head is None else asked_on(head, dashboard)
    if found is not None:
        raise RunError("cluster", open_to_anybody(found))


def _head_elsewhere() -> str | None:
    """Id of the head, where this process is on another node."""
    import ray

    heads = [node["NodeID"] for node in ray.nodes() if node["Alive"] and HEAD in node["Resources"]]
    return heads[0] if heads and heads[0] != ray.get_runtime_context().get_node_id() else None


def asked_on(node: str, dashboard: str) -> str | None:
    """As `answers_without_token`, from that node; where it does not say, the dashboard counts as open."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0, max_retries=0)(answers_without_token).options(
        scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
    )
    try:
        found: str | None = ray.get(ask.remote(dashboard), timeout=HEAD_SECONDS)
    except ray.exceptions.RayError as error:
        return f"{dashboard} could not be asked on the head of the cluster whether it wants a token ({error})"
    return found
