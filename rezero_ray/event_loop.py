"""Coroutines from plain code, in a notebook as well: its event loop runs already, and takes no second one."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


def run_to_end(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """The result of the coroutine: on this thread, or on one of its own where this one runs an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="event-loop") as thread:
        return thread.submit(asyncio.run, coroutine).result()
