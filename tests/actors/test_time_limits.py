"""Claims about environments that are slow: what is over its limit is an error, what is slow holds up nobody. The
worker is the real one, outside Ray; a script stands in for the engine and its parser."""

import asyncio
import importlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.environment_worker import EnvironmentWorker
from rezero_ray.codec import decode
from rezero_ray.errors import RunError
from rezero_ray.foreign.rezero_child.bounded_calls import BoundedCalls, Overran
from rezero_ray.records import Group, Prompt
from rezero_ray.schedule import Send
from tests.actors.calling_engine import CallingEngine
from tests.record_builders import SMOLLM2, make_config

MODULE = """
import asyncio, threading, time
import verifiers as vf
from datasets import Dataset

SCORING, RELEASED, LOOKING = threading.Event(), threading.Event(), threading.Event()

def load_environment(slow="") -> vf.Environment:
    def look() -> str:
        LOOKING.set()
        if slow == "sync tool":
            time.sleep(1)
        return "waited" if slow != "waiting tool" or RELEASED.wait(5) else "held up"

    async def wait() -> str:
        await asyncio.sleep(3600 if slow == "async tool" else 0)
        return "waited"

    def score(completion) -> float:
        if slow == "sync score":
            time.sleep(1)
        return 0.5

    async def score_late(completion) -> float:
        await asyncio.sleep(3600 if slow == "async score" else 0)
        return 0.0

    def score_when_released(prompt) -> float:
        if slow != "waiting score" or prompt[-1]["content"] != "Say 1.":
            return 0.0
        SCORING.set()
        return 0.25 if RELEASED.wait(5) else -1.0

    rows = [{"prompt": [{"role": "user", "content": f"Say {i}."}], "answer": ""} for i in range(4)]
    rubric = vf.Rubric(funcs=[score, score_late, score_when_released])
    return vf.ToolEnv(dataset=Dataset.from_list(rows), rubric=rubric, tools=[look, wait], max_turns=3)
"""


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module of the environment `slow`."""
    (tmp_path / "slow_env.py").write_text(MODULE, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("slow_env")
    sys.modules.pop("slow_env", None)


def worker_of(slow: str, **limits: float) -> Any:
    config = make_config(
        model__name=str(SMOLLM2),
        seq_len=512,
        limits__group=20.0,
        inference__model={"enable_auto_tool_choice": True, "tool_call_parser": "hermes"},
        orchestrator__env=[{"id": "slow-env", "args": {"slow": slow}, **limits}],
    )
    return EnvironmentWorker.__ray_metadata__.modified_class(config, config.orchestrator.env[0])


async def one_group(worker: Any, engine: CallingEngine, *, example: int = 1) -> Group:
    send = Send(Prompt(index=3, environment="slow-env", example=example), engine=0, version=7, attempt=1)
    return decode(await worker.run_group(send, engine), Group)


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize(
    ("what", "limits", "said"),
    [
        ("sync tool", {"tool_timeout": 0.05}, r"tool look took longer than tool_timeout = 0\.05 s"),
        ("async tool", {"tool_timeout": 0.05}, r"tool wait took longer than tool_timeout = 0\.05 s"),
        ("async tool", {"rollout_timeout": 0.2}, r"a rollout took longer than rollout_timeout = 0\.2 s"),
        ("sync score", {"score_timeout": 0.05}, r"score took longer than score_timeout = 0\.05 s"),
        ("async score", {"score_timeout": 0.05}, r"score_late took longer than score_timeout = 0\.05 s"),
    ],
)
def test_what_runs_over_its_limit_is_an_error_that_says_what_it_was(
    what: str, limits: dict[str, float], said: str
) -> None:
    engine = CallingEngine("wait" if what == "async tool" else "look")
    with pytest.raises(RunError, match=said) as found:
        asyncio.run(one_group(worker_of(what, **limits), engine))
    assert found.value.kind == "environment"


@pytest.mark.usefixtures("slow")
def test_within_its_limits_a_group_is_scored_and_its_scoring_timed() -> None:
    limits = {"tool_timeout": 5.0, "score_timeout": 5.0, "rollout_timeout": 10.0}
    group = asyncio.run(one_group(worker_of("", **limits), CallingEngine()))
    assert [(rollout.reward, rollout.turns) for rollout in group.rollouts] == [(0.5, 2), (0.5, 2)]
    assert [message["role"] for message in group.rollouts[0].text] == ["assistant", "tool", "assistant"]
    assert group.scoring is not None and 0 < group.scoring < group.seconds


def test_slow_scoring_does_not_hold_up_another_groups_model_calls(slow: Any) -> None:
    """A group's scoring waits for a model call of another, which can only come if the event loop goes on."""

    async def session() -> Group:
        worker = worker_of("waiting score")
        first = asyncio.ensure_future(one_group(worker, CallingEngine(), example=1))
        assert await asyncio.to_thread(slow.SCORING.wait, 10)
        second = asyncio.ensure_future(
            one_group(worker, CallingEngine(on_request=slow.RELEASED.set), example=2)
        )
        groups = await asyncio.gather(first, second)
        return groups[0]

    assert [rollout.reward for rollout in asyncio.run(session()).rollouts] == [0.75, 0.75]


def test_a_slow_tool_does_not_hold_up_another_groups_model_calls(slow: Any) -> None:
    async def session() -> Group:
        worker = worker_of("waiting tool")
        first = asyncio.ensure_future(one_group(worker, CallingEngine(), example=1))
        assert await asyncio.to_thread(slow.LOOKING.wait, 10)
        second = asyncio.ensure_future(
            one_group(worker, CallingEngine(on_request=slow.RELEASED.set), example=2)
        )
        groups = await asyncio.gather(first, second)
        return groups[0]

    group = asyncio.run(session())
    assert {rollout.text[1]["content"] for rollout in group.rollouts} == {"waited"}


def test_functions_that_are_no_coroutines_run_one_at_a_time() -> None:
    running, most = 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.002)
        with lock:
            running -= 1

    async def session() -> None:
        calls = BoundedCalls()
        await asyncio.gather(*(calls.call(work, {}, None, "") for _ in range(10)))

    asyncio.run(session())
    assert most == 1


def test_a_loop_that_is_given_up_ends_and_the_next_call_does_not_wait_for_it() -> None:
    ended = threading.Event()

    def never_ends() -> None:
        try:
            while True:
                pass
        finally:
            ended.set()

    async def session() -> int:
        calls = BoundedCalls()
        with pytest.raises(Overran, match=r"it took longer than the limit = 0\.05 s"):
            await calls.call(never_ends, {}, 0.05, "it took longer than the limit")
        return int(await calls.call(lambda: 7, {}, 1.0, ""))

    assert asyncio.run(session()) == 7
    assert ended.wait(5)
