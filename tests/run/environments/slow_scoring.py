"""An environment whose groups can be caught in the act: it says when it generates and when it scores."""

import asyncio
import time
from pathlib import Path
from typing import Any

import verifiers as vf
from datasets import Dataset


class SlowScoring(vf.MultiTurnEnv):
    """Leaves the file `generation` in `marks` when a rollout begins, and `scoring` when its score does.

    The score is that of noise: it differs from rollout to rollout.
    """

    def __init__(self, marks: str, seconds: float, turns: int) -> None:
        self._marks = Path(marks)

        async def length(completion: Any) -> float:
            self._mark("scoring")
            await asyncio.sleep(seconds)
            return len(str(completion[-1]["content"])) % 17 / 17

        rows = [
            {"prompt": [{"role": "user", "content": f"Write about the number {i}."}], "answer": ""}
            for i in range(64)
        ]
        super().__init__(dataset=Dataset.from_list(rows), rubric=vf.Rubric(funcs=[length]), max_turns=turns)

    async def env_response(self, messages: Any, state: Any, **kwargs: Any) -> Any:
        return [vf.UserMessage(content="Go on.")]

    async def setup_state(self, state: Any, **kwargs: Any) -> Any:
        self._mark("generation")
        return await super().setup_state(state, **kwargs)

    def _mark(self, name: str) -> None:
        (self._marks / name).write_text(str(time.time()), "utf-8")


def load_environment(marks: str, seconds: float = 2.0, turns: int = 1) -> vf.Environment:
    return SlowScoring(marks, seconds, turns)
