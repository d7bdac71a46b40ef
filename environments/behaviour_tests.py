"""Behaviour tests of a program in the sandbox: expressions are evaluated there, compared here.

The expected values never enter the sandbox, so a program cannot pass by knowing them; it has to compute
them. All cases of a program share one process, and each is answered for itself.
"""

import json
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from environments.flaw import RAISES
from environments.sandbox import Limits, Outcome, Sandbox

LIMITS = Limits(wall_seconds=30, cpu_seconds=3, memory_mib=512, processes=8, file_mib=4, output_kib=64)
"""A test takes some 50 ms; the wall time leaves room for a machine on which much else runs."""

DRIVER = """
import hashlib, json, os, random, sqlite3, sys, tarfile
request = json.load(sys.stdin)
sys.path.append(request["packages"])
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

def attempt(function, *arguments):
    try:
        return function(*arguments)
    except Exception:
        return None

def fresh(optimize=0):
    space = {"__name__": "program"}
    exec(compile(request["source"], "program.py", "exec", optimize=optimize), space)
    return space

space = {**globals()}
try:
    exec(request["prelude"], space)
    space.update(fresh())
except BaseException:
    sys.exit(1)
for case in request["cases"]:
    try:
        answer = json.dumps({"value": eval(case, space)})
    except BaseException as error:
        answer = json.dumps({"raised": type(error).__name__})
    print(answer, file=answers, flush=True)
"""


@dataclass(frozen=True)
class CaseResult:
    """Whether one case held."""

    expression: str
    held: bool


async def run_cases(source: str, prelude: str, cases: Sequence[Sequence[Any]]) -> list[CaseResult]:
    """Every case of a program, each with an expression and the value it should have.

    Cases that the program does not live to see have failed. Raises SandboxError when the sandbox fails.
    """
    request = {
        "source": source,
        "prelude": prelude,
        "cases": [case[0] for case in cases],
        "packages": sysconfig.get_paths()["purelib"],
    }
    command = [sys.executable, "-I", "-S", "driver.py"]
    outcome = await Sandbox().run_async(
        {"driver.py": DRIVER}, command, limits=LIMITS, stdin=json.dumps(request)
    )
    answers = _answers(outcome)
    answers += [None] * (len(cases) - len(answers))
    return [
        CaseResult(case[0], _holds(answer, case[1]))
        for case, answer in zip(cases, answers[: len(cases)], strict=True)
    ]


def _answers(outcome: Outcome) -> list[Any]:
    answers = []
    for line in outcome.stdout.splitlines():
        try:
            answers.append(json.loads(line))
        except (ValueError, RecursionError):
            answers.append(None)
    return answers


def _holds(answer: Any, expected: Any) -> bool:
    if not isinstance(answer, dict):
        return False
    if expected == RAISES:
        return "raised" in answer
    value = answer.get("value")
    return isinstance(value, bool) == isinstance(expected, bool) and bool(value == expected)
