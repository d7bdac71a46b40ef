"""What an answer to a configuration task says, read without judging it.

The answer asked for is `{"findings": [rule, ...], "patch": {setting: value, ...}, "confidence": 0..1}`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from environments.config_verification.patch import accepted
from environments.config_verification.rules import RULE_OF, Kind, Settings
from environments.shared.json_answer import MAX_CHARS, JsonAnswer, confidence_of, find_json_answer

KEYS = ("findings", "patch", "confidence")

MAX_FINDINGS = 16
"""Findings beyond this are not read; the prompt names at most nine rules."""


@dataclass(frozen=True)
class ConfigAnswer:
    """The parts of an answer; None where a part is missing or not of the kind asked for.

    `patch` is what was asked for, `named` are the rules that the text names outside any object.
    """

    text: str
    found: JsonAnswer
    findings: tuple[str, ...] | None
    patch: Mapping[str, Any] | None
    confidence: float | None
    named: frozenset[str]

    def applicable(self, kind: Kind, settings: Settings) -> Settings:
        """The part of the patch that can be applied to a file with these settings."""
        return accepted(self.patch or {}, kind, settings)


def read_answer(text: str) -> ConfigAnswer:
    """Reads any text; never raises."""
    text = text[:MAX_CHARS]
    found = find_json_answer(text, "findings")
    patch = found.fields.get("patch")
    if not found.parsed:  # the braces within a broken object are lost, and its fields lie side by side
        patch = {name: value for name, value in found.fields.items() if name not in KEYS} or None
    return ConfigAnswer(
        text=text,
        found=found,
        findings=_findings(found.fields.get("findings")),
        patch=patch if isinstance(patch, dict) else None,
        confidence=confidence_of(found.fields.get("confidence")),
        named=frozenset(name for name in RULE_OF if re.search(rf"(?<![\w-]){name}(?![\w-])", text)),
    )


def _findings(value: Any) -> tuple[str, ...] | None:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return None
    return tuple(dict.fromkeys(item.strip().lower() for item in value[:MAX_FINDINGS]))
