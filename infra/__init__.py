"""Where the Ray cluster comes from. One folder a backend; each offers `start(...)`, a context of a `Cluster`."""

from collections.abc import Iterator
from contextlib import contextmanager

from infra.cluster import Cluster
from rezero_ray.config.infra import RayInfraConfig
from rezero_ray.config.schema import Config


@contextmanager
def start_cluster(config: Config, *, gpus: int) -> Iterator[Cluster]:
    """Bring up the cluster that `[infra] kind` names, and end it with the context."""
    if isinstance(config.infra, RayInfraConfig):
        from infra.ray import bootstrap as ray

        context = ray.start(config.infra, gpus=gpus)
    else:
        from infra.local import bootstrap as local

        context = local.start(config.infra, gpus=gpus)
    with context as cluster:
        yield cluster


__all__ = ["Cluster", "start_cluster"]
