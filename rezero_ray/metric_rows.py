"""Lines of metrics.jsonl and its neighbours: strict JSON, also where a number is not finite.

JSON has no NaN and no Infinity. Such a number is written as null, and the row names it under `not_finite`:
`"not_finite": [["grad_norm", "NaN"]]`, the path of keys and then NaN, Infinity or -Infinity. `decode_row` puts it
back.
"""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

NOT_FINITE = "not_finite"


def encode_row(row: Mapping[str, Any]) -> str:
    """One line without its line feed. Half a surrogate pair in a text becomes `?`."""
    found = [[*path, _name(value)] for path, value in _not_finite(row, ())]
    plain = strict(row)
    return json.dumps(plain | {NOT_FINITE: found} if found else plain, allow_nan=False)


def decode_row(line: str) -> dict[str, Any]:
    """What `encode_row` wrote, numbers that are not finite included. Reads bare NaN too, as earlier versions wrote.

    Raises:
        ValueError: it is no JSON object, or was cut short.
    """
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError("is no JSON object")
    for *path, name in row.pop(NOT_FINITE, []):
        holder: Any = row
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = float(name)
    return row


def strict(value: Any) -> Any:
    """The same with null for numbers that are not finite and `?` for what UTF-8 cannot hold."""
    if isinstance(value, Mapping):
        return {_encodable(str(key)): strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    if isinstance(value, str):
        return _encodable(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _not_finite(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], float]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _not_finite(item, (*path, _encodable(str(key))))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _not_finite(item, (*path, index))
    elif isinstance(value, float) and not math.isfinite(value):
        yield path, value


def _name(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
