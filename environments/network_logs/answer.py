"""What an answer to a log window says, read without judging it.

The answer asked for is `{"label": one of LABELS, "confidence": 0..1, "lines": [number, ...]}`.
"""

import re
from dataclasses import dataclass
from typing import Any

from environments.network_logs.sessions import DEMONSTRATIONS, LABELS
from environments.shared.answer_form import named_label
from environments.shared.json_answer import MAX_CHARS, JsonAnswer, confidence_of, find_json_answer

MAX_LINES = 7
"""More lines than a window has are a list of guesses, and the form is scored down."""

KEYS = ("label", "confidence", "lines")


@dataclass(frozen=True)
class NetworkAnswer:
    """The parts of an answer; None where a part is missing or not of the kind asked for.

    `named` is the one label that the text names outside any object ("" for none or for several).
    """

    text: str
    found: JsonAnswer
    label: str | None
    confidence: float | None
    lines: tuple[int, ...] | None
    named: str

    @property
    def copied_example(self) -> bool:
        """Whether the lines are those of a demonstration in the prompt."""
        return self.lines in [demonstration.lines for demonstration in DEMONSTRATIONS]


def read_answer(text: str) -> NetworkAnswer:
    """Reads any text; never raises."""
    text = text[:MAX_CHARS]
    found = find_json_answer(text, "label")
    fields = found.fields
    return NetworkAnswer(
        text=text,
        found=found,
        label=_label(fields.get("label")),
        confidence=confidence_of(fields.get("confidence")),
        lines=_lines(fields.get("lines")),
        named=named_label(text, LABELS),
    )


def _label(value: Any) -> str | None:
    label = "-".join(value.casefold().split()) if isinstance(value, str) else None
    return label if label in LABELS else None


def _lines(value: Any) -> tuple[int, ...] | None:
    if not isinstance(value, list) or not value:
        return None
    numbers = [_line_number(item) for item in value]
    return tuple(number for number in numbers if number is not None) if None not in numbers else None


def _line_number(item: Any) -> int | None:
    if isinstance(item, str) and re.fullmatch(r"\s*[0-9]{1,4}\s*", item):
        return int(item)
    if isinstance(item, bool) or not isinstance(item, int | float):
        return None
    return int(item) if isinstance(item, int) or item.is_integer() else None
