"""Claims about prompts whose groups fail: how often each is tried, and how many of a step may be given up."""

from collections import Counter
from typing import Any

import pytest

from actors.rollout_stream import RolloutStream
from rezero_ray.errors import RunError
from rezero_ray.records import Group
from rezero_ray.sampler import PromptSampler
from rezero_ray.schedule import RolloutSchedule, Send, limits_of
from tests.record_builders import make_config


class Listener:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.given_up: list[int] = []

    def say(self, line: str) -> None:
        self.said.append(line)

    def group(self, group: Group) -> None:
        raise AssertionError("no group comes in")

    def put_aside(self, send: Send, kind: str, message: str) -> None:
        self.given_up.append(send.prompt.index)


class Failing:
    """A stream whose groups all fail, without engines and workers."""

    def __init__(self, **changes: Any) -> None:
        config = make_config(orchestrator__batch_size=4, **changes)
        sampler = PromptSampler({"phishing-detection": 64}, {"phishing-detection": 1.0}, seed=0)
        self.schedule, self.listener = RolloutSchedule(sampler, limits_of(config)), Listener()
        self.stream = RolloutStream.__new__(RolloutStream)
        self.stream._config, self.stream._schedule, self.stream._listener = (
            config,
            self.schedule,
            self.listener,
        )
        self.stream.faults, self.stream._spans = Counter(), {}

    def fail(self) -> None:
        """Every group that is to be sent is sent, and fails."""
        for send in self.schedule.sends():
            self.stream._spans[send.prompt.index] = (0.0, 0.0)
            self.stream._failed(send, RunError("environment", "it broke"))


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_a_prompt_is_given_up_after_as_many_attempts(attempts: int) -> None:
    failing = Failing(faults__attempts=attempts, faults__max_put_aside=1.0)
    for _ in range(attempts - 1):
        failing.fail()
        assert not failing.listener.given_up
    failing.fail()
    assert failing.listener.given_up == [0, 1, 2, 3]
    assert len(failing.listener.said) == 4 * (attempts - 1)


@pytest.mark.parametrize(("share", "allowed"), [(0.25, 1), (0.5, 2), (0.75, 3), (0.1, 1)])
def test_the_run_stops_beyond_the_share_of_a_batch_that_may_be_given_up(share: float, allowed: int) -> None:
    failing = Failing(faults__attempts=1, faults__max_put_aside=share)
    with pytest.raises(RunError, match=rf"faults\.max_put_aside allows \({allowed}\)"):
        failing.fail()
    assert len(failing.listener.given_up) == allowed + 1
