"""Code that a model wrote runs here: a process of its own in an empty directory, with limits, without network.

Four tiers. On this machine, the best one that it gives:

- `bubblewrap`: `bwrap` is installed and works. Nothing is lost.
- `namespaces`: the kernel gives unprivileged namespaces and Landlock, used directly. Nothing is lost.
- `plain`: limits, and Landlock as far as the kernel has it; `isolation().losses` names what is not cut off.

And `modal`: another machine, a Sandbox of Modal's (`environments.sandbox.modal_tier`), with one of the three inside.

In every tier a launcher (`environments.sandbox.launcher`) watches wall time, processes, memory and files, and
kills the program with all its descendants. The program reads the system's and Python's own directories and
its own; it writes in its own, which is removed afterwards.
"""

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import ParamSpec, TypeVar

from environments.sandbox.local_tiers import check_names, isolation_here, run_here, tiers
from environments.sandbox.modal_tier import SHARED, check_modal
from environments.sandbox.records import Isolation, Limits, Outcome, Program, Tier

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

PLACES = ("auto", "local", "modal")


def tier_at(place: str = "auto") -> Tier:
    """The tier to use: the best of this machine (`local`), or `modal`; `auto` is `modal` in a container of Modal's.

    Such a container holds the run's checkpoints and secrets, and what its kernel (gVisor) cuts off is little.
    Raises ValueError for another word, and for `modal` where the package is not installed.
    """
    if place not in PLACES:
        raise ValueError(f"sandbox must be one of {', '.join(PLACES)}, not {place!r}")
    if place == "local" or (place == "auto" and "MODAL_TASK_ID" not in os.environ):
        return tiers()[0]
    check_modal()
    return "modal"


def isolation(tier: Tier | None = None) -> Isolation:
    """What is in use here by default, or what `tier` gives. For `modal`: seen from this machine."""
    tier = tier or tier_at()
    return Isolation(tier) if tier == "modal" else isolation_here(tier)


def in_thread(function: Callable[Arguments, Result]) -> Callable[Arguments, Awaitable[Result]]:
    """The function for a coroutine to wait for: the event loop goes on meanwhile."""

    @functools.wraps(function)
    async def waiting(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return await asyncio.to_thread(function, *args, **kwargs)

    return waiting


class Sandbox:
    """Runs programs in one tier, by default `tier_at()`. Nothing of a run is there in the next."""

    def __init__(self, tier: Tier | None = None) -> None:
        self.tier: Tier = tier or tier_at()

    def run(
        self,
        files: Mapping[str, str],
        command: Sequence[str],
        *,
        limits: Limits | None = None,
        environment: Mapping[str, str] | None = None,
        stdin: str = "",
    ) -> Outcome:
        """Runs `command` (an absolute path and arguments) in a new directory that holds `files`.

        Raises SandboxError when the sandbox itself fails, ValueError for a file name that leads out of the
        directory.
        """
        check_names(files)
        program = Program(files, command, limits or Limits(), environment or {}, stdin)
        return SHARED.run(program) if self.tier == "modal" else run_here(self.tier, program)

    run_async = in_thread(run)
