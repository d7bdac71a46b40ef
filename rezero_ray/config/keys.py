"""The keys that exist, read off the schema: for hints in error messages and for docs/configuration.md."""

import difflib
import types
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from rezero_ray.config.layers import TAGGED_TABLES
from rezero_ray.config.problems import KeyPath
from rezero_ray.config.schema import Config

_SIMILAR = 0.6  # difflib's own default; below it, "nearest" names mislead more than they help


def tables_of(annotation: Any) -> list[type[BaseModel]]:
    """The table models in a field's annotation: one, several for a tagged union, none for a plain value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) is Annotated:
        return tables_of(get_args(annotation)[0])
    if get_origin(annotation) in (list, Union, types.UnionType):
        return [table for argument in get_args(annotation) for table in tables_of(argument)]
    return []


def tables_at(path: KeyPath, data: Any) -> list[type[BaseModel]]:
    """The models that describe the table at `path` of the raw `data`; several where its tag names none."""
    tables: list[type[BaseModel]] = [Config]
    for number, key in enumerate(path):
        data = _child(data, key)
        if isinstance(key, int):
            continue
        here = path[: number + 1]
        tables = _members(tables, key)
        if here in TAGGED_TABLES and len(tables) > 1:
            tag = TAGGED_TABLES[here]
            named = data.get(tag) if isinstance(data, Mapping) else None
            wanted = [table for table in tables if table.model_fields[tag].default == named]
            tables = tables[:1] if named is None else wanted or tables  # the default is the first member
    return tables


def description_of(path: KeyPath) -> str:
    """What the schema says about a key; empty for a key that it does not have."""
    return next((field.description or "" for field in _fields(path)), "")


def default_of(path: KeyPath) -> Any:
    """The default of a key; None where it has none."""
    defaults = [field.get_default(call_default_factory=False) for field in _fields(path)]
    return next((default for default in defaults if default is not PydanticUndefined), None)


def _fields(path: KeyPath) -> list[FieldInfo]:
    *table, name = [part for part in path if not isinstance(part, int)] or [""]
    owners = tables_at(tuple(table), {})
    return [owner.model_fields[str(name)] for owner in owners if str(name) in owner.model_fields]


def tags_at(path: KeyPath) -> list[str]:
    """What the tag of a tagged table may be, e.g. the losses for `trainer.loss`; empty for other tables."""
    if path not in TAGGED_TABLES:
        return []
    tables: list[type[BaseModel]] = [Config]
    for key in path:
        tables = _members(tables, str(key))
    return [str(table.model_fields[TAGGED_TABLES[path]].default) for table in tables]


def _members(tables: list[type[BaseModel]], key: str) -> list[type[BaseModel]]:
    fields = [table.model_fields[key] for table in tables if key in table.model_fields]
    return [member for field in fields for member in tables_of(field.annotation)]


def _child(data: Any, key: str | int) -> Any:
    if isinstance(data, Mapping):
        return data.get(key)
    if isinstance(data, list) and isinstance(key, int) and key < len(data):
        return data[key]
    return None


def walk(table: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every dotted key of the schema with its field; array elements have the index `0`."""
    for name, field in table.model_fields.items():
        key = f"{prefix}{name}"
        yield key, field
        inner = f"{key}.0." if get_origin(field.annotation) is list else f"{key}."
        for child in tables_of(field.annotation):
            yield from walk(child, inner)


@cache
def all_keys() -> tuple[str, ...]:
    return tuple(dict.fromkeys(key for key, _ in walk()))


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name that was probably meant, or None when no name is similar."""
    normal = name.lower().replace("-", "_")
    close = difflib.get_close_matches(normal, list(valid), n=1, cutoff=_SIMILAR)
    return close[0] if close else None


def hint_for_unknown(path: KeyPath, siblings: list[str]) -> tuple[str, str | None]:
    """What to write instead of an unknown key -> (sentence, the sibling that was probably meant)."""
    name, parent = str(path[-1]), ".".join(str(part) for part in path[:-1])
    sibling = nearest(name, siblings)
    elsewhere = [
        key for key in all_keys() if key.rpartition(".")[2] == name and key.rpartition(".")[0] != parent
    ]
    hints = []
    if sibling:
        hints.append(f"the nearest valid name is {parent + '.' if parent else ''}{sibling}")
    if elsewhere:
        places = [f"as {key}" if "." in key else "at the top level" for key in elsewhere[:4]]
        hints.append(f"{name} exists {' and '.join(places)}")
    if not hints:
        around = f"in [{parent}]" if parent else "at the top level"
        hints.append(f"valid {around}: {', '.join(siblings)}")
    return "; ".join(hints), sibling
