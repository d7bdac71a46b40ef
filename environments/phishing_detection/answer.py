"""What an answer to a phishing task says, read without judging it.

The answer asked for is `{"label": "phishing"|"legitimate", "confidence": 0..1, "evidence": [quote, ...]}`.
"""

from dataclasses import dataclass
from typing import Any

from environments.phishing_detection.mail import DEMONSTRATIONS, LABELS
from environments.shared.answer_form import named_label
from environments.shared.json_answer import MAX_CHARS, JsonAnswer, confidence_of, find_json_answer
from environments.shared.quote_match import folded

MAX_QUOTES = 3
"""More quotes than this are a list of guesses, and the form is scored down."""

KEYS = ("label", "confidence", "evidence")


@dataclass(frozen=True)
class PhishingAnswer:
    """The parts of an answer; None where a part is missing or not of the kind asked for.

    `named` is the one label that the text names outside any object ("" for none or for both).
    """

    text: str
    found: JsonAnswer
    label: str | None
    confidence: float | None
    quotes: tuple[str, ...] | None
    named: str

    @property
    def copied_example(self) -> bool:
        """Whether the evidence is that of a demonstration in the prompt."""
        examples = [folded(demonstration.quote) for demonstration in DEMONSTRATIONS]
        return any(example in folded(quote) for quote in self.quotes or () for example in examples)


def read_answer(text: str) -> PhishingAnswer:
    """Reads any text; never raises."""
    text = text[:MAX_CHARS]
    found = find_json_answer(text, "label")
    fields = found.fields
    return PhishingAnswer(
        text=text,
        found=found,
        label=_label(fields.get("label")),
        confidence=confidence_of(fields.get("confidence")),
        quotes=_quotes(fields.get("evidence")),
        named=named_label(text, LABELS),
    )


def _label(value: Any) -> str | None:
    label = folded(value) if isinstance(value, str) else None
    return label if label in LABELS else None


def _quotes(value: Any) -> tuple[str, ...] | None:
    if not isinstance(value, list) or not value:
        return None
    quotes = tuple(item for item in value if isinstance(item, str) and item.strip())
    return quotes if len(quotes) == len(value) else None
