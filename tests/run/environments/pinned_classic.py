"""A toy for verifiers 0.1.10 that tells which openai it lives with."""

from importlib.metadata import version
from typing import Any

import verifiers as vf
from datasets import Dataset


def load_environment() -> vf.Environment:
    def length(completion: Any) -> float:
        return len(completion[-1]["content"]) % 17 / 17

    def openai(completion: Any) -> float:
        return float(version("openai").partition(".")[0])

    rows = [
        {"prompt": [{"role": "user", "content": f"Write about the number {i}."}], "answer": ""}
        for i in range(64)
    ]
    rubric = vf.Rubric(funcs=[length, openai], weights=[1.0, 0.0])
    return vf.SingleTurnEnv(dataset=Dataset.from_list(rows), rubric=rubric)
