"""Claims about the table of keys: none of the documented ones is missing, and each row points to something real."""

import ast
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import ConfigDict, TypeAdapter
from pydantic.fields import FieldInfo

from rezero_ray.config.keys import tables_of, walk
from rezero_ray.config.reference import page
from tests.keys.table import RUNS, SET_BY_THE_FIXTURE, TABLE, Row

ROOT = Path(__file__).parents[2]
ONLY_VALUE = {"wandb.offline"}
"""Keys that have one valid value: their default."""


def documented() -> dict[str, list[FieldInfo]]:
    """Keys with a value, and their fields: several where tables of a tagged union share a name."""
    found: dict[str, list[FieldInfo]] = {}
    for key, field in walk():
        if not tables_of(field.annotation):
            found.setdefault(key, []).append(field)
    return found


def value_of(key: str, row: Row) -> Any:
    return RUNS[row.run].get(key) if row.run else row.value


@cache
def functions_of(file: str) -> dict[str, str]:
    """Names and texts of a file's functions."""
    text = (ROOT / file).read_text("utf-8")
    return {
        node.name: ast.get_source_segment(text, node) or ""
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_documented_key_has_a_row_and_every_row_a_key() -> None:
    missing, unknown = documented().keys() - TABLE.keys(), TABLE.keys() - documented().keys()
    assert not missing, f"give these keys a run and a row in tests/keys/table.py: {sorted(missing)}"
    assert not unknown, f"these rows have no key: {sorted(unknown)}"


def test_the_keys_are_those_of_the_page() -> None:
    rows = {line.split("`")[1] for line in page().splitlines() if line.startswith("| `")}
    tags = {"type", "kind"}  # the page has them as headings
    assert rows | tags == {key.rpartition(".")[2] for key in documented()} | tags


@pytest.mark.parametrize("key", list(TABLE))
def test_a_row_has_a_valid_value_other_than_the_default_and_a_test_that_is_there(key: str) -> None:
    row = TABLE[key]
    file, _, name = row.test.partition("::")
    assert name in functions_of(file), f"{file} has no {name}"
    if row.run is not None:
        assert key in RUNS[row.run] or key in SET_BY_THE_FIXTURE, f"the run {row.run} does not have the key"
    if key in SET_BY_THE_FIXTURE:
        return
    value = value_of(key, row)
    assert value is not None
    fields = documented().get(key, [])
    assert any(is_valid(field, value) for field in fields), (key, value)
    if key not in ONLY_VALUE:
        assert any(is_other_than_default(field, value) for field in fields)


def is_valid(field: FieldInfo, value: Any) -> bool:
    kind: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    try:
        TypeAdapter(kind, config=ConfigDict(strict=True)).validate_python(value)
    except ValueError:
        return False
    return True


def is_other_than_default(field: FieldInfo, value: Any) -> bool:
    if field.is_required():
        return True
    default = field.get_default(call_default_factory=True, validated_data={})
    return bool((list(default) if isinstance(default, tuple) else default) != value)


def test_a_key_without_a_row_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(TABLE, "orchestrator.sampling.temperature")
    with pytest.raises(AssertionError, match=r"orchestrator\.sampling\.temperature"):
        test_every_documented_key_has_a_row_and_every_row_a_key()
