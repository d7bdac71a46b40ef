"""pydantic's complaints about raw TOML data, said in the terms of the file they came from."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rezero_ray.config.keys import description_of, hint_for_unknown, nearest, tables_at, tags_at
from rezero_ray.config.layers import TAGGED_TABLES, Layer
from rezero_ray.config.problems import KeyPath, Problem, dotted, shown

_EXPECTED_TYPE = {
    "int_type": "expected an integer",
    "int_from_float": "expected an integer",
    "float_type": "expected a number",
    "bool_type": "expected true or false",
    "string_type": "expected a string",
    "list_type": 'expected a list, e.g. ["a", "b"]',
    "tuple_type": "expected a list, e.g. [0.9, 0.999]",
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
    problems: list[Problem] = []
    meant: set[str] = set()
    for detail in error.errors(include_url=False):
        if detail["type"] == "default_factory_not_called":  # made from a key that has a problem of its own
            continue
        path = _data_path(tuple(detail["loc"]))
        problem, sibling = _explain_one(detail, path, layer)
        problems.append(problem.at(layer.origin(path)))
        if sibling:
            meant.add(dotted((*path[:-1], sibling)))
    return [p for p in problems if not (p.what == _MISSING and p.key in meant)]


def _explain_one(detail: ErrorDetails, path: KeyPath, layer: Layer) -> tuple[Problem, str | None]:
    """The problem and, for an unknown key, the sibling that was probably meant."""
    key, kind, given, context = dotted(path), detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        siblings = sorted({name for table in tables_at(path[:-1], layer.data) for name in table.model_fields})
        hint, sibling = hint_for_unknown(path, siblings)
        others = (dotted((*path[:-1], sibling)),) if sibling else ()
        return Problem(key, "unknown key", hint, shown(given), others=others), sibling
    if kind == "missing" and isinstance(path[-1], int):  # a list of fixed length
        return Problem(dotted(path[:-1]), "has too few values", description_of(path), shown(given)), None
    if kind == "missing":
        return Problem(key, _MISSING, _how_to_give(path)), None
    if kind.startswith("union_tag") and isinstance(given, Mapping):
        tag = TAGGED_TABLES[path]
        problem = _not_one_of((*path, tag), given.get(tag), tags_at(path))
        return problem.at(layer.origin((*path, tag))), None
    if kind == "literal_error":
        return _not_one_of(path, given, _literals(str(context["expected"]))), None
    if kind in _BOUND:
        return Problem(key, _BOUND[kind](context), description_of(path), shown(given)), None
    if kind.startswith("union_tag"):
        kind = "model_type"
    if kind in _EXPECTED_TYPE:
        remedy = _same_value_in_the_right_type(kind, given) or description_of(path)
        if kind == "list_type" and tables_at(path, {}):
            remedy = _how_to_give(path)
        return Problem(key, _EXPECTED_TYPE[kind], remedy, shown(given)), None
    whole_table = isinstance(given, Mapping)
    message = detail["msg"].removeprefix("Value error, ")
    return Problem(key, message, "", None if whole_table else shown(given)), None


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


def _same_value_in_the_right_type(kind: str, given: Any) -> str:
    if kind in ("int_type", "float_type", "bool_type") and isinstance(given, str):
        return "write it without quotes"
    if kind == "string_type" and isinstance(given, int | float):
        return "write it in quotes"
    if kind == "list_type" and isinstance(given, str):
        items = ", ".join(shown(item.strip()) for item in given.split(","))
        return f"write [{items}]"
    return ""


def _data_path(loc: KeyPath) -> KeyPath:
    """pydantic's location without the names of union members, which are no keys of the file."""
    path: KeyPath = ()
    for part in loc:
        if len(tags_at(path)) > 1 and part in tags_at(path):
            continue
        path = (*path, part)
    return path
