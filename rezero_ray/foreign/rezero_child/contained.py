"""Code of an environment that ends the program instead of raising: `sys.exit`, `raise KeyboardInterrupt`.

asyncio stops its loop for these two, whichever task they come from, and a process that is stopped says nothing. Here
they become exceptions of the environment. Nobody presses Ctrl-C in the processes that run this: a worker and a child
have no terminal.
"""

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Result = TypeVar("Result")


class ModuleExited(Exception):
    """The environment's code tried to end the process. Of `contained`, the message continues its name:
    `called sys.exit(2)`."""


def as_exception(problem: BaseException) -> Exception:
    """The problem itself where it is an Exception, else a `ModuleExited` that says what it was."""
    if isinstance(problem, Exception):
        return problem
    if isinstance(problem, SystemExit):
        return ModuleExited(f"called sys.exit({'' if problem.code is None else repr(problem.code)})")
    text = str(problem)
    return ModuleExited(f"raised {type(problem).__name__}" + (f": {text}" if text else ""))


async def contained(work: Awaitable[Result]) -> Result:
    """The result of `work`.

    Raises:
        ModuleExited: it tried to end the process.
    """
    try:
        return await work
    except (Exception, asyncio.CancelledError, GeneratorExit):
        raise
    except BaseException as problem:
        raise as_exception(problem) from problem


@contextmanager
def exits_contained(what: str) -> Iterator[None]:
    """The same for code that does not await anything.

    Args:
        what: names the code, for the error.

    Raises:
        ModuleExited: the code inside tried to end the process.
    """
    try:
        yield
    except (Exception, GeneratorExit):
        raise
    except BaseException as problem:
        raise ModuleExited(f"{what} {as_exception(problem)}") from problem
