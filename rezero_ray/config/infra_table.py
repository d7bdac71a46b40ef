"""What the `[infra]` table of every backend has besides its keys."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from pydantic import Field

from rezero_ray.config.problems import Problem
from rezero_ray.config.table import PositiveFloat, Table

if TYPE_CHECKING:
    from rezero_ray.config.schema import Config


LAUNCHED = "REZERO_LAUNCHED"
"""Set where a launcher has started the command: it is not launched once more."""

PAID_SINCE = "REZERO_PAID_SINCE"
"""Where a launcher knows it: the Unix time since which the machine is paid for. Else that is the process's start."""


class RentedMachine(NamedTuple):
    """What a launcher gets; `gpu_gib` has one entry for each GPU."""

    gpu_gib: tuple[float | None, ...]
    cpus: int
    memory_gib: float
    shm_gib: float
    gpu_name: str | None = None


class InfraTable(Table):
    """A backend's table is the one subclass of this in its `infra/<kind>/table.py`."""

    kind: str
    usd_per_hour: PositiveFloat | None = Field(
        default=None,
        description="Dollars that an hour of it costs, at work or idle. When unset the backend is asked; where it "
        "cannot tell, no cost is told.",
    )

    def priced(self) -> bool:
        """Whether what an hour costs will be known: told here, or by `infra/<kind>/rates.py` even without network."""
        return self.usd_per_hour is not None

    def launches(self) -> bool:
        """Whether the command runs elsewhere: `infra/<kind>/launcher.py` gets the machine and starts it there."""
        return False

    def elsewhere(self) -> bool:
        """Whether that is still to be done: this process is not yet where the command belongs."""
        return self.launches() and LAUNCHED not in os.environ

    def machine(self) -> RentedMachine | None:
        """What `launches` gets, for the preflight; None where that is not known."""
        return None

    def on_this_machine(self) -> bool:
        """Whether the actors share the machine with the command; GPU ids are its GPUs then, else only numbers."""
        return True

    def inference_node(self) -> dict[str, str]:
        """Labels of the nodes that engines go to."""
        return {}

    def trainer_node(self) -> dict[str, str]:
        """Labels of the nodes that learner ranks go to."""
        return {}

    def problems(self, config: "Config") -> Iterator[Problem]:
        """What the backend cannot do of this config. Pure: only the config is looked at."""
        yield from ()
