"""`[infra]`: where the Ray cluster comes from. A backend has a table here and a folder in `infra/`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, PositiveInt, Tag

from rezero_ray.config.table import PositiveFloat, Table


class LocalInfraConfig(Table):
    """Ray is started on this machine, and ends with the run."""

    kind: Literal["local"] = Field(default="local", description="Where Ray comes from.")
    num_cpus: PositiveInt | None = Field(default=None, description="CPUs Ray may use; all when unset.")
    object_store_gib: PositiveFloat | None = Field(
        default=None, description="Ray object store in GiB; sized to fit shared memory when unset."
    )
    dashboard: bool = Field(default=True, description="Serve the Ray dashboard on the loopback interface.")


class RayInfraConfig(Table):
    """A Ray cluster that runs already; model and output_dir lie under the same paths on all of its nodes."""

    kind: Literal["ray"] = Field(default="ray", description="Where Ray comes from.")
    address: str | None = Field(
        default=None,
        pattern=r"^[^:/\s]+:[0-9]+$",
        description="`host:port` of its head; RAY_ADDRESS, else the cluster of this machine, when unset.",
    )


def _kind(value: Any) -> Any:
    return value.get("kind", "local") if isinstance(value, Mapping) else getattr(value, "kind", None)


InfraConfig = Annotated[
    Annotated[LocalInfraConfig, Tag("local")] | Annotated[RayInfraConfig, Tag("ray")], Discriminator(_kind)
]
