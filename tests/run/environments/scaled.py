"""A toy whose rewards show which args it was built with: `value` and up to 0.1 more, by the length of the answer."""

from typing import Any

import verifiers as vf
from datasets import Dataset


def load_environment(value: float, flat: bool = False, breaks: bool = False) -> vf.Environment:
    """`flat`: every answer earns `value`. `breaks`: a function of weight 0 returns a list for some answers."""

    def graded(completion: Any) -> float:
        return value if flat else value + 0.1 * (_length(completion) % 11) / 10

    def listed(completion: Any) -> Any:
        return [1.0] if _length(completion) % 2 else 1.0

    def rows(name: str, count: int) -> Dataset:
        return Dataset.from_list(
            [
                {"prompt": [{"role": "user", "content": f"{name}: write about {value}, {i}."}], "answer": ""}
                for i in range(count)
            ]
        )

    rubric = vf.Rubric(funcs=[graded, listed] if breaks else [graded], weights=[1.0, 0.0][: 1 + breaks])
    return vf.SingleTurnEnv(dataset=rows("train", 16), eval_dataset=rows("held out", 4), rubric=rubric)


def _length(completion: Any) -> int:
    return len(str(completion[-1]["content"]))
