"""What an hour of what `[infra]` asks for costs.

`infra.usd_per_hour` says it for every backend. Where it is unset, a folder of `infra/` that can tell has a `rates.py`
with `rate(table) -> Rate | NoRate`: it may ask the provider, is done in seconds, and says what it took instead where
there was no answer.
"""

import importlib
import importlib.util
from typing import cast

from rezero_ray.config.infra_table import InfraTable
from rezero_ray.cost import NO_RATE, NoRate, Rate, RatePart


def rate_of(infra: InfraTable) -> Rate | NoRate:
    """The rate of what this table asks for, by its owner's word or the backend's."""
    if infra.usd_per_hour is not None:
        return Rate((RatePart("all", infra.usd_per_hour),), "infra.usd_per_hour")
    name = f"infra.{infra.kind}.rates"
    if importlib.util.find_spec(name) is None:
        return NO_RATE
    return cast(Rate | NoRate, importlib.import_module(name).rate(infra))
