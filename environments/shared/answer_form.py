"""How near a text is to the one JSON object that was asked for, with credit that begins in plain prose."""

import re
from collections.abc import Sequence

from environments.shared.json_answer import JsonAnswer
from environments.shared.reward_weights import signed

SHORT_PROSE_CHARS = 240
"""Prose that is shorter gains a trace of form: brevity is the first step towards one line of JSON."""

BROKEN = 0.4
"""Share of the credit for its values that an object keeps which is not valid JSON."""


def object_form(text: str, found: JsonAnswer, keys: Sequence[str], values: float) -> float:
    """In [-1, 1]: 1 for the asked object alone; steps for braces, keys, valid JSON, valid values.

    `values` is the share in [0, 1] of the values that are of the kind asked for; below 0 it costs.
    Keys that were not asked for cost too.
    """
    text = text.strip()
    if not text:
        return -1.0
    share = 0.03 * max(0.0, 1 - len(text) / SHORT_PROSE_CHARS)
    share += 0.04 * text.startswith("{") + 0.03 * ("{" in text) + 0.03 * ("}" in text)
    share += 0.09 * sum(f'"{key}"' in text for key in keys) / len(keys)
    share += 0.48 * values * (1.0 if found.parsed else BROKEN)
    share += (0.15 + 0.15 * (1 - found.outside)) * found.parsed
    return signed(share / (1 + 0.1 * len(set(found.fields) - set(keys))))


def named_label(text: str, labels: Sequence[str]) -> str:
    """The one label that the text names as a word, "" for none or for several."""
    named = {label for label in labels if re.search(rf"\b{label}\b", text, re.IGNORECASE)}
    return named.pop() if len(named) == 1 else ""
