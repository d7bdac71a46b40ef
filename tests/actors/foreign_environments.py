"""Toy environments for verifiers versions that are not ours, and an engine that answers by script.

Example 4 of each raises when it is scored. With `odd` two more reward functions of each give no number: `listed`
returns a list, `leaves` calls sys.exit. Example 5 of the classic one blocks its process; example 3 of the v1 one
is scored for an hour.
"""

from typing import Any

from actors.rollout_engine import Completion

CLASSIC = '''
import sys
import time
import verifiers as vf
from datasets import Dataset

class Twice(vf.MultiTurnEnv):
    """Asks once more, then ends."""

    async def env_response(self, messages, state, **kwargs):
        print("standard output is not the pipe")
        return [{"role": "user", "content": "Again."}]

def load_environment(turns=2, odd=False):
    async def replies(prompt, completion) -> float:
        task = prompt[-1]["content"]
        if task == "Say 4.":
            raise ZeroDivisionError("no tests were run")
        if task == "Say 5.":
            time.sleep(3600)
        return 0.25 * sum(m["role"] == "assistant" for m in completion)

    def dicts(completion) -> float:
        return float(sum(isinstance(m, dict) for m in completion))

    rows = [{"prompt": [{"role": "user", "content": f"Say {i}."}], "answer": ""} for i in range(6)]
    def listed(completion):
        return [0.5]

    async def leaves(completions) -> list:
        sys.exit(3)

    more = [listed, leaves] if odd else []
    rubric = vf.Rubric(funcs=[replies, dicts, *more], weights=[1.0, 0.0, *(1.0 for _ in more)])
    return Twice(dataset=Dataset.from_list(rows), rubric=rubric, max_turns=turns)
'''

TOOLS = """
import time
import verifiers as vf
from datasets import Dataset

def load_environment():
    def look(where: str) -> str:
        'Looks somewhere.'
        time.sleep(3600 if where == "far away" else 0)
        return f"nothing in {where}"

    def half(completion) -> float:
        return 0.5

    rows = [{"prompt": [{"role": "user", "content": f"Say {i}."}], "answer": ""} for i in range(6)]
    rubric = vf.Rubric(funcs=[half])
    return vf.ToolEnv(dataset=Dataset.from_list(rows), rubric=rubric, tools=[look], max_turns=3)
"""

V1 = """
import asyncio
import sys
import verifiers.v1 as vf

class Data(vf.TaskData):
    wanted: str
    odd: bool = False

class Numbers(vf.TasksetConfig):
    count: int = 3  # 5 in the tests
    odd: bool = False

class Say(vf.Task[Data]):
    @vf.reward(weight=0.5)
    async def replies(self, trace) -> float:
        if self.data.wanted == "4":
            raise ZeroDivisionError("no tests were run")
        await asyncio.sleep(3600 if self.data.wanted == "3" else 0)
        return float(trace.num_turns)

    @vf.reward(weight=1.0)
    async def listed(self, trace) -> float:
        return [0.5] if self.data.odd else 0.0

    @vf.reward(weight=1.0)
    async def leaves(self, trace) -> float:
        return sys.exit(3) if self.data.odd else 0.0

class SayNumbers(vf.Taskset[Say, Numbers]):
    def load(self):
        for i in range(self.config.count):
            yield Say(Data(prompt=f"Say {i}.", wanted=str(i), odd=self.config.odd))

class TwiceConfig(vf.EnvConfig):
    agent: vf.AgentConfig = vf.AgentConfig()

class Twice(vf.Env[TwiceConfig]):
    async def run(self, task, agents):
        async with agents.agent.interaction(task) as talk:
            await talk.turn()
            await talk.turn("Again.")

__all__ = ["SayNumbers", "Twice"]
"""


V1_DUEL = """
import verifiers.v1 as vf

class Say(vf.Task[vf.TaskData]):
    @vf.reward(weight=1.0)
    async def replies(self, trace) -> float:
        return float(trace.num_turns)

class Numbers(vf.Taskset[Say, vf.TasksetConfig]):
    def load(self):
        yield Say(vf.TaskData(prompt="Say."))

class DuelConfig(vf.EnvConfig):
    red: vf.AgentConfig = vf.AgentConfig()
    blue: vf.AgentConfig = vf.AgentConfig()

class Duel(vf.Env[DuelConfig]):
    async def run(self, task, agents):
        async with agents.red.interaction(task) as talk:
            await talk.turn()

__all__ = ["Numbers", "Duel"]
"""

V1_TOOLS = """
import verifiers.v1 as vf

class Search(vf.Toolset):
    @vf.tool
    async def search(self, query: str) -> str:
        "Search."
        return query

class Say(vf.Task[vf.TaskData]):
    @vf.reward(weight=1.0)
    async def replies(self, trace) -> float:
        return float(trace.num_turns)

    @classmethod
    def toolsets(cls, config):
        return [Search(vf.ToolsetConfig())]

class Numbers(vf.Taskset[Say, vf.TasksetConfig]):
    def load(self):
        yield Say(vf.TaskData(prompt="Say."))

__all__ = ["Numbers"]
"""


class ScriptedEngine:
    """Answers every request with one token and the end of the turn, each with a logprob that tells the requests
    apart. Keeps what it was sent."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.requests: list[list[int]] = []

    @property
    def generate(self) -> Any:
        return self

    async def remote(self, version: int, ids: list[int], max_tokens: int, seed: int) -> Completion:
        if self.fails:
            raise RuntimeError("EngineDeadError")
        self.requests.append(list(ids))
        logprob = -len(self.requests) / 8
        return Completion(token_ids=[28, 2], logprobs=[logprob, logprob], finish_reason="stop")
