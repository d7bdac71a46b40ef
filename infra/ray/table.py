"""`[infra] kind = "ray"`."""

from typing import Literal

from pydantic import Field

from rezero_ray.config.infra_table import InfraTable


class RayInfraConfig(InfraTable):
    """A Ray cluster that runs already; model and output_dir lie under the same paths on all of its nodes."""

    kind: Literal["ray"] = Field(default="ray", description="Where Ray comes from.")
    address: str | None = Field(
        default=None,
        pattern=r"^[^:/\s]+:[0-9]+$",
        description="`host:port` of its head; RAY_ADDRESS, else the cluster of this machine, when unset.",
    )
