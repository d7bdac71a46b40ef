"""Configs that differ in chosen keys of the schema: another valid value for each."""

import copy
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from rezero_ray.config import Config
from rezero_ray.config.keys import tables_of, walk

FILLED: dict[str, Any] = {
    "max_steps": 10,
    "seq_len": 64,
    "output_dir": "outputs/run",
    "device": "cpu",
    "model": {"name": "model", "dtype": "float32"},
    "wandb": {"project": "project"},
    "orchestrator": {
        "batch_size": 2,
        "rollouts_per_example": 2,
        "env": [{"id": "first"}, {"id": "second"}],
        "eval": {"interval": 2},
    },
}
"""A config in which every table is there, so that each of its keys can be changed by itself."""


def leaves() -> dict[str, FieldInfo]:
    """Every key of the schema that has a value of its own; of tagged tables those of the default."""
    config, found = Config.model_validate(FILLED), {}
    for key, field in walk():
        if not tables_of(field.annotation) and _reachable(config, key) and another(key) is not None:
            found[key] = field
    return found


def another(key: str) -> Any:
    """A valid value of the key that is not the one it has in `FILLED`; None where there is only one."""
    before = value_at(Config.model_validate(FILLED), key)
    for candidate in _candidates(key, before):
        try:
            after = value_at(changed({key: candidate}), key)
        except ValidationError:
            continue
        if after != before:
            return candidate
    return None


def changed(values: dict[str, Any]) -> Config:
    """`FILLED` with these values, by dotted key."""
    tables = copy.deepcopy(FILLED)
    for key, value in values.items():
        *path, last = [int(part) if part.isdecimal() else part for part in key.split(".")]
        table: Any = tables
        for part in path:
            table = table[part] if isinstance(part, int) else table.setdefault(part, {})
        table[last] = value
    return Config.model_validate(tables)


def value_at(config: Config, key: str) -> Any:
    node: Any = config
    for part in key.split("."):
        node = node[int(part)] if isinstance(node, list) else getattr(node, part)
    return node


def _reachable(config: Config, key: str) -> bool:
    try:
        value_at(config, key)
    except AttributeError:  # of another member of a tagged table
        return False
    return True


def _candidates(key: str, before: Any) -> list[Any]:
    field = dict(walk())[key]
    by_type = {int: [2, 8, 5], float: [0.5, 1.5, 3.0], bool: [True, False], str: ["other", "1.2.3.4"]}
    if key.endswith("_low"):  # below the other end of its range
        by_type[float] = [0.25]
    found: list[Any] = []
    for kind in _kinds(field.annotation):
        if get_origin(kind) is Literal:
            found += get_args(kind)
        found += by_type.get(kind, [])
        if kind is dict or get_origin(kind) is dict:
            found.append({"other": "x"})
        if get_origin(kind) in (list, tuple):
            found += [[0.1, 0.2], [5, 6], ["other"]]
    if isinstance(before, tuple):
        found.append([-3.0, 3.0])
    return found


def _kinds(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, type(int | None)):
        return [kind for part in get_args(annotation) for kind in _kinds(part)]
    return [annotation]
