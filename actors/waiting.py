"""Bounded waits whose errors name who was waited for."""

import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

from rezero_ray.errors import Kind, ProcessDied, RunError


def wait_all(references: Sequence[Any], seconds: float, what: str, *, kind: Kind = "cluster") -> list[Any]:
    """Return the results of all references.

    Raises:
        RunError: they did not come in `seconds`, or one of them failed, as soon as it does; the message names `what`.
    """
    deadline = time.monotonic() + seconds
    pending = list(references)
    while pending:
        done, pending = ray.wait(pending, num_returns=1, timeout=max(0.0, deadline - time.monotonic()))
        if not done:
            raise RunError(kind, f"waited {seconds:.0f} s for {what}; no answer")
        result_of(done[0], what, kind=kind)
    return [ray.get(reference) for reference in references]


def result_of(reference: Any, what: str, *, kind: Kind = "cluster") -> Any:
    """The result of a reference that is there.

    Raises:
        RunError: what the actor raised; of `kind`, if it was anything else.
        ProcessDied: the actor's process is gone, or the node that had its answer.
    """
    try:
        return ray.get(reference)
    except RayTaskError as error:
        cause = error.cause if isinstance(error.cause, Exception) else error
        if isinstance(cause, RunError):
            raise cause from error
        raise RunError(kind, f"{what} failed: {type(cause).__name__}: {_last_line(cause)}") from error
    except (
        RayActorError,
        ObjectLostError,
    ) as error:  # its process is gone, or with its node what it answered
        raise ProcessDied(kind, f"{what}: the process died: {_first_line(error)}") from error


def _last_line(error: Exception) -> str:
    """Ray puts the whole traceback into the message; it ends with what was said."""
    return str(error).strip().rpartition("\n")[2]


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
