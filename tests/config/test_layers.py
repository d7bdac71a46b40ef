"""Laws of laying files over each other, on shapes drawn at random."""

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rezero_ray.config.flags import apply_overrides, parse_overrides
from rezero_ray.config.layers import Layer, merge
from rezero_ray.config.positions import key_positions

# A key is always a table or always a value, as in a schema; otherwise "table, then value, then table" would
# depend on the grouping, and such files are refused anyway.
values = st.one_of(st.integers(), st.booleans(), st.text(max_size=5), st.lists(st.integers(), max_size=3))


def tables(depth: int = 3) -> st.SearchStrategy[dict[str, Any]]:
    entries: dict[str, st.SearchStrategy[Any]] = {"a": values, "b": values, "c": values}
    if depth:
        entries |= {"t": tables(depth - 1), "u": tables(depth - 1)}
    return st.fixed_dictionaries({}, optional=entries)


losses = st.fixed_dictionaries({}, optional={"type": st.sampled_from(["x", "y"]), "k": values, "l": values})
trainers = st.fixed_dictionaries({}, optional={"loss": losses, "other": values})
files = st.builds(
    lambda table, trainer: Layer(table | ({"trainer": trainer} if trainer is not None else {})),
    tables(),
    st.none() | trainers,
)


@given(files, files, files)
def test_the_order_matters_but_not_the_grouping(first: Layer, second: Layer, third: Layer) -> None:
    assert merge(merge(first, second), third).data == merge(first, merge(second, third)).data


@given(files)
def test_nothing_laid_over_or_under_changes_nothing(layer: Layer) -> None:
    assert merge(layer, Layer()).data == layer.data == merge(Layer(), layer).data


@given(files, files)
def test_merging_leaves_both_files_as_they_were(first: Layer, second: Layer) -> None:
    before = repr(first.data), repr(second.data)
    merged = merge(first, second)
    merged.data["a"] = "changed"
    assert (repr(first.data), repr(second.data)) == before


@given(files, files)
def test_what_the_later_file_says_holds(first: Layer, second: Layer) -> None:
    def holds(wanted: Any, got: Any) -> bool:
        if isinstance(wanted, dict):
            return all(key in got and holds(value, got[key]) for key, value in wanted.items())
        return bool(wanted == got)

    assert holds(second.data, merge(first, second).data)


@given(files, st.integers(), st.sampled_from(["--a", "--t.a", "--t.u.b", "--v.w.x"]))
def test_flags_win_over_every_file(layer: Layer, number: int, flag: str) -> None:
    overrides, problems = parse_overrides([f"{flag}={number}"])
    assert not problems
    node: Any = apply_overrides(layer, overrides)[0].data
    for key in flag[2:].split("."):
        node = node[key]
    assert node == number


DOCUMENT = '''\
top = 1
"quoted key" = """
several [lines]
# no comment"""

[table]
dotted.key = [1, # one
  [2, 3],
  { inner = 'x' },
]
[[array]]
id = "first"
[array.sub]
x = 1
[[array]]
id = 2026-01-01
inline = { a = 1, b.c = "}" }
'''


def test_every_key_of_a_document_has_its_line_and_column() -> None:
    assert tomllib.loads(DOCUMENT)
    found = key_positions(DOCUMENT)
    expected = {
        ("top",): (1, 1),
        ("quoted key",): (2, 1),
        ("table",): (6, 1),
        ("table", "dotted", "key"): (7, 1),
        ("table", "dotted", "key", 0): (7, 15),
        ("table", "dotted", "key", 1, 1): (8, 7),
        ("table", "dotted", "key", 2, "inner"): (9, 5),
        ("array", 0, "id"): (12, 1),
        ("array", 0, "sub", "x"): (14, 1),
        ("array", 1, "id"): (16, 1),
        ("array", 1, "inline", "b", "c"): (17, 19),
    }
    assert {path: found.get(path) for path in expected} == expected
    assert found == key_positions(DOCUMENT.replace("\n", "\r\n"))


@given(st.text(alphabet="ab.=[]{}\"'\\#\n ,1", max_size=60))
def test_the_scanner_survives_any_text(text: str) -> None:
    key_positions(text)
