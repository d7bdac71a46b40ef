"""Environments with an interpreter of their own: made here if it is not there, and asked. Nothing of them is imported
in this process."""

import asyncio
from dataclasses import dataclass
from typing import Any

from rezero_ray.config import Problem
from rezero_ray.config.environment import EnvConfig
from rezero_ray.config.problems import shown
from rezero_ray.environments_index import install_hint
from rezero_ray.foreign.interpreter import Interpreter, InterpreterProblem
from rezero_ray.foreign.loading import load_record
from rezero_ray.foreign.process import ChildFailed, ChildProcess


@dataclass(frozen=True)
class Seen:
    """What a child told of its environment."""

    prompts: list[Any]
    turns: int
    tools: list[dict[str, Any]]
    notes: list[str]


def lives_elsewhere(env: EnvConfig) -> bool:
    return bool(env.requirements or env.python)


def interpreter_of(env: EnvConfig) -> Interpreter:
    return Interpreter(tuple(env.requirements), env.python)


def look_into(index: int, env: EnvConfig, *, seconds: float, prompts: int) -> Seen | Problem:
    """Make the interpreter, load the environment in it and ask for its longest prompts, in `seconds` each."""
    key = f"orchestrator.env.{index}"
    try:
        python = interpreter_of(env).path(seconds)
    except InterpreterProblem as problem:
        field, value = ("requirements", env.requirements) if env.requirements else ("python", env.python)
        what = f"the interpreter of {env.id} cannot be made: {problem}"
        return Problem(f"{key}.{field}", what, "write what can be installed together", shown(value))
    try:
        return asyncio.run(asyncio.wait_for(_ask(python, env, prompts), seconds))
    except TimeoutError:
        what = f"{env.id} was not loaded within limits.engine_start = {seconds:.0f} s"
        return Problem(f"{key}.id", what, "raise that limit, or see what its load_environment waits for")
    except ChildFailed as problem:
        remedy = "change its args, or its requirements"
        if "ModuleNotFoundError" in str(problem):
            remedy = f"add its package to the requirements; {install_hint(env.id)} (in {python})"
        return Problem(
            f"{key}.id", f"{env.id} cannot be loaded by {python}: {problem}", remedy, shown(env.id)
        )


async def _ask(python: Any, env: EnvConfig, prompts: int) -> Seen:
    child = await ChildProcess.start(python)
    try:
        facts = await child.ask("load", **load_record(env))
        longest = await child.ask("prompts", count=prompts)
    finally:
        await child.kill()
    where = (
        f"environment {env.id}: {facts['size']} examples, {facts['class']} of verifiers {facts['verifiers']}"
    )
    notes = [
        f"{where} on Python {facts['python']}",
        *(f"environment {env.id}: {note}" for note in facts["notes"]),
    ]
    return Seen(longest, int(facts["turns"]), facts["tools"], notes)
