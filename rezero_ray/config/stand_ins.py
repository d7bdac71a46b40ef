"""A config to look further with where a request is wrong: the wrong values are left out, what is required and missing
has a stand-in. Never for a run."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from rezero_ray.config.cross_check import cross_check
from rezero_ray.config.home import expand_home
from rezero_ray.config.layers import Layer, merge
from rezero_ray.config.problems import KeyPath, Problem, dotted, path_of
from rezero_ray.config.schema import Config

_NO_ENVIRONMENT = "stand-in"
STAND_INS: Mapping[str, Any] = {
    "max_steps": 10**9,
    "output_dir": "-",
    "model": {"name": "-"},
    "orchestrator": {"env": [{"id": _NO_ENVIRONMENT}]},
}


def without(data: Mapping[str, Any], problems: Sequence[Problem]) -> Config | None:
    """The config of raw data without the values that have a problem; None where that is not one either."""
    left = copy.deepcopy(dict(data))
    for problem in problems:
        replace_at(left, path_of(problem.key), None)
    return _completed(left)


def accepted(data: Mapping[str, Any], path: KeyPath, value: Any, wrong: Sequence[KeyPath]) -> bool:
    """Whether a key may have the value, by itself and beside the rest of the raw data.

    `wrong`: the keys with a problem, which are left out.
    """
    left = copy.deepcopy(dict(data))
    for other in wrong:
        if other != path:
            replace_at(left, other, None)
    replace_at(left, path, value)
    config = _completed(left)
    return config is not None and all(problem.key != dotted(path) for problem in cross_check(config))


def _completed(data: dict[str, Any]) -> Config | None:
    whole = merge(Layer(copy.deepcopy(dict(STAND_INS))), Layer(data)).data
    orchestrator = whole["orchestrator"]
    if isinstance(orchestrator, dict) and isinstance(orchestrator.get("env"), list):
        orchestrator["env"] = [
            {"id": _NO_ENVIRONMENT} | (environment if isinstance(environment, dict) else {})
            for environment in orchestrator["env"]
        ]
    try:
        return expand_home(Config.model_validate(whole, strict=True))
    except ValidationError:
        return None


def replace_at(node: Any, path: KeyPath, value: Any) -> None:
    """Sets the value at `path`; None deletes it. Nothing where the path leads nowhere."""
    for number, key in enumerate(path):
        last = number == len(path) - 1
        if isinstance(node, list) and isinstance(key, int) and key < len(node):
            if last:
                node[key] = value
            node = node[key]
        elif isinstance(node, dict) and (key in node or str(key) in node):
            name = key if key in node else str(key)
            if last and value is None:
                del node[name]
                return
            if last:
                node[name] = value
            node = node[name]
        else:
            return
