"""Claims about environments under another verifiers: the worker and the child are the real ones, each in a virtual
environment that uv makes from the package index; a script stands in for the engine."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.environment_worker import EnvironmentWorker
from rezero_ray.codec import decode
from rezero_ray.config.environment import EnvConfig
from rezero_ray.errors import RunError
from rezero_ray.foreign.loading import load_record
from rezero_ray.foreign.process import ChildFailed
from rezero_ray.preflight.environment_child import EnvironmentChild
from rezero_ray.preflight.foreign_environments import interpreter_of
from rezero_ray.preflight.probes import EMPTY, Probe, prompt_text
from rezero_ray.records import Group, Prompt, Sizes
from rezero_ray.schedule import Send
from tests.actors.calling_engine import CallingEngine
from tests.actors.foreign_environments import CLASSIC, TOOLS, V1, V1_DUEL, V1_TOOLS, ScriptedEngine
from tests.foreign_interpreters import REQUIREMENTS, interpreter
from tests.record_builders import SMOLLM2, make_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

VERSIONS = {"0.1.10": "toy-classic", "0.3.1": "toy-classic", "0.4.0": "toy-v1"}
OPTIONS: dict[str, dict[str, Any]] = {
    "0.1.10": {"timeout": 8.0},
    "0.3.1": {},
    "0.4.0": {"args": {"count": 5}},
}

PLAIN: dict[str, Any] = {"max_turns": 1, "raw_reward_range": (0.0, 0.5), "dict_messages": False}


@pytest.fixture(scope="module", autouse=True)
def toys(interpreters_of_the_session: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An interpreter for each version, and the toys where those find them."""
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "toy_classic.py").write_text(CLASSIC, "utf-8")
    (folder / "toy_tools.py").write_text(TOOLS, "utf-8")
    (folder / "toy_v1.py").write_text(V1, "utf-8")
    (folder / "toy_duel.py").write_text(V1_DUEL, "utf-8")
    (folder / "toy_search.py").write_text(V1_TOOLS, "utf-8")
    with pytest.MonkeyPatch.context() as changes:
        changes.setenv("PYTHONPATH", str(folder))
        for version in VERSIONS:
            interpreter(version)
        yield


@pytest.fixture(scope="module")
def workers() -> Iterator[Callable[..., Any]]:
    """Runs what it is given with the worker of a version and of these settings; its child stays for the next."""
    loop, there = asyncio.new_event_loop(), {}

    def run(version: str, use: Callable[[Any], Coroutine[Any, Any, None]], **settings: Any) -> None:
        key = f"{version} {settings}"
        if key not in there:
            environment = {"id": VERSIONS[version], "requirements": REQUIREMENTS[version], **settings}
            config = make_config(
                model__name=str(SMOLLM2),
                seq_len=512,
                limits__group=300.0,
                inference__model={"enable_auto_tool_choice": True, "tool_call_parser": "hermes"},
                orchestrator__env=[environment],
            )
            there[key] = EnvironmentWorker.__ray_metadata__.modified_class(config, config.orchestrator.env[0])
        loop.run_until_complete(use(there[key]))

    yield run
    for worker in there.values():
        loop.run_until_complete(worker._environment.close())
    loop.close()


async def one_group(worker: Any, engine: Any, *, example: int = 1) -> Group:
    send = Send(Prompt(index=3, environment="toy", example=example), engine=0, version=7, attempt=1)
    return decode(await worker.run_group(send, engine), Group)


@pytest.mark.parametrize(
    ("version", "reward", "size"), [("0.1.10", 0.5, 6), ("0.3.1", 0.5, 6), ("0.4.0", 1.0, 5)]
)
def test_two_turns_are_scored_and_their_ids_line_up(
    workers: Any, version: str, reward: float, size: int
) -> None:
    """0.25 a reply where messages are dicts, half a turn under v1: two of each."""

    async def use(worker: Any) -> None:
        assert await worker.sizes() == Sizes(size, 0)
        engine = ScriptedEngine()
        group = await one_group(worker, engine)
        assert [rollout.reward for rollout in group.rollouts] == [reward, reward]
        assert group.policy_version == 7
        for rollout in group.rollouts:
            ids = rollout.token_ids.tolist()
            assert rollout.turns == 2 and rollout.loss_mask.sum() == 4
            own = [request for request in engine.requests if request == ids[: len(request)]]
            first, second = own[0], own[-1]
            assert ids == [*second, 28, 2] and second[: len(first) + 2] == [*first, 28, 2]
            assert [message["role"] for message in rollout.text] == ["assistant", "user", "assistant"]
        logprobs = np.concatenate([rollout.logprobs[rollout.loss_mask == 1] for rollout in group.rollouts])
        assert sorted(set((logprobs * -8).tolist())) == [1.0, 2.0, 3.0, 4.0]

    workers(version, use, **OPTIONS[version])


@pytest.mark.parametrize("version", list(VERSIONS))
def test_a_raising_reward_function_is_an_error_of_the_environment(workers: Any, version: str) -> None:
    async def use(worker: Any) -> None:
        with pytest.raises(RunError, match="ZeroDivisionError: no tests were run") as found:
            await one_group(worker, ScriptedEngine(), example=4)
        assert found.value.kind == "environment"

    workers(version, use, **OPTIONS[version])


@pytest.mark.parametrize(("version", "reward"), [("0.1.10", 0.5), ("0.3.1", 0.5), ("0.4.0", 1.0)])
def test_a_function_that_returns_no_number_or_exits_counts_as_zero_only_where_that_was_asked_for(
    workers: Any, version: str, reward: float
) -> None:
    options = {"args": {**OPTIONS[version].get("args", {}), "odd": True}}

    async def use(worker: Any) -> None:
        with pytest.raises(RunError, match=r"listed returned a list of 1|leaves called sys\.exit") as found:
            await one_group(worker, ScriptedEngine())
        assert found.value.kind == "environment"

    async def use_zero(worker: Any) -> None:
        for rollout in (await one_group(worker, ScriptedEngine())).rollouts:
            assert rollout.reward == reward and rollout.zeroed.keys() == {"listed", "leaves"}
            assert rollout.zeroed["leaves"] == "leaves called sys.exit(3)"

    workers(version, use, **options)
    workers(version, use_zero, **options, reward_errors="zero")


@pytest.mark.parametrize("version", list(VERSIONS))
def test_an_engine_that_fails_is_the_engines_error(workers: Any, version: str) -> None:
    async def use(worker: Any) -> None:
        with pytest.raises(RunError, match="EngineDeadError") as found:
            await one_group(worker, ScriptedEngine(fails=True))
        assert found.value.kind == "engine"

    workers(version, use, **OPTIONS[version])


def test_a_child_that_is_killed_fails_its_groups_and_comes_back(workers: Any) -> None:
    async def use(worker: Any) -> None:
        await one_group(worker, ScriptedEngine())
        child = worker._environment._child

        class Killer(ScriptedEngine):
            async def remote(self, version: int, ids: list[int], max_tokens: int, seed: int) -> Any:
                os.kill(child.pid, signal.SIGKILL)
                await asyncio.sleep(60)

        with pytest.raises(RunError, match="ended with signal 9") as found:
            await one_group(worker, Killer())
        assert found.value.kind == "environment"
        group = await one_group(worker, ScriptedEngine())
        assert [rollout.reward for rollout in group.rollouts] == [0.5, 0.5]
        assert worker._environment._child.pid != child.pid

    workers("0.1.10", use, **OPTIONS["0.1.10"])


def test_a_child_that_hangs_is_given_up_and_ended(workers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.child_environment.DEAF_SECONDS", 1.0)

    async def use(worker: Any) -> None:
        await worker.sizes()
        child = worker._environment._child
        with pytest.raises(RunError, match=r"no score within its timeout = 8 s") as found:
            await one_group(worker, ScriptedEngine(), example=5)
        assert found.value.kind == "environment"
        async with asyncio.timeout(10):
            while child.alive:
                await asyncio.sleep(0.05)

    workers("0.1.10", use, **OPTIONS["0.1.10"])


def test_many_groups_share_a_child_and_a_raw_range_is_mapped(workers: Any) -> None:
    async def use(worker: Any) -> None:
        groups = await asyncio.gather(
            *(one_group(worker, ScriptedEngine(), example=example) for example in range(4))
        )
        assert [len(group.rollouts) for group in groups] == [2] * 4
        prompts = {tuple(g.rollouts[0].token_ids[: g.rollouts[0].prompt_length].tolist()) for g in groups}
        assert len(prompts) == 4
        # one turn is worth 0.25, which is in the middle of [0, 0.5]
        assert {rollout.reward for group in groups for rollout in group.rollouts} == {0.0}

    workers("0.3.1", use, **PLAIN)


@pytest.mark.parametrize(("settings", "dicts"), [({}, 3.0), (PLAIN, 0.0)], ids=["by itself", "forbidden"])
def test_dict_messages_are_restored_where_the_code_asks_for_them(
    workers: Any, settings: dict[str, Any], dicts: float
) -> None:
    """Under 0.3.1, which has other messages. `dicts` of the toy counts those of a completion."""

    async def use(worker: Any) -> None:
        group = await one_group(worker, ScriptedEngine())
        assert [rollout.components["dicts"] for rollout in group.rollouts] == [dicts, dicts]
        assert bool(worker._environment._facts["notes"]) == (dicts > 0)

    workers("0.3.1", use, **settings)


@pytest.mark.parametrize("version", ["0.1.10", "0.3.1"])
def test_tools_are_offered_called_and_answered_and_a_slow_one_is_an_error(workers: Any, version: str) -> None:
    async def use(worker: Any) -> None:
        engine = CallingEngine("look", '{"where": "the log"}')
        group = await one_group(worker, engine)
        (tool,) = engine.tools
        assert tool["function"]["name"] == "look" and "where" in tool["function"]["parameters"]["properties"]
        for rollout in group.rollouts:
            assert (rollout.reward, rollout.turns, rollout.components["look_calls"]) == (0.5, 2, 1.0)
            assert [message["role"] for message in rollout.text] == ["assistant", "tool", "assistant"]
            assert rollout.text[0]["content"] == 'look({"where": "the log"})'
            assert rollout.text[1]["content"] == "nothing in the log"
        assert group.scoring is not None
        with pytest.raises(RunError, match=r"tool look took longer than tool_timeout = 1 s") as found:
            await one_group(worker, CallingEngine("look", '{"where": "far away"}'))
        assert found.value.kind == "environment"

    workers(version, use, id="toy-tools", tool_timeout=1.0)


def test_v1_environments_of_several_trained_agents_or_with_mcp_tools_are_refused_at_load(
    workers: Any,
) -> None:
    async def use(worker: Any) -> None:
        await worker.sizes()
        for name, said in {
            "toy-duel": r"Duel is not supported: it trains several agents \(red, blue\)",
            "toy-search": r"Numbers is not supported: it offers MCP tools \(Search\)",
        }.items():
            record = load_record(worker._settings.model_copy(update={"id": name, "args": {}}))
            with pytest.raises(ChildFailed, match=said):
                await worker._environment._child.ask("load", **record)

    workers("0.4.0", use, args={"count": 5}, timeout=100.0)


def test_v1_rollouts_and_their_scoring_have_limits_and_its_tools_none(workers: Any) -> None:
    class Silent(ScriptedEngine):
        async def remote(self, version: int, ids: list[int], max_tokens: int, seed: int) -> Any:
            await asyncio.sleep(3600)

    async def use(worker: Any) -> None:
        with pytest.raises(RunError, match=r"a rollout took longer than rollout_timeout = 2 s"):
            await one_group(worker, Silent())
        with pytest.raises(RunError, match=r"scoring took longer than score_timeout = 1 s"):
            await one_group(worker, ScriptedEngine(), example=3)
        tool_limit = load_record(worker._settings.model_copy(update={"tool_timeout": 1.0}))
        with pytest.raises(ChildFailed, match="tool_timeout = 1: verifiers v1 has its tools"):
            await worker._environment._child.ask("load", **tool_limit)

    workers("0.4.0", use, args={"count": 5}, rollout_timeout=2.0, score_timeout=1.0)


@pytest.mark.parametrize(("version", "size", "sleeper"), [("0.1.10", 6, 5), ("0.4.0", 5, None)])
def test_the_check_tries_it_with_answers_in_its_own_interpreter(
    version: str, size: int, sleeper: int | None
) -> None:
    """Example 4 of either raises, example 5 of the classic one never ends."""
    settings = {**OPTIONS[version], "timeout": 2.0}
    env = EnvConfig.model_validate(
        {"id": VERSIONS[version], "requirements": REQUIREMENTS[version], **settings}
    )

    async def try_it() -> None:
        python = interpreter_of(env).path(300)
        async with EnvironmentChild.started(python, env, start_seconds=300) as child:
            described = await child.describe()
            assert len(set(described["train"])) == size and described["held_out"] == []
            example = await child.example(1)
            assert prompt_text(example.prompt) == "Say 1." and example.solution is None
            good, again = (await child.score(Probe(EMPTY, 1, ("",)), times=2)).rewards
            assert good == again > 0
            raised = await child.score(Probe(EMPTY, 4, ("",)))
            assert "ZeroDivisionError: no tests were run" in str(raised.wrong)
            if sleeper is not None:
                with pytest.raises(TimeoutError):
                    await child.score(Probe(EMPTY, sleeper, ("",)))

    asyncio.run(try_it())
