"""Calls of an environment's functions: beside the event loop where they would hold it up, and within a time limit."""

import asyncio
import contextvars
import ctypes
import inspect
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from .contained import ModuleExited, as_exception, contained


class Overran(Exception):
    """Something took longer than its limit. It is the environment's error, never a reward."""


class BoundedCalls:
    """Calls functions of one environment.

    Coroutines run on the event loop. Others run in a thread, one at a time: verifiers calls them one after the
    other, so they may not be written for more. A call that is given up is followed by the next one at once; its
    thread gets an exception, which ends it when it next runs Python code.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def call(
        self, function: Callable[..., Any], arguments: dict[str, Any], limit: float | None, what: str
    ) -> Any:
        """The function's result.

        Args:
            limit: seconds that the function may take once it runs; None for no limit.
            what: names it and the limit, for the error.

        Raises:
            Overran: it took longer.
            ModuleExited: it tried to end the process.
        """
        if inspect.iscoroutinefunction(function):
            return await within(limit, function(**arguments), what)
        async with self._turn:
            result = await within(limit, _in_thread(function, arguments), what)
        return await within(limit, result, what) if inspect.isawaitable(result) else result


async def within(limit: float | None, work: Awaitable[Any], what: str) -> Any:
    """The result of `work`, cancelled and not waited for once `limit` seconds are over.

    Raises:
        Overran: they are.
        ModuleExited: the work tried to end the process, or cancelled itself.
    """
    task = asyncio.ensure_future(contained(work))
    try:
        done, _ = await asyncio.wait({task}, timeout=limit)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not done:
        task.cancel()
        raise Overran(f"{what} = {limit:g} s")
    if task.cancelled():
        raise ModuleExited("raised CancelledError")
    return task.result()


async def _in_thread(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """`asyncio.to_thread`, with a thread that may be given up: it does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[tuple[Any, Exception | None]] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: Any, error: Exception | None) -> None:
        if not ended.done():
            ended.set_result((result, error))

    def run() -> None:
        result, error = None, None
        try:
            result = context.run(function, **arguments)
        except BaseException as problem:
            error = as_exception(problem)
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(settle, result, error)

    thread = threading.Thread(target=run, daemon=True, name=f"rezero-{getattr(function, '__name__', 'call')}")
    thread.start()
    try:
        result, error = await ended
    except asyncio.CancelledError:
        if thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
            )
        raise
    if error is not None:
        raise error
    return result
