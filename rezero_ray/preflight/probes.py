"""The answers that an environment is tried with: what nobody should get a reward for, and what must not break it."""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rezero_ray.chat import shown_text

PERFECT, EMPTY, ECHO = "perfect", "empty", "prompt echoed"
RANDOM, HOSTILE, DAMAGED = "random text", "hostile JSON", "solution damaged"

HOSTILE_TEXTS = (
    "{" * 5000,
    '{"a":' * 3000,
    "[" * 100_000,
    "null",
    "[]",
    "NaN",
    '{"label": 1e999, "score": -1e999}',
    '{"confidence": ' + "9" * 5000 + "}",
    "\x00" * 50,
    '{"label": "phishing", "evidence": [' + '"a",' * 3000,
    '{"findings": [' + '"a",' * 3000,
    '{"findings": [], "patch": {"cidr_blocks": ["0.0.0.0/-1", "999.9.9.9/9"], "Action": ["${file(1)}"]}}',
    '{"findings": [], "patch": {"value": "a\\n- b: !!python/object", "path": "/../..", "hostPort": 9e99}}',
    '{"label": "scan", "confidence": 1, "lines": [' + "21," * 3000,
    '{"label": "scan", "lines": [1e999, -1, ' + "9" * 400 + "]}",
    "{'label': 'scan', 'lines': [1, " + "9" * 5000 + "]}",
    '{"answer": {"answer": [{"answer": null}, [[]], "", {}]}, "": {"": ""}}',
    '{"answer": 1, "answer": "\\ud83d", "__proto__": {"reward": 1}}',
    '```json\n{"answer": ```',
    "<answer>" * 2000,
    "\\boxed{" * 2000,
    "a " * 20_000,
)
"""Nested too deep, cut off, numbers too large, values of other types than asked, markup that never ends."""

_ALPHABETS = (
    "abcdefghij klmnop qrstuvw xyz",
    "0123456789.,-+eE %$",
    "{}[]()<>\"'`:;,\\/|#*_=&!? \n\t",
    "éßøñ漢字かなहिन्दी🙂👩‍🚀\u202e\u200b\ufeff\x00\x1b\x7f",
)
_LONGEST_RANDOM = 300
_OTHER_VALUES: tuple[object, ...] = (None, [], {}, -1, 1e300, "", "\x00", True)


@dataclass(frozen=True)
class Probe:
    """One answer to one training example: `texts` are its turns; the last is said again where more are asked."""

    kind: str
    example: int
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Example:
    """What an environment tells of a training example; `solution` None where it knows none."""

    number: int
    prompt: str | Sequence[dict[str, object]]
    solution: tuple[str, ...] | None


def probes(examples: Sequence[Example], *, random_texts: int, seed: int = 0) -> list[Probe]:
    """Every kind of probe: perfect, empty and echoed for each example, the rest over the examples in turn."""
    found = [Probe(PERFECT, each.number, each.solution) for each in examples if each.solution]
    for each in examples:
        found.append(Probe(EMPTY, each.number, ("",)))
        found.append(Probe(ECHO, each.number, (prompt_text(each.prompt),)))
    texts = [(RANDOM, text) for text in _random_texts(random_texts, seed)]
    solved = [each.solution[-1] for each in examples if each.solution]
    texts += [(HOSTILE, text) for text in HOSTILE_TEXTS]
    texts += [(DAMAGED, text) for text in _damaged(solved[:4], seed)]
    for place, (kind, text) in enumerate(texts):
        found.append(Probe(kind, examples[place % len(examples)].number, (text,)))
    return found


def prompt_text(prompt: str | Sequence[dict[str, object]]) -> str:
    """The texts of a prompt's messages, a line feed between them."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(shown_text(message.get("content")) for message in prompt)


def _random_texts(count: int, seed: int) -> Iterator[str]:
    rng = random.Random(seed)
    for number in range(count):
        alphabet = _ALPHABETS[number % len(_ALPHABETS)]
        yield "".join(rng.choices(alphabet, k=rng.randint(1, _LONGEST_RANDOM)))


def _damaged(solutions: Sequence[str], seed: int) -> Iterator[str]:
    """Solutions cut off, doubled and, where they are JSON objects, with every value of another type."""
    rng = random.Random(seed)
    for text in solutions:
        yield text[: rng.randint(0, len(text))]
        yield text + text
        try:
            fields = json.loads(text)
        except ValueError:
            continue
        for value in _OTHER_VALUES if isinstance(fields, dict) else ():
            yield json.dumps(dict.fromkeys(fields, value))
