"""TOML files and flags -> a checked Config, or one ConfigError with everything that is wrong."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rezero_ray.config.cross_check import cross_check
from rezero_ray.config.explain import explain
from rezero_ray.config.flags import Override, apply_overrides, parse_overrides
from rezero_ray.config.layers import Layer, merge, read_layer
from rezero_ray.config.problems import ConfigError, Origin, Problem
from rezero_ray.config.schema import Config


@dataclass(frozen=True)
class Request:
    """A checked config that still knows where each value was written."""

    config: Config
    layer: Layer

    @contextmanager
    def locating(self) -> Iterator[None]:
        """Adds file and line, or the flag, to the problems that are found inside, e.g. by the preflight."""
        try:
            yield
        except ConfigError as error:
            raise ConfigError([_located(problem, self.layer) for problem in error.problems]) from None


def load_config(files: Sequence[Path], overrides: Sequence[str] = ()) -> Config:
    """The run that the files and then the overrides (`--dotted.key value` arguments) describe.

    Raises ConfigError naming every problem that can be told without looking at the model, the environments or
    the machine; see rezero_ray.preflight for those.
    """
    return read_request(files, overrides).config


def read_request(files: Sequence[Path], overrides: Sequence[str] = ()) -> Request:
    """As load_config; what comes back can also say where a later problem was written."""
    layer, problems = _read_all(files)
    flags, flag_problems = parse_overrides(overrides)
    problems += flag_problems
    if problems:
        raise ConfigError(problems)
    layer, problems = apply_overrides(layer, flags)
    config, schema_problems = _validate(layer, flags)
    problems += schema_problems
    checked = config or _without(layer, problems)
    if checked is not None:
        wrong = {key for problem in problems for key in (problem.key, *problem.others)}
        problems += [
            _located(problem, layer)
            for problem in cross_check(checked)
            if wrong.isdisjoint((problem.key, *problem.others))
        ]
    if problems or config is None:
        raise ConfigError(sorted(problems, key=_reading_order))
    return Request(config, layer)


def _read_all(files: Sequence[Path]) -> tuple[Layer, list[Problem]]:
    layer = Layer()
    problems: list[Problem] = []
    for file in files:
        try:
            layer = merge(layer, read_layer(file))
        except ConfigError as error:
            problems.extend(error.problems)
    return layer, problems


def _validate(layer: Layer, flags: Sequence[Override]) -> tuple[Config | None, list[Problem]]:
    try:
        return Config.model_validate(layer.data, strict=True), []
    except ValidationError as error:
        if _take_flags_as_strings(error, layer, flags):
            return _validate(layer, ())
        return None, explain(error, layer)


def _take_flags_as_strings(error: ValidationError, layer: Layer, flags: Sequence[Override]) -> bool:
    """`--output_dir 2026` reads as a TOML integer; where the schema wants a string, take the text itself."""
    wanted = {
        tuple(str(part) for part in detail["loc"])
        for detail in error.errors()
        if detail["type"] == "string_type"
    }
    changed = False
    for flag in flags:
        if flag.keys in wanted and not isinstance(flag.value, dict | list):
            _replace(layer.data, flag.keys, flag.raw)
            changed = True
    return changed


# For required keys that are missing, so that the rest can still be cross-checked; never used in a run.
_STAND_INS = Layer(
    {
        "max_steps": 10**9,
        "output_dir": "-",
        "model": {"name": "-"},
        "orchestrator": {"env": [{"id": "stand-in"}]},
    }
)


def _without(layer: Layer, problems: Sequence[Problem]) -> Config | None:
    """The config with every wrong value left out, so that the others can still be cross-checked."""
    data = copy.deepcopy(layer.data)
    for problem in problems:
        _replace(data, tuple(problem.key.split(".")), None)
    try:
        return Config.model_validate(merge(_STAND_INS, Layer(data)).data, strict=True)
    except ValidationError:
        return None


def _replace(node: Any, keys: tuple[str, ...], value: Any) -> None:
    """Sets the value at dotted `keys`; None deletes it. Nothing where the path leads nowhere."""
    for number, key in enumerate(keys):
        last = number == len(keys) - 1
        if isinstance(node, list) and key.isdecimal() and int(key) < len(node):
            if last:
                node[int(key)] = value
            node = node[int(key)]
        elif isinstance(node, dict) and key in node:
            if last and value is None:
                del node[key]
                return
            if last:
                node[key] = value
            node = node[key]
        else:
            return


def _located(problem: Problem, layer: Layer) -> Problem:
    path = tuple(int(part) if part.isdecimal() else part for part in problem.key.split("."))
    return problem.at(layer.origin(path))


def _reading_order(problem: Problem) -> tuple[str, int]:
    origin = problem.origin or Origin("~")
    return origin.source, origin.line or 0
