"""`[infra] kind = "local"`."""

from typing import Literal

from pydantic import Field, PositiveInt

from rezero_ray.config.infra_table import InfraTable
from rezero_ray.config.table import PositiveFloat


class LocalInfraConfig(InfraTable):
    """Ray is started on this machine, and ends with the run."""

    kind: Literal["local"] = Field(default="local", description="Where Ray comes from.")
    num_cpus: PositiveInt | None = Field(default=None, description="CPUs Ray may use; all when unset.")
    object_store_gib: PositiveFloat | None = Field(
        default=None, description="Ray object store in GiB; sized to fit shared memory when unset."
    )
    dashboard: bool = Field(default=True, description="Serve the Ray dashboard on the loopback interface.")
