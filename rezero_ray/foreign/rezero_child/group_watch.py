"""What a group's functions are found to do while it is rolled out and scored, whoever calls them.

verifiers calls reward functions and tools in tasks of its own, and turns what they raise into results: 0.0 for a
reward function, a message to the model for a tool. What makes a reward impossible is noted here beside it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

ROLLOUT = "rezero_rollout"
"""Column of the input that says which rollout of the group a state belongs to."""


LONGEST_FAULT = 500
"""Characters of one fault."""


@dataclass
class GroupWatch:
    """What is noted of one group.

    Attributes:
        faults: what reward functions raised or returned, and what took too long: the group has no reward.
        zeroed: by rollout, the reward functions that failed and count as 0.0, and why (`reward_errors = "zero"`).
        scoring: wall seconds of scoring.
        scored: whether a guarded rubric was asked at all.
    """

    faults: list[str] = field(default_factory=list)
    zeroed: dict[int, dict[str, str]] = field(default_factory=dict)
    scoring: float = 0.0
    scored: bool = False

    def zero(self, rollout: int, function: str, why: str) -> None:
        """Note that a reward function counts as 0.0 in one rollout."""
        self.zeroed.setdefault(rollout, {})[function] = told(why)

    def error(self, of_rollout: str | None) -> str | None:
        """Why a rollout of the group has no reward, None where it has one.

        Args:
            of_rollout: what verifiers found wrong with it.
        """
        if self.faults:
            return "; ".join(dict.fromkeys(self.faults))
        if of_rollout is None and not self.scored:
            return "nothing scored it: score_rollouts is false, or the rubric was replaced after loading"
        return of_rollout


def told(why: str) -> str:
    """A fault as it may be recorded: of a bounded length, and all of it encodable."""
    return why.encode("utf-8", "replace").decode()[:LONGEST_FAULT]


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
