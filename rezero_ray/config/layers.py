"""TOML files and flags laid over each other, left to right, remembering where each value was written.

Tables merge key by key. Arrays, and arrays of tables, replace. A table whose shape depends on a key of its
own (`trainer.loss` on `type`) starts afresh in a file that names that key: no option of another loss lingers.
"""

import copy
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rezero_ray.config.positions import key_positions
from rezero_ray.config.problems import ConfigError, KeyPath, Origin, Problem

_MARK = "\ufeff"

TAGGED_TABLES: dict[KeyPath, str] = {("trainer", "loss"): "type", ("infra",): "kind"}


@dataclass
class Layer:
    """Raw TOML data and the origin of each key path in it."""

    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[KeyPath, Origin] = field(default_factory=dict)

    def origin(self, path: KeyPath) -> Origin | None:
        """Where the key was written, or the nearest table around it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return None


def read_layer(path: Path) -> Layer:
    """One TOML file. Raises ConfigError with file, line and column for whatever keeps it from being read."""
    text = ""
    try:
        text = path.read_bytes().decode("utf-8-sig")  # some editors begin a file with a byte order mark
        data = tomllib.loads(text)
    except FileNotFoundError:
        raise _unreadable(path, "no such file", "name an existing TOML file") from None
    except IsADirectoryError:
        raise _unreadable(path, "is a directory", "name a TOML file in it") from None
    except UnicodeDecodeError as error:
        what = f"not UTF-8 text (byte {error.start}: {error.reason})"
        raise _unreadable(path, what, "save the file as UTF-8") from None
    except OSError as error:
        raise _unreadable(path, f"cannot be read: {error.strerror}", "check its permissions") from None
    except RecursionError:
        raise _unreadable(path, "tables or arrays nested too deep", "") from None
    except ValueError as error:  # tomllib.TOMLDecodeError is one; so are a number too long, a NUL in a path
        raise ConfigError([_syntax_problem(path, str(error), text)]) from None
    origins = {key: Origin(str(path), *place) for key, place in key_positions(text).items()}
    return Layer(data, origins)


def merge(base: Layer, over: Layer) -> Layer:
    """A new layer in which `over` wins."""
    merged = Layer(copy.deepcopy(base.data), dict(base.origins))
    _merge_table(merged, merged.data, over, over.data, ())
    return merged


def _merge_table(
    merged: Layer, into: dict[str, Any], over: Layer, table: dict[str, Any], path: KeyPath
) -> None:
    for key, value in table.items():
        here = (*path, key)
        old = into.get(key)
        starts_afresh = isinstance(value, dict) and TAGGED_TABLES.get(here) in value
        if isinstance(value, dict) and isinstance(old, dict) and not starts_afresh:
            _merge_table(merged, old, over, value, here)
            continue
        for known in [known for known in merged.origins if known[: len(here)] == here]:
            del merged.origins[known]
        into[key] = copy.deepcopy(value)
        merged.origins.update(
            {known: origin for known, origin in over.origins.items() if known[: len(here)] == here}
        )


def _unreadable(path: Path, what: str, remedy: str) -> ConfigError:
    return ConfigError([Problem("", what, remedy, origin=Origin(str(path)))])


def _syntax_problem(path: Path, message: str, text: str) -> Problem:
    place = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    if place is None:
        return Problem("", f"not valid TOML: {message}", origin=Origin(str(path)))
    line, column = int(place[1]), int(place[2])
    what = f"not valid TOML (line {line}, column {column}): {message[: place.start()]}"
    remedy = 'strings need quotes, tables are [name], lists are ["a", "b"]'
    marks = [number for number, written in enumerate(text.splitlines(), start=1) if _MARK in written]
    if line in marks:
        remedy = "remove the byte order mark (U+FEFF) from that line; it may only begin the file"
    return Problem("", what, remedy, origin=Origin(str(path), line, column))
