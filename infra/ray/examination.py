"""Whether the cluster that is to be joined answers."""

from infra.ray.address import address_of, knock
from infra.ray.table import RayInfraConfig
from rezero_ray.config.problems import Problem, shown
from rezero_ray.config.schema import Config

SECONDS = 3.0


def examine(config: Config, *, resume: bool) -> list[Problem]:
    infra = config.infra
    assert isinstance(infra, RayInfraConfig)
    address = address_of(infra.address)
    try:
        knock(address, SECONDS)
    except (OSError, ValueError) as error:
        source = "" if infra.address else " (RAY_ADDRESS)"
        what = f"no Ray cluster answers at {address}{source}: {error}"
        remedy = "start one with `ray start --head`, or write the host:port of its head"
        return [Problem("infra.address", what, remedy, shown(infra.address) if infra.address else None)]
    return []
