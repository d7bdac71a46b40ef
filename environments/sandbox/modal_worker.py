"""Runs one program inside a Sandbox of Modal's; only the standard library is there.

The request (JSON, standard input) is a program and its tier; without a program it asks what there is. The answer
(JSON, standard output) has `outcome`, or `isolation`, or, when the sandbox failed, `failure`.
"""

import json
import sys
from dataclasses import asdict
from typing import Any

from environments.sandbox.local_tiers import isolation_here, run_here, tiers
from environments.sandbox.records import Limits, Program, SandboxError

PYTHON = "{python}"
"""Stands in a command for the interpreter of the place where it runs."""


def main() -> None:
    """Reads the request, runs it and writes the answer."""
    print(json.dumps(answer(json.load(sys.stdin))))


def answer(request: dict[str, Any]) -> dict[str, Any]:
    if "program" not in request:
        return {"isolation": asdict(isolation_here(tiers()[0]))}
    fields = request["program"]
    fields["limits"] = Limits(**fields["limits"])
    fields["command"] = [sys.executable if word == PYTHON else word for word in fields["command"]]
    try:
        return {"outcome": asdict(run_here(request["tier"], Program(**fields)))}
    except SandboxError as error:
        return {"failure": str(error)}
