"""The child's main loop: records in from standard input, records out to what was standard output.

    in:  load, prompts, describe, example, run_group, cancel (each with `request`); answer (with `call`)
    out: result or error (with `request`); complete (with `call`), a question to the policy

What the environment prints goes to standard error. The end of the input is the end of this process and of all that
it started.
"""

import asyncio
import os
import signal
import sys
import threading
import traceback
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

from . import frames
from .adaptation import numbers
from .contained import ModuleExited, as_exception
from .examples import longest_prompts
from .model_call import Answer, AskPolicy, CallFailed
from .time_limits import TimeLimits


def main() -> None:
    """Serves until the input ends."""
    records_in, records_out = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb", buffering=0)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    records_out.write(frames.READY)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    asyncio.run(Service(records_out).serve(records_in))


class Service:
    """One environment, many groups at a time."""

    def __init__(self, records_out: BinaryIO) -> None:
        self._out = records_out
        self._environment: Any = None
        self._groups: dict[int, asyncio.Task[Any]] = {}
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._call = 0

    async def serve(self, records_in: BinaryIO) -> None:
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, args=(records_in, loop), daemon=True).start()
        await asyncio.Event().wait()

    def _read(self, records_in: BinaryIO, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while (record := frames.read_record(records_in)) is not None:
                loop.call_soon_threadsafe(self._take, record)
        except Exception:
            traceback.print_exc()
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(0)

    def _take(self, record: dict[str, Any]) -> None:
        if record["do"] == "answer":
            waiting = self._waiting.pop(record["call"], None)
            if waiting is not None and not waiting.done():
                waiting.set_result(record)
        elif record["do"] == "cancel":
            group = self._groups.get(record["group"])
            if group is not None:
                group.cancel()
            self._send({"request": record["request"], "result": None})
        else:
            task = asyncio.ensure_future(self._carry_out(record))
            self._groups[record["request"]] = task
            task.add_done_callback(lambda _: self._groups.pop(record["request"], None))

    async def _carry_out(self, record: dict[str, Any]) -> None:
        request = record["request"]
        try:
            result = await self._result_of(record)
        except asyncio.CancelledError:
            return
        except BaseException as problem:
            traceback.print_exc()
            self._send({"request": request, "error": _text(problem)})
            return
        try:
            self._send({"request": request, "result": result})
        except (TypeError, ValueError) as problem:
            self._send({"request": request, "error": f"the result cannot be told: {problem}"})

    async def _result_of(self, record: dict[str, Any]) -> Any:
        match record["do"]:
            case "load":
                return self._load(record)
            case "prompts":
                return longest_prompts(self._environment.prompts(), record["bytes"])
            case "describe":
                return self._environment.describe()
            case "example":
                return self._environment.example(record["number"])
            case "run_group":
                ask = self._asking(record["request"])
                return await self._environment.run_group(
                    record["example"], record["held_out"], record["rollouts"], ask
                )
            case unknown:
                raise ValueError(f"there is no request {unknown!r}")

    def _load(self, record: dict[str, Any]) -> dict[str, Any]:
        try:
            found = version("verifiers")
        except PackageNotFoundError:
            raise ModuleNotFoundError("verifiers is not installed in this interpreter") from None
        limits = TimeLimits(**record["limits"])
        zero_errors = record.get("reward_errors") == "zero"
        if numbers(found) >= (0, 4):
            from .v1 import V1Environment

            environment: Any = V1Environment(
                record["id"],
                record["args"],
                max_turns=record["max_turns"],
                limits=limits,
                zero_errors=zero_errors,
            )
        elif numbers(found) >= (0, 1, 10):
            from .classic import ClassicEnvironment

            environment = ClassicEnvironment(
                record["module"],
                record["loader"],
                record["args"],
                max_turns=record["max_turns"],
                dict_messages=record["dict_messages"],
                limits=limits,
                zero_errors=zero_errors,
            )
        else:
            raise ValueError(f"verifiers {found} is older than 0.1.10, the first that is supported")
        self._environment = environment
        python = ".".join(map(str, sys.version_info[:3]))
        return {**environment.facts, "verifiers": found, "python": python}

    def _asking(self, request: int) -> AskPolicy:
        async def ask(rollout: int, messages: list[dict[str, Any]], tools: list[Any]) -> Answer:
            self._call += 1
            call = self._call
            waiting = self._waiting[call] = asyncio.get_running_loop().create_future()
            question = {
                "do": "complete",
                "call": call,
                "request": request,
                "rollout": rollout,
                "messages": messages,
                "tools": tools,
            }
            try:
                self._send(question)
                record = await waiting
            except ValueError as problem:
                raise CallFailed(f"the conversation cannot be told: {problem}") from problem
            finally:
                self._waiting.pop(call, None)
            if record.get("error") is not None:
                raise CallFailed(record["error"])
            return Answer(
                call, record["text"], record["finish_reason"], record["overlong"], record["tool_calls"]
            )

        return ask

    def _send(self, record: dict[str, Any]) -> None:
        rest = memoryview(frames.pack(record))
        while rest:
            rest = rest[self._out.write(rest) :]


def _text(problem: BaseException) -> str:
    if isinstance(problem, ModuleExited):
        return str(problem)
    if not isinstance(problem, Exception):
        return f"its code {as_exception(problem)}"
    return f"{type(problem).__name__}: {problem}"
