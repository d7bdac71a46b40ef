"""Bounded waits whose errors name who was waited for."""

from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from rezero_ray.errors import Kind, RunError


def wait_all(references: Sequence[Any], seconds: float, what: str, *, kind: Kind = "cluster") -> list[Any]:
    """Return the results of all references.

    Raises:
        RunError: they did not come in `seconds`, or one of them failed; the message names `what`.
    """
    try:
        return list(ray.get(list(references), timeout=seconds))
    except GetTimeoutError:
        raise RunError(kind, f"waited {seconds:.0f} s for {what}; no answer") from None
    except RayTaskError as error:
        cause = error.cause if isinstance(error.cause, Exception) else error
        if isinstance(cause, RunError):
            raise cause from error
        raise RunError(kind, f"{what} failed: {type(cause).__name__}: {cause}") from error
    except RayActorError as error:
        raise RunError(kind, f"{what}: the process died: {error}") from error
