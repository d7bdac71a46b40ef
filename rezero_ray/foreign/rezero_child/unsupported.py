"""Environments of kinds that cannot be trained on, refused by name when they are loaded.

A rollout is one conversation of one trained policy, and tools are known before the first turn.
"""

import asyncio
import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

SEVERAL = (
    "it trains several agents, and a rollout has one trained policy; choose an environment whose other agents are "
    "not trained"
)

CLASSES = {
    "MCPEnv": "its tools come from MCP servers that start with the first rollout, so the policy is never shown them; "
    "write them as functions of a verifiers.ToolEnv",
    "MultiAgent": SEVERAL,
}
"""How the name of a class of classic verifiers, or of one of its bases, begins, and why it is refused."""


def require_supported(environment: Any) -> None:
    """Check a built classic environment.

    Raises:
        ValueError: it is of a kind that cannot be trained on; the message names its class.
    """
    name = type(environment).__name__
    for ancestor in type(environment).__mro__:
        for beginning, why in CLASSES.items():
            if ancestor.__name__.startswith(beginning):
                kind = "" if name == ancestor.__name__ else f" ({ancestor.__name__})"
                raise ValueError(f"{name}{kind} is not supported: {why}")
    trained = [agent for agent in _agents(environment) if _is_trained(agent)]
    if len(trained) > 1:
        raise ValueError(f"{name} is not supported: {SEVERAL}")


def _agents(environment: Any) -> list[Any]:
    """What an environment calls its agents, where it has some."""
    found: list[Any] = []
    for name in ("agents", "actors"):
        given = getattr(environment, name, None)
        if isinstance(given, dict):
            found += given.values()
        elif isinstance(given, list | tuple):
            found += given
    return found


def _is_trained(agent: Any) -> bool:
    return True in (getattr(agent, "trainable", None), getattr(agent, "is_trainable", None))


def require_supported_v1(environment: Any, roles: Sequence[str], without_tools: Sequence[str]) -> None:
    """Check a built environment of verifiers v1 (0.4).

    Args:
        environment: a `verifiers.v1.Env`.
        roles: its agents.
        without_tools: those of them whose harness calls no tools.

    Raises:
        ValueError: it trains several agents, or agents without tools are given MCP tools.
    """
    name, taskset = type(environment).__name__, environment.taskset
    trained = _trained(environment, roles)
    if len(trained) > 1:
        several = SEVERAL.replace("several agents", f"several agents ({', '.join(trained)})")
        raise ValueError(f"{name} is not supported: {several}")
    tools = [*taskset.toolsets(taskset.config), *type(taskset).task_type().toolsets(taskset.config.task)]
    if tools and without_tools:
        named = ", ".join(sorted({type(each).__name__ for each in tools}))
        raise ValueError(
            f"{type(taskset).__name__} is not supported: it offers MCP tools ({named}), and agents without a harness "
            f"of their own ({', '.join(without_tools)}) call no tools; choose a harness that does, or a "
            "verifiers.ToolEnv"
        )


def _trained(environment: Any, roles: Sequence[str]) -> list[str]:
    """The agents that `setup` leaves trainable; the first alone where it cannot be asked without an episode."""
    standing = {role: SimpleNamespace(trainable=True) for role in roles}
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            asyncio.run(environment.setup(SimpleNamespace(**standing)))
        except Exception as error:  # foreign code, which expects real agents
            failed.append(error)

    thread = threading.Thread(target=ask)  # a loop is running in this one
    thread.start()
    thread.join()
    trained = [role for role in roles if standing[role].trainable]
    return trained[:1] if failed else trained
