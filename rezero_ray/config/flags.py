"""`--dotted.key value` and `--dotted.key=value`: the last layer over the files.

A value is read as TOML (`3`, `1e-5`, `true`, `["a", "b"]`), as a JSON object (`{"a": 1}`) or, where that fails, as a
plain string.
`orchestrator.env.0.id` reaches into arrays; one past the end appends. Hyphens in keys stand for underscores.
"""

import argparse
import difflib
import json
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from rezero_ray.config.layers import TAGGED_TABLES, Layer, merge
from rezero_ray.config.problems import KeyPath, Origin, Problem, dotted

COMMAND_FLAGS = ("--dry-run", "--resume", "--force-new", "--help")  # without a value; no keys of the config

_INDEX_DIGITS = 6  # a longer number is no index of anything that a file could hold


@dataclass(frozen=True)
class Override:
    keys: tuple[str, ...]
    raw: str
    flag: str

    @property
    def value(self) -> Any:
        try:
            parsed = tomllib.loads(f"value = {self.raw}")
        except (ValueError, RecursionError):
            return self._object()
        return parsed["value"] if len(parsed) == 1 else self.raw

    def _object(self) -> Any:
        try:
            parsed = json.loads(self.raw) if self.raw.startswith("{") else None
        except (ValueError, RecursionError):
            return self.raw
        return self.raw if parsed is None else parsed


def split_arguments(argv: Sequence[str], own_flags: Collection[str] = ()) -> tuple[list[str], list[str]]:
    """Command-line arguments -> (what the command itself understands, overrides with their values).

    `own_flags` are the command's own that take a value.

    A value may begin with one hyphen (`--seed -1`, to be refused by name) but not with two.
    """
    own: list[str] = []
    overrides: list[str] = []
    rest = list(argv)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--") or argument in COMMAND_FLAGS:
            own.append(argument)
            continue
        where = own if argument.partition("=")[0] in own_flags else overrides
        where.append(argument)
        if "=" not in argument and rest and not rest[0].startswith("--"):
            where.append(rest.pop(0))
    return own, overrides


def parse_overrides(arguments: Sequence[str]) -> tuple[list[Override], list[Problem]]:
    overrides: list[Override] = []
    problems: list[Problem] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, raw = argument.partition("=")
        if not name.startswith("--"):
            problems.append(Problem("", "expected --dotted.key value", origin=Origin(argument)))
            continue
        if not equals:
            if not rest or rest[0].startswith("--"):
                problems.append(_without_value(name))
                continue
            raw = rest.pop(0)
        keys = tuple(name[2:].replace("-", "_").split("."))
        flag = argument if equals else f"{name} {raw}"
        if all(keys):
            overrides.append(Override(keys, raw, flag))
        else:
            problems.append(
                Problem("", "is not a dotted key", "write --table.key value", origin=Origin(flag))
            )
    return overrides, problems


def _without_value(name: str) -> Problem:
    key = name[2:].replace("-", "_")
    close = difflib.get_close_matches(name, COMMAND_FLAGS, n=1)
    remedy = f"write {close[0]}, or {name} VALUE" if close else f"write {name} VALUE"
    return Problem(key, "a value must follow", remedy, origin=Origin(name))


def apply_overrides(layer: Layer, overrides: Sequence[Override]) -> tuple[Layer, list[Problem]]:
    """The layer with all overrides in it. They form one layer: naming `trainer.loss.type` anywhere among them
    starts `trainer.loss` afresh before the other flags are applied."""
    result = merge(Layer(), layer)
    for path, tag in TAGGED_TABLES.items():
        if any(override.keys == (*path, tag) for override in overrides):
            _clear(result, path)
    problems = [problem for override in overrides if (problem := _assign(result, override))]
    return result, problems


def _clear(layer: Layer, path: KeyPath) -> None:
    table: Any = layer.data
    for key in path:
        if not isinstance(table, dict):
            return
        table = table.get(key)
    if isinstance(table, dict):
        table.clear()


def _assign(layer: Layer, override: Override) -> Problem | None:
    node: Any = layer.data
    path: KeyPath = ()
    origin = Origin(override.flag)
    for number, key in enumerate(override.keys):
        last = number == len(override.keys) - 1
        if isinstance(node, list):
            if not key.isdecimal() or len(key) > _INDEX_DIGITS or int(key) > len(node):
                allowed = f"0 to {len(node)}"
                what = f"{dotted(path)} is an array of {len(node)}; {key} is not an index"
                return Problem(dotted((*path, key)), what, f"write an index from {allowed}", origin=origin)
            if int(key) == len(node):
                node.append({})
            step: str | int = int(key)
        elif isinstance(node, dict):
            step = key
            if key not in node and not last:
                node[key] = [] if override.keys[number + 1].isdecimal() else {}
        else:
            what = f"{dotted(path)} holds a value, not a table"
            return Problem(dotted(override.keys), what, f"drop what follows {dotted(path)}", origin=origin)
        path = (*path, step)
        if last:
            _put(layer, node, path, override.value, origin)
        else:
            layer.origins.setdefault(path, origin)
            node = node[step]
    return None


def _put(layer: Layer, node: Any, path: KeyPath, value: Any, origin: Origin) -> None:
    step = path[-1]
    if isinstance(value, dict) and isinstance(node, dict) and isinstance(node.get(step), dict):
        tag = TAGGED_TABLES.get(path)
        node[step] = value if tag in value else merge(Layer(node[step]), Layer(value)).data
    else:
        node[step] = value
    for known in [known for known in layer.origins if known[: len(path)] == path]:
        del layer.origins[known]
    layer.origins[path] = origin


def positive_number(text: str) -> int:
    """For argparse: a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("write a number of at least 1")
    return int(text)
