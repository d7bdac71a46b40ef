"""The benchmarks' environment: one turn, prompts of some forty tokens, a reward that costs nothing.

It is loaded by its id `fixed-prompts`, as any installed environment is, because `benchmarks/` is on the path
of the processes that a benchmark starts.
"""

from itertools import permutations
from typing import Any

import verifiers as vf
from datasets import Dataset

ENVIRONMENT_ID = "fixed-prompts"

THINGS = (
    "a router",
    "a firewall",
    "a password",
    "a certificate",
    "a database",
    "a compiler",
    "a sandbox",
    "a token",
    "a hash",
    "a backup",
    "a proxy",
    "a kernel",
    "a cookie",
    "a signature",
    "a container",
    "a log file",
)


def prompts() -> list[list[dict[str, str]]]:
    """240 conversations of a system and a user message, in a fixed order."""
    return [
        [
            {"role": "system", "content": "You answer at length."},
            {
                "role": "user",
                "content": f"Explain to a new colleague how {first} differs from {second}, with an example.",
            },
        ]
        for first, second in permutations(THINGS, 2)
    ]


def vowel_share(text: str) -> float:
    """Share of vowels among the letters of `text`: hardly ever the same for two completions of a group."""
    letters = [letter for letter in text.lower() if letter.isalpha()]
    return sum(letter in "aeiou" for letter in letters) / max(1, len(letters))


def vowels(completion: Any) -> float:
    """`vowel_share` of the last message."""
    return vowel_share(str(completion[-1]["content"]))


def load_environment() -> vf.Environment:
    """The environment; its reward lies in [0, 1]."""
    dataset = Dataset.from_list([{"prompt": prompt, "answer": ""} for prompt in prompts()])
    return vf.SingleTurnEnv(
        dataset=dataset, rubric=vf.Rubric(funcs=[vowels], weights=[1.0]), env_id=ENVIRONMENT_ID
    )
