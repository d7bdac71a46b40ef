"""`~` in the paths of a config: expanded once, when the config is loaded."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from rezero_ray.config.schema import Config
from rezero_ray.config.table import PATH, Table

AnyTable = TypeVar("AnyTable", bound=Table)

_PATH = re.compile(r"(?P<scheme>sqlite:///|file://|file:)?(?P<path>~.*)", re.DOTALL)


def expand_home(config: Config) -> Config:
    """The config with `~` and `~user` expanded in every path of it.

    Unchanged where the run takes place elsewhere: home is another directory there.
    """
    return config if config.infra.elsewhere() else _expanded(config)


def unexpanded(table: Table, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The dotted keys of paths that still begin with `~`, and their values."""
    for name, field in type(table).model_fields.items():
        value = getattr(table, name)
        for key, child in _children(f"{prefix}{name}", value):
            yield from unexpanded(child, f"{key}.")
        if PATH in field.metadata and isinstance(value, str) and _PATH.fullmatch(value):
            yield f"{prefix}{name}", value


def _children(key: str, value: object) -> Iterator[tuple[str, Table]]:
    if isinstance(value, Table):
        yield key, value
    elif isinstance(value, list):
        yield from ((f"{key}.{index}", item) for index, item in enumerate(value) if isinstance(item, Table))


def _expanded(table: AnyTable) -> AnyTable:
    changes: dict[str, object] = {}
    for name, field in type(table).model_fields.items():
        value = getattr(table, name)
        if PATH in field.metadata and isinstance(value, str):
            new: object = _expanded_path(value)
        elif isinstance(value, Table):
            new = _expanded(value)
        elif isinstance(value, list):
            new = [_expanded(item) if isinstance(item, Table) else item for item in value]
        else:
            continue
        if new != value:
            changes[name] = new
    return table.model_copy(update=changes) if changes else table


def _expanded_path(path: str) -> str:
    """Paths, and the URIs of stores in files. Others, such as `https://host/~user`, stay as they are."""
    found = _PATH.fullmatch(path)
    if found is None:
        return path
    try:
        return (found["scheme"] or "") + str(Path(found["path"]).expanduser())
    except RuntimeError:  # no such user; `unexpanded` finds it
        return path
