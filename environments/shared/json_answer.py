"""Getting a JSON object out of what a model wrote, and saying how cleanly it stood there.

`find_json_answer` is total: deep nesting, huge numbers, lone surrogates and unclosed braces all give an
answer, if only an empty one. Scoring needs more than "valid or not", so the result keeps three things
apart: the object, how much text stood around it, and the fields that could be read from a broken object.
"""

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

MAX_CHARS = 4000
"""Longer text is cut before parsing; an honest answer has a few hundred characters."""

MAX_STARTS = 16
"""Opening braces tried as the start of the object; bounds the time that adversarial text can take."""

_BROKEN_FIELD = re.compile(
    r"""["']?(\w{1,40})["']?\s*:\s*("(?:[^"\\]|\\.)*"|'[^']*'|\[[^\]]*\]|-?\d+(?:\.\d+)?|true|false)""",
)


@dataclass(frozen=True)
class JsonAnswer:
    """What was found: `fields` of the object, `parsed` if it is valid JSON, and the text around it.

    `outside` is the share of the non-blank characters that stood outside the object, in [0, 1].
    """

    fields: dict[str, Any] = field(default_factory=dict)
    parsed: bool = False
    outside: float = 1.0


def find_json_answer(text: str, required_key: str) -> JsonAnswer:
    """The first JSON object in `text` that has `required_key`, else the first object, else broken fields."""
    text = text[:MAX_CHARS]
    first: JsonAnswer | None = None
    decoder = json.JSONDecoder()
    starts = [match.start() for match in re.finditer(r"\{", text)][:MAX_STARTS]
    for start in starts:
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if not isinstance(value, dict):
            continue
        answer = JsonAnswer(value, True, _outside_share(text, start, end))
        if required_key in value:
            return answer
        first = first or answer
    return first or _broken_answer(text)


def confidence_of(value: Any) -> float | None:
    """A field's value as a confidence, None when it is no number in [0, 1]."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not 0 <= value <= 1:  # also refuses NaN; ints of any size compare safely
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _outside_share(text: str, start: int, end: int) -> float:
    total = len("".join(text.split()))
    inside = len("".join(text[start:end].split()))
    return (total - inside) / total if total else 1.0


def _broken_answer(text: str) -> JsonAnswer:
    """Fields of an object that does not parse (cut off, single quotes, missing commas)."""
    start = text.find("{")
    if start < 0:
        return JsonAnswer()
    fields: dict[str, Any] = {}
    for name, raw in _BROKEN_FIELD.findall(text[start:]):
        fields.setdefault(name, _broken_value(raw))
    return JsonAnswer(fields, False, _outside_share(text, start, len(text)))


def _broken_value(raw: str) -> Any:
    if raw[0] in "\"'":
        return raw[1:-1]
    if raw[0] == "[":
        items = re.findall(r""""[^"]*"|'[^']*'|-?\d+(?:\.\d+)?""", raw)
        return [item[1:-1] if item[0] in "\"'" else float(item) for item in items]
    return raw == "true" if raw[0] in "tf" else float(raw)
