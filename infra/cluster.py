"""What every backend hands over."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that this process is connected to."""

    cpus: float
    gpus: float
    dashboard: str | None
    logs: str
