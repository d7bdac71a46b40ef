"""Environments of kinds that cannot be trained on, refused by name when they are loaded.

A rollout is one conversation of one trained policy, and tools are known before the first turn.
"""

import asyncio
import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

CLASSES = {
    "MCPEnv": "its tools come from MCP servers that start with the first rollout, so the policy is never shown them; "
    "write them as functions of a verifiers.ToolEnv",
    "MultiAgentEnv": "it trains several agents, and a rollout has one trained policy; choose an environment whose "
    "other agents are not trained",
}
"""Classes of classic verifiers, by the name that they or one of their bases have, and why they are refused."""


def require_supported(environment: Any) -> None:
    """Check a built classic environment.

    Raises:
        ValueError: it is of a kind that cannot be trained on; the message names its class.
    """
    for ancestor in type(environment).__mro__:
        if ancestor.__name__ in CLASSES:
            name = type(environment).__name__
            kind = "" if name == ancestor.__name__ else f" ({ancestor.__name__})"
            raise ValueError(f"{name}{kind} is not supported: {CLASSES[ancestor.__name__]}")


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
        raise ValueError(
            f"{name} is not supported: it trains several agents ({', '.join(trained)}), and a rollout has one "
            "trained policy; choose an environment whose other agents are not trained"
        )
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
