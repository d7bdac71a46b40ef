"""pydantic's complaints about raw TOML data, said in the terms of the file they came from."""

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rezero_ray.config.keys import (
    all_keys,
    default_of,
    description_of,
    hint_for_unknown,
    nearest,
    tables_at,
    tags_at,
)
from rezero_ray.config.layers import TAGGED_TABLES, Layer
from rezero_ray.config.problems import KeyPath, Problem, dotted, shown
from rezero_ray.config.stand_ins import accepted

_EXPECTED_TYPE = {
    "int_type": "expected an integer",
    "int_from_float": "expected an integer",
    "float_type": "expected a number",
    "bool_type": "expected true or false",
    "string_type": "expected a string",
    "list_type": "expected a list",
    "tuple_type": "expected a list",
    "dict_type": "expected a table",
    "model_type": "expected a table",
    "model_attributes_type": "expected a table",
    "finite_number": "expected a finite number",
    "string_unicode": "expected a string of Unicode text",
}

_BOUND: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "greater_than": lambda context: f"must be greater than {context['gt']}",
    "greater_than_equal": lambda context: f"must be at least {context['ge']}",
    "less_than": lambda context: f"must be less than {context['lt']}",
    "less_than_equal": lambda context: f"must be at most {context['le']}",
    "too_short": lambda context: (
        f"must have at least {context['min_length']}, has {context['actual_length']}"
    ),
    "too_long": lambda context: f"must have at most {context['max_length']}, has {context['actual_length']}",
    "string_too_short": lambda context: "must not be empty",
}

_MISSING = "required but not given"


def explain(error: ValidationError, layer: Layer) -> list[Problem]:
    """One problem for each complaint; a key missing because it was misspelt is one problem, not two."""
    details = [
        (_data_path(tuple(detail["loc"])), detail)
        for detail in error.errors(include_url=False)
        if detail["type"] != "default_factory_not_called"  # made from a key that has a problem of its own
    ]
    wrong = [path for path, _ in details]
    found = [(path, *_explain_one(detail, path, layer, wrong)) for path, detail in details]
    meant = {dotted(key[:length]) for _, _, key in found for length in range(1, len(key) + 1)}
    problems = [problem.at(layer.origin(path)) for path, problem, _ in found]
    return [p for p in problems if not (p.what == _MISSING and p.key in meant)]


def _explain_one(
    detail: ErrorDetails, path: KeyPath, layer: Layer, wrong: Sequence[KeyPath]
) -> tuple[Problem, KeyPath]:
    """The problem and, for an unknown key, the key that was probably meant, else ()."""
    kind, given = detail["type"], detail["input"]
    if kind != "extra_forbidden":
        return _explain_value(detail, path, layer, wrong), ()
    quoted = tuple(str(path[-1]).split("."))
    if len(quoted) > 1 and ".".join((*map(str, path[:-1]), *quoted)) in all_keys():
        what = "unknown key: in quotes, the dots belong to its name"
        meant = (*path[:-1], *quoted)
        hint = f"write {dotted(meant)} without quotes"
    else:
        what = "unknown key"
        siblings = sorted({name for table in tables_at(path[:-1], layer.data) for name in table.model_fields})
        hint, sibling = hint_for_unknown(path, siblings)
        meant = (*path[:-1], sibling) if sibling else ()
    others = (dotted(meant),) if meant else ()
    return Problem(dotted(path), what, hint, shown(given), others=others), meant


def _explain_value(detail: ErrorDetails, path: KeyPath, layer: Layer, wrong: Sequence[KeyPath]) -> Problem:
    key, kind, given, context = dotted(path), detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "missing" and isinstance(path[-1], int):  # a list of fixed length
        return Problem(dotted(path[:-1]), "has too few values", description_of(path), shown(given))
    if kind == "missing":
        return Problem(key, _MISSING, _how_to_give(path))
    if kind.startswith("union_tag") and isinstance(given, Mapping):
        tag = TAGGED_TABLES[path]
        problem = _not_one_of((*path, tag), given.get(tag), tags_at(path))
        return problem.at(layer.origin((*path, tag)))
    if kind == "literal_error":
        return _not_one_of(path, given, _literals(str(context["expected"])))
    if kind in _BOUND:
        return Problem(key, _BOUND[kind](context), description_of(path), shown(given))
    if kind.startswith("union_tag"):
        kind = "model_type"
    if kind in _EXPECTED_TYPE:
        remedy = _same_value(path, kind, given, layer, wrong) or _description(path)
        if kind == "list_type" and tables_at(path, {}):
            remedy = _how_to_give(path)
        return Problem(key, _EXPECTED_TYPE[kind], remedy, shown(given))
    whole_table = isinstance(given, Mapping)
    message = detail["msg"].removeprefix("Value error, ")
    return Problem(key, message, "", None if whole_table else shown(given))


def _description(path: KeyPath) -> str:
    """What the key is, and for a list how one is written."""
    default = default_of(path)
    example = f" For example {shown(list(default))}." if isinstance(default, list | tuple) and default else ""
    return description_of(path) + example


def _not_one_of(path: KeyPath, given: Any, allowed: list[str]) -> Problem:
    close = nearest(given, allowed) if isinstance(given, str) else None
    remedy = f"write {close}" if close else description_of(path)
    return Problem(dotted(path), f"must be one of {', '.join(allowed)}", remedy, shown(given))


def _literals(expected: str) -> list[str]:
    """pydantic's `'a', 'b' or 'c'` -> a, b, c."""
    names = [name.strip().strip("'") for name in expected.replace(" or ", ",").split(",")]
    return [{"True": "true", "False": "false"}.get(name, name) for name in names]


def _how_to_give(path: KeyPath) -> str:
    key = dotted(path)
    tables = tables_at(path, {})
    if path[-1] == "env" and tables:
        return f"add [[{key}]] with id = ..."
    if tables:
        required = [name for name, field in tables[0].model_fields.items() if field.is_required()]
        return f"add [{key}] with {', '.join(required)}"
    return f"add {path[-1]} = ... to the file, or --{key} VALUE"


def _same_value(path: KeyPath, kind: str, given: Any, layer: Layer, wrong: Sequence[KeyPath]) -> str:
    """How to write the given value in the type of the key, where the key would accept it; else ''."""
    scalar = _scalar(given) if isinstance(given, str) else given
    how = ", without quotes" if isinstance(given, str) else ""
    candidates: list[tuple[Any, str]] = []
    if kind in ("int_type", "int_from_float") and isinstance(given, float) and given.is_integer():
        candidates = [(int(given), "")]
    elif kind in ("int_type", "float_type", "bool_type") and scalar is not given:
        candidates = [(scalar, how)]
    elif kind == "string_type" and isinstance(given, int | float):
        candidates = [(shown(given), ", in quotes")]
    elif kind in ("list_type", "tuple_type") and not isinstance(given, Mapping):
        items = re.split(r"[,\s]+", given.strip("[]() \t")) if isinstance(given, str) else [given]
        candidates = [([_scalar(item) if isinstance(item, str) else item for item in items], "")]
        candidates.append(([str(item) for item in items], ""))
    for value, remark in candidates:
        if accepted(layer.data, path, value, wrong):
            return f"write {shown(value)}{remark}"
    return ""


def _scalar(text: str) -> Any:
    """The text as TOML reads it, e.g. a number; the text itself where that is nothing."""
    try:
        read = tomllib.loads(f"value = {text}")
    except ValueError:
        return text.strip("\"'")
    return read["value"] if len(read) == 1 else text


def _data_path(loc: KeyPath) -> KeyPath:
    """pydantic's location without the names of union members, which are no keys of the file."""
    path: KeyPath = ()
    for part in loc:
        if len(tags_at(path)) > 1 and part in tags_at(path):
            continue
        path = (*path, part)
    return path
