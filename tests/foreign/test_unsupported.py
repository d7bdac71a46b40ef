"""Kinds of environments that cannot be trained on are refused when they are loaded, by name."""

from types import SimpleNamespace
from typing import Any

import pytest
import verifiers as vf
from datasets import Dataset
from verifiers.envs.experimental.mcp_env import MCPEnv

from rezero_ray.foreign.rezero_child.adaptation import adapt
from rezero_ray.foreign.rezero_child.time_limits import TimeLimits
from rezero_ray.foreign.rezero_child.unsupported import require_supported_v1

ROWS = Dataset.from_list([{"question": "2 + 2?", "answer": "4"}])


def one(completion: Any) -> float:
    return 1.0


class MultiAgentEnv(vf.MultiTurnEnv):
    """As environments that bring a class of that name."""


class Duel(MultiAgentEnv):
    async def env_response(self, messages: Any, state: Any, **rest: Any) -> Any:
        return []


def given(environment: Any) -> None:
    adapt(environment, dict_messages=None, max_turns=None, limits=TimeLimits(None, None, None))


def test_mcp_tools_are_refused_by_the_name_of_the_class() -> None:
    with pytest.raises(ValueError, match=r"MCPEnv is not supported: .*MCP servers.*ToolEnv"):
        given(MCPEnv(mcp_servers=[], dataset=ROWS, rubric=vf.Rubric(funcs=[one])))


def test_several_trained_agents_are_refused_by_the_name_of_the_class() -> None:
    with pytest.raises(
        ValueError, match=r"Duel \(MultiAgentEnv\) is not supported: it trains several agents"
    ):
        given(Duel(dataset=ROWS, rubric=vf.Rubric(funcs=[one])))


@pytest.mark.parametrize("attribute", ["trainable", "is_trainable"])
@pytest.mark.parametrize("held", [list, lambda agents: dict(enumerate(agents))])
def test_several_agents_that_say_they_are_trained_are_refused(attribute: str, held: Any) -> None:
    def environment(*trained: bool) -> Any:
        agents = held([SimpleNamespace(**{attribute: each}) for each in trained])
        return vf.SingleTurnEnv(dataset=ROWS, rubric=vf.Rubric(funcs=[one]), agents=agents)

    given(environment(True, False))
    with pytest.raises(ValueError, match="SingleTurnEnv is not supported: it trains several agents"):
        given(environment(True, True))


def test_one_that_is_refused_is_found_within_a_group_of_environments() -> None:
    plain = vf.SingleTurnEnv(dataset=ROWS, rubric=vf.Rubric(funcs=[one]))
    duel = Duel(dataset=ROWS, rubric=vf.Rubric(funcs=[one]))
    with pytest.raises(ValueError, match="Duel"):
        given(vf.EnvGroup(envs=[plain, duel], env_names=["plain", "duel"]))
    given(plain)


def v1_environment(*untrained: str, tools: tuple[Any, ...] = ()) -> Any:
    """What `require_supported_v1` asks of an environment of verifiers 0.4."""

    class Task:
        @classmethod
        def toolsets(cls, config: Any) -> list[Any]:
            return list(tools)

    class Numbers:
        config = SimpleNamespace(task=None)

        @classmethod
        def task_type(cls) -> type:
            return Task

        def toolsets(self, config: Any) -> list[Any]:
            return []

    class Arena:
        taskset = Numbers()

        async def setup(self, agents: Any) -> None:
            for name in untrained:
                getattr(agents, name).trainable = False

    return Arena()


class Search:
    """A tool server."""


def test_an_environment_of_v1_may_train_one_of_its_agents() -> None:
    require_supported_v1(v1_environment(), ["agent"], ["agent"])
    require_supported_v1(v1_environment("judge"), ["agent", "judge"], ["agent", "judge"])
    with pytest.raises(ValueError, match=r"Arena is not supported: it trains several agents \(red, blue\)"):
        require_supported_v1(v1_environment("judge"), ["red", "blue", "judge"], [])


def test_an_environment_of_v1_may_offer_mcp_tools_to_agents_with_a_harness_for_them() -> None:
    environment = v1_environment(tools=(Search(),))
    with pytest.raises(
        ValueError, match=r"Numbers is not supported: it offers MCP tools \(Search\).*\(agent\)"
    ):
        require_supported_v1(environment, ["agent"], ["agent"])
    require_supported_v1(environment, ["agent"], [])


def test_an_environment_of_v1_that_cannot_be_asked_beforehand_is_asked_by_its_episodes() -> None:
    environment = v1_environment("nobody")  # setup fails: there is no such agent
    require_supported_v1(environment, ["red", "blue"], [])
