"""What follows when an attempt ends. Pure: preemption, time limit and failure end in the same resume."""

from collections.abc import Sequence
from typing import Literal

DONE, FAILED, WRONG_REQUEST = 0, 1, 2  # exit statuses of the command (rezero_ray.train)

Verdict = Literal["done", "refused", "failed", "again"]

MAX_IDLE_STARTS = 3
"""Attempts in a row that begin at the same checkpoint. Each loads the model on rented GPUs, and gets nowhere."""


def may_start(starts: Sequence[int], step: int) -> bool:
    """Whether another attempt, at the checkpoint of `step`, is worth its price after those that began at `starts`."""
    return list(starts[-MAX_IDLE_STARTS:]) != [step] * MAX_IDLE_STARTS


def verdict(exit_status: int, *, progressed: bool) -> Verdict:
    """What the end of a command means. `progressed`: it left a newer checkpoint than it began with.

    A failure is tried again only then: what fails without one will fail again. A command that was killed or
    interrupted (any other status) has not failed.
    """
    if exit_status == DONE:
        return "done"
    if exit_status == WRONG_REQUEST:
        return "refused"
    return "failed" if exit_status == FAILED and not progressed else "again"
