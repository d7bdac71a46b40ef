"""The child process of an environment: started in its interpreter, asked over pipes, ended with all it started."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from rezero_ray.foreign.rezero_child import frames

_START = (
    "import sys; sys.path.append(sys.argv[1]); import rezero_child.service as service; sys.path.pop(); "
    "service.main()"
)

_KEPT_BYTES = 4096
"""Of what a child prints before it is ready."""

Complete = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""A question to the policy (`call`, `request`, `rollout`, `messages`, `tools`) to `text`, `finish_reason` and
`overlong`, or `error`."""


class ChildFailed(Exception):
    """The child is gone, or it answered with an error."""


class ChildDied(ChildFailed):
    """The child is gone."""


def child_command(python: Path) -> list[str]:
    """Our package of the child's own code is added behind everything else on its path, and taken off again."""
    return [str(python), "-c", _START, str(Path(__file__).parent)]


class ChildProcess:
    """One running child. Belongs to the event loop that started it."""

    def __init__(
        self, process: asyncio.subprocess.Process, complete: Complete | None, log: BinaryIO | None = None
    ) -> None:
        self._process, self._complete, self._log = process, complete, log
        self._noise: str | None = None
        self._requests: dict[int, asyncio.Future[Any]] = {}
        self._next = 0
        self._questions: set[asyncio.Task[None]] = set()
        self._reading = asyncio.ensure_future(self._read())

    @classmethod
    async def start(
        cls,
        python: Path,
        complete: Complete | None = None,
        *,
        variables: Mapping[str, str] | None = None,
        log: BinaryIO | None = None,
    ) -> "ChildProcess":
        """
        Args:
            variables: of its environment, over ours.
            log: takes what it prints; our own standard error when None.

        Raises:
            ChildDied: the interpreter cannot be started.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                *child_command(python),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                env=os.environ | {"PYTHONUNBUFFERED": "1"} | dict(variables or {}),
            )
        except OSError as problem:
            raise ChildDied(f"{python} cannot be started: {problem}") from problem
        return cls(process, complete, log)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return not self._reading.done()

    def begin(self, what: str, **fields: Any) -> tuple[int, "asyncio.Future[Any]"]:
        """Send a request. Returns its number and its result to be.

        Raises:
            ChildDied: it is gone.
        """
        if not self.alive:
            raise ChildDied(self._farewell())
        self._next += 1
        number, result = self._next, asyncio.get_running_loop().create_future()
        self._requests[number] = result
        result.add_done_callback(lambda _: self._requests.pop(number, None))
        self._write({"do": what, "request": number, **fields})
        return number, result

    async def ask(self, what: str, **fields: Any) -> Any:
        """A request's result.

        Raises:
            ChildFailed: the child answered with an error, or is gone.
        """
        _, result = self.begin(what, **fields)
        return await result

    async def kill(self) -> None:
        """End it and every process that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._reading

    def _write(self, record: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(frames.pack(record))

    async def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        try:
            self._keep(await _before_records(stream))
            while True:
                head = await stream.readexactly(frames.HEAD.size)
                self._take(frames.unpack(await stream.readexactly(frames.body_length(head))))
        except (asyncio.IncompleteReadError, ConnectionError, ValueError) as problem:
            if isinstance(problem, asyncio.IncompleteReadError):
                self._keep(problem.partial)
            elif isinstance(problem, ValueError):
                self._noise = str(problem)
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        for question in self._questions:
            question.cancel()
        for result in list(self._requests.values()):
            if not result.done():
                result.set_exception(ChildDied(self._farewell()))

    def _take(self, record: dict[str, Any]) -> None:
        if record.get("do") == "complete":
            question = asyncio.ensure_future(self._answer(record))
            self._questions.add(question)
            question.add_done_callback(self._questions.discard)
            return
        result = self._requests.get(record["request"])
        if result is None or result.done():
            return
        if record.get("error") is not None:
            result.set_exception(ChildFailed(record["error"]))
        else:
            result.set_result(record["result"])

    async def _answer(self, question: dict[str, Any]) -> None:
        if self._complete is None:
            answer: dict[str, Any] = {"error": "no policy is there to answer"}
        else:
            answer = await self._complete(question)
        self._write({"do": "answer", "call": question["call"], **answer})

    def _keep(self, printed: bytes) -> None:
        """What was printed where records belong goes where the child's other output goes."""
        if printed and self._log is not None:
            os.write(self._log.fileno(), printed)
        elif printed:
            sys.stderr.write(printed.decode("utf-8", "replace"))

    def _farewell(self) -> str:
        code = self._process.returncode
        if self._noise is not None:
            what = f"its pipe of records had other data ({self._noise})"
            return f"the environment's process {self._process.pid} was ended: {what}"
        how = f"signal {-code}" if code is not None and code < 0 else f"status {code}"
        return f"the environment's process {self._process.pid} ended with {how}; its log says why"


async def _before_records(stream: asyncio.StreamReader) -> bytes:
    """What the interpreter printed before it was ready, such as the words of a sitecustomize: its end, if it is long.

    Raises:
        asyncio.IncompleteReadError: the process ended before.
    """
    printed = b""
    while True:
        try:
            printed += await stream.readuntil(frames.READY)
        except asyncio.LimitOverrunError as problem:
            printed = (printed + await stream.readexactly(problem.consumed))[-_KEPT_BYTES:]
        else:
            return printed[: -len(frames.READY)]
