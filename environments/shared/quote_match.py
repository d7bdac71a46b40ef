"""How well quotes stand in a source text, and how well they hit the spans that matter.

All functions are total and return shares in [0, 1]; text is compared after folding case and blanks.
"""

from collections.abc import Sequence

MIN_QUOTE_CHARS = 10
MAX_QUOTE_CHARS = 80
"""A quote is a few words: a single common word proves nothing, and half the source points at nothing.
Outside these bounds credit falls with the third power of the length."""

NEARLY = 0.5
"""Most that a quote can get which is not verbatim; its share of matching words scales it."""

MAX_SOURCE_SHARE = 0.4
"""Nor may a quote be more than this share of the source."""

GENEROSITY = 2.5
"""A quote may be this many times as long as the span it hits (or as short) without losing credit."""


def folded(text: str) -> str:
    """Lower case with single blanks."""
    return " ".join(text.casefold().split())


def groundedness(quote: str, source: str) -> float:
    """1 for a verbatim quote of sensible length; less than `NEARLY` by the longest run of words in common."""
    quote, source = folded(quote)[: 4 * MAX_QUOTE_CHARS], folded(source)
    if not quote:
        return 0.0
    if quote in source:
        limit = max(MIN_QUOTE_CHARS, min(MAX_QUOTE_CHARS, MAX_SOURCE_SHARE * len(source)))
        return min(1.0, limit / len(quote), len(quote) / MIN_QUOTE_CHARS) ** 3
    words = quote.split()
    return NEARLY * _longest_shared_run(words, source.split()) / (len(words) + 1)


def relevance(quote: str, spans: Sequence[str]) -> float:
    """1 when the quote holds (or is a good part of) one of the spans; less the more it misses or adds."""
    quote = folded(quote)[: 4 * MAX_QUOTE_CHARS]
    if not quote:
        return 0.0
    return max((_overlap(quote, folded(span)) for span in spans), default=0.0)


def _overlap(quote: str, span: str) -> float:
    if not span:
        return 0.0
    if span in quote or quote in span:
        short, long = sorted((len(span), len(quote)))
        return min(1.0, GENEROSITY * short / long)
    words, span_words = quote.split(), span.split()
    shared = _longest_shared_run(words, span_words)
    return shared / max(len(words), len(span_words)) if shared > 1 else 0.0


def _longest_shared_run(left: Sequence[str], right: Sequence[str]) -> int:
    best = 0
    previous = [0] * (len(right) + 1)
    for word in left:
        current = [0] * (len(right) + 1)
        for column, other in enumerate(right, start=1):
            if word == other:
                current[column] = previous[column - 1] + 1
        best = max(best, *current)
        previous = current
    return best
