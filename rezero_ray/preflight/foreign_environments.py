"""Environments in a process of their own, with their own interpreter or ours: asked, and tried with answers where
that is wanted. Nothing of them is imported in this process.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rezero_ray.config import Problem
from rezero_ray.config.environment import EnvConfig
from rezero_ray.config.problems import shown
from rezero_ray.environments_index import install_hint
from rezero_ray.foreign.interpreter import Interpreter, InterpreterProblem
from rezero_ray.foreign.process import ChildFailed
from rezero_ray.preflight.environment_child import EnvironmentChild
from rezero_ray.preflight.environment_report import EnvironmentReport, what_makes_it
from rezero_ray.preflight.environment_scoring import Effort, examine_scoring


@dataclass(frozen=True)
class Seen:
    """What a child told of its environment. `size` counts its training tasks; `report` is None where it was not
    tried."""

    prompts: list[Any]
    turns: int
    size: int
    held_out: int
    tools: list[dict[str, Any]]
    notes: list[str]
    report: EnvironmentReport | None = None


def lives_elsewhere(env: EnvConfig) -> bool:
    return bool(env.requirements or env.python)


def interpreter_of(env: EnvConfig) -> Interpreter:
    return Interpreter(tuple(env.requirements), env.python)


async def look_into(
    index: int, env: EnvConfig, *, seconds: float, most_bytes: int, effort: Effort | None = None
) -> Seen | Problem:
    """Make the interpreter, load the environment in it and ask for its longest prompts, in `seconds` each."""
    key, python = f"orchestrator.env.{index}", None
    try:
        if lives_elsewhere(env):
            python = await asyncio.to_thread(interpreter_of(env).path, seconds)
        async with EnvironmentChild.started(python, env, start_seconds=seconds) as child:
            longest = await child.prompts(most_bytes)
            report = None
            if effort is not None and longest and not child.facts["other_model"]:
                report = await examine_scoring(python, env, child, effort, start_seconds=seconds)
    except InterpreterProblem as problem:
        field, value = ("requirements", env.requirements) if env.requirements else ("python", env.python)
        what = f"the interpreter of {env.name} cannot be made: {problem}"
        return Problem(f"{key}.{field}", what, "write what can be installed together", shown(value))
    except TimeoutError:
        what = f"{env.name} was not loaded within limits.engine_start = {seconds:.0f} s"
        return Problem(f"{key}.id", what, "raise that limit, or see what its loading waits for")
    except ChildFailed as problem:
        return replace(_not_loaded(key, env, python, str(problem)), others=what_makes_it(index))
    if child.facts["unreachable"]:
        return not_reached(index, child.facts["unreachable"])
    facts = child.facts
    return Seen(
        prompts=longest,
        turns=int(facts["turns"]),
        size=int(facts["size"]),
        held_out=int(facts["held_out"]),
        tools=facts["tools"],
        notes=_notes(env, facts),
        report=report,
    )


def not_reached(index: int, trouble: str) -> Problem:
    """What the environment says of an endpoint that it needs."""
    return Problem(f"orchestrator.env.{index}.args", trouble, "start it, or correct what args say of it")


def _not_loaded(key: str, env: EnvConfig, python: Path | None, why: str) -> Problem:
    if not lives_elsewhere(env):
        field, value = ("args", dict(env.args)) if env.args else ("id", env.id)
        remedy = (
            "change or drop the args" if env.args else "call its load_environment() by itself to see more"
        )
        return Problem(f"{key}.{field}", f"{env.name} cannot be built: {why}", remedy, shown(value))
    remedy = "change its args, or its requirements"
    if "ModuleNotFoundError" in why:
        remedy = f"add its package to the requirements; {install_hint(env.id)} (in {python})"
    return Problem(f"{key}.id", f"{env.name} cannot be loaded by {python}: {why}", remedy, shown(env.id))


def _notes(env: EnvConfig, facts: Mapping[str, Any]) -> list[str]:
    where = f"environment {env.name}: {facts['size']} examples, {facts['class']} of verifiers {facts['verifiers']}"
    return [
        f"{where} on Python {facts['python']}",
        *(f"environment {env.name}: {note}" for note in facts["notes"]),
    ]
