"""What a group's functions are found to do while it is rolled out and scored, whoever calls them.

verifiers calls reward functions and tools in tasks of its own, and makes results of what they raise: 0.0 for a reward
function, a message to the model for a tool. What no reward may come of is noted here beside it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass
class GroupWatch:
    """`faults`: what reward functions raised and what took too long. `scoring`: wall seconds of scoring."""

    faults: list[str] = field(default_factory=list)
    scoring: float = 0.0


_CURRENT: ContextVar[GroupWatch] = ContextVar("rezero_group_watch")


@contextmanager
def watched_group() -> Iterator[GroupWatch]:
    """The watch of the group that is rolled out within, in every task and thread begun there."""
    watch = GroupWatch()
    token = _CURRENT.set(watch)
    try:
        yield watch
    finally:
        _CURRENT.reset(token)


def current_watch() -> GroupWatch:
    """That of the group whose function this is; one that nobody reads outside of any."""
    return _CURRENT.get(None) or GroupWatch()
