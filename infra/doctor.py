"""`rezero doctor` where the command runs elsewhere.

A folder of `infra/` whose table `launches()` may have a `doctor.py` with `examine_there(config) -> Answer`: it gets
the place that a run would get, runs `rezero doctor CONFIG --json` there, and gives the place back.
"""

import importlib
import importlib.util
from typing import Any, NamedTuple

from rezero_ray.config import Config, ConfigError, Problem
from rezero_ray.config.problems import shown


class Answer(NamedTuple):
    """What the command printed on each stream, and what the backend measured itself of the Volume that a run writes
    to: the fields of `rezero_ray.place.records.VolumeFigures`."""

    report: str
    errors: str = ""
    volume: dict[str, Any] | None = None


def examine_there(config: Config) -> Answer:
    """
    Raises:
        ConfigError: the backend has no doctor, or refuses the request.
    """
    kind = config.infra.kind
    if importlib.util.find_spec(f"infra.{kind}.doctor") is None:
        what = f'a run with infra.kind = "{kind}" goes elsewhere, and that backend has no doctor'
        remedy = "run `rezero doctor` there"
        raise ConfigError([Problem("infra.kind", what, remedy, shown(kind))])
    answer: Answer = importlib.import_module(f"infra.{kind}.doctor").examine_there(config)
    return answer
