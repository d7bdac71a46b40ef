"""What a backend can tell to be wrong before anything is started.

A folder of `infra/` that can tell something has an `examination.py` with `examine(config, *, resume)`, which returns
the problems: it looks and asks, starts nothing, and is done in seconds.
"""

import importlib
import importlib.util

from rezero_ray.config.problems import Problem
from rezero_ray.config.schema import Config


def examine(config: Config, *, resume: bool) -> list[Problem]:
    """The problems that the backend of `[infra] kind` finds."""
    name = f"infra.{config.infra.kind}.examination"
    if importlib.util.find_spec(name) is None:
        return []
    return list(importlib.import_module(name).examine(config, resume=resume))
