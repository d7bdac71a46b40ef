"""A toy for verifiers 0.4.0 that tells which openai it lives with."""

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import verifiers.v1 as vf


class Write(vf.Task[vf.TaskData]):
    @vf.reward(weight=1.0)
    async def length(self, trace: Any) -> float:
        return len(str(trace.nodes[-1].message.content)) % 17 / 17

    @vf.reward(weight=0.0)
    async def openai(self, trace: Any) -> float:
        return float(version("openai").partition(".")[0])


class Numbers(vf.Taskset[Write, vf.TasksetConfig]):
    def load(self) -> Iterator[Write]:
        for i in range(64):
            yield Write(vf.TaskData(prompt=f"Write about the number {i}."))


__all__ = ["Numbers"]
