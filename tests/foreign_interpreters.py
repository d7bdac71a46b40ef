"""Interpreters of their own for environments under other versions of verifiers, made from the package index once a
session."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from rezero_ray.foreign.interpreter import Interpreter

REQUIREMENTS: Mapping[str, Sequence[str]] = {
    "0.1.10": ["verifiers[rg]==0.1.10", "openai>=3", "mcp<2"],
    "0.3.1": ["verifiers[rg]==0.3.1"],
    "0.4.0": ["verifiers[ta]==0.4.0"],
}
"""The oldest classic one, the newest, and the first with v1 alone, which asks for openai<3 and mcp==2.0.0."""

MINUTES = 300.0

NO_NETWORK = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
"""NLTK fetches nothing through a proxy, and asks at once."""


def interpreter(version: str) -> Path:
    """The one with that verifiers, made if it is not there."""
    return Interpreter(tuple(REQUIREMENTS[version]), None).path(MINUTES)


def write_words(folder: Path, *words: str) -> dict[str, str]:
    """A corpus of these words where NLTK looks for one; returns the variables that make it look there.

    Stands for NLTK's word list, which its own server alone has.
    """
    corpus = folder / "corpora" / "words"
    corpus.mkdir(parents=True)
    for name in ("en", "en-basic"):
        (corpus / name).write_text("\n".join(words) + "\n", "utf-8")
    return {"NLTK_DATA": os.fspath(folder), **NO_NETWORK}
