"""Bootstraps: `ray.init` made right where the process is."""

import importlib
from contextlib import AbstractContextManager
from typing import Protocol, cast

from infra.cluster import Cluster
from rezero_ray.config import Config
from rezero_ray.config.infra_table import InfraTable


class Bootstrap(Protocol):
    """What `infra/<kind>/bootstrap.py` offers."""

    def start(self, infra: InfraTable, *, gpus: int) -> AbstractContextManager[Cluster]:
        """Connect this process to a Ray cluster with `gpus` GPUs; what it started ends with the context.

        Raises:
            RunError: there is no such cluster.
        """
        ...


def start_cluster(config: Config, *, gpus: int) -> AbstractContextManager[Cluster]:
    """The cluster that `[infra] kind` names, for as long as the context lasts."""
    bootstrap = cast(Bootstrap, importlib.import_module(f"infra.{config.infra.kind}.bootstrap"))
    return bootstrap.start(config.infra, gpus=gpus)
