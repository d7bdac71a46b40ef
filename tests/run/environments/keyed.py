"""An environment that shows what the run's keys do to it: its rewards spread over a wide range, some tasks give every
answer the same, and some take too long."""

import asyncio
from collections.abc import Sequence
from typing import Any

import verifiers as vf
from datasets import Dataset

KINDS = 4
"""A task's kind is its number modulo this."""


class Keyed(vf.MultiTurnEnv):
    """
    Args:
        turns: of a rollout.
        top: the highest reward; the lowest is 0.
        equal: kinds whose every answer gets the same reward.
        fragile: kinds whose second reward function, which counts nothing, raises.
        slow_turns, slow_scores: seconds by kind that the environment takes behind each turn, or to score.
    """

    def __init__(
        self,
        turns: int,
        top: float,
        equal: Sequence[int],
        fragile: Sequence[int],
        slow_turns: dict[str, float],
        slow_scores: dict[str, float],
    ) -> None:
        self._slow_turns = slow_turns

        async def length(completion: Any, answer: str) -> float:
            kind = int(answer) % KINDS
            await asyncio.sleep(slow_scores.get(str(kind), 0.0))
            return top if kind in equal else top * (len(str(completion[-1]["content"])) % 17 / 17)

        def breaks(answer: str) -> float:
            if int(answer) % KINDS in fragile:
                raise ValueError(f"no score for {answer}")
            return 0.0

        super().__init__(
            dataset=_tasks(range(64)),
            eval_dataset=_tasks(range(64, 80)),
            rubric=vf.Rubric(funcs=[length, breaks], weights=[1.0, 0.0]),
            max_turns=turns,
        )

    async def env_response(self, messages: Any, state: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(self._slow_turns.get(str(int(state["answer"]) % KINDS), 0.0))
        return [vf.UserMessage(content="Go on.")]


def _tasks(numbers: range) -> Dataset:
    return Dataset.from_list(
        [
            {"prompt": [{"role": "user", "content": f"Write about the number {i}."}], "answer": str(i)}
            for i in numbers
        ]
    )


def load_environment(
    turns: int = 1,
    top: float = 1.0,
    equal: Sequence[int] = (),
    fragile: Sequence[int] = (),
    slow_turns: dict[str, float] | None = None,
    slow_scores: dict[str, float] | None = None,
) -> vf.Environment:
    return Keyed(turns, top, equal, fragile, slow_turns or {}, slow_scores or {})
