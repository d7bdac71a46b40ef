"""Runs a `RolloutSchedule` in simulated time: engines that take as long as they are told, break and die."""

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rezero_ray.records import Group
from rezero_ray.sampler import PromptSampler
from rezero_ray.schedule import Limits, RolloutSchedule, Send
from tests.record_builders import make_rollout


@dataclass
class World:
    """What the schedule cannot know. Seconds are simulated ones.

    seconds: of a group, by prompt index and attempt. breaks: whether that attempt ends in a failure.
    deaths: (when, which engine, seconds until it is back). Every group on it fails at once.
    signal: whether a group's rewards differ.
    """

    seconds: Callable[[int, int], float]
    train_seconds: float = 1.0
    breaks: Callable[[int, int], bool] = lambda index, attempt: False
    deaths: Sequence[tuple[float, int, float]] = ()
    signal: Callable[[int], bool] = lambda index: True


@dataclass
class Outcome:
    """What came of it. `ended[v - 1]` is when step v was published."""

    steps: list[list[Group]] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    staleness: list[int] = field(default_factory=list)
    put_aside: list[int] = field(default_factory=list)
    resampled: list[int] = field(default_factory=list)
    most_on_an_engine: int = 0
    most_under_way: int = 0

    @property
    def trained(self) -> list[int]:
        return [group.prompt.index for step in self.steps for group in step]

    @property
    def step_seconds(self) -> float:
        """Mean over the second half of the run, where it has settled."""
        half = len(self.ended) // 2
        return (self.ended[-1] - self.ended[half - 1]) / (len(self.ended) - half)


def sampler(size: int = 1000) -> PromptSampler:
    return PromptSampler({"task": size}, {"task": 1.0}, seed=0)


def make_group_of(send: Send, *, signal: bool = True) -> Group:
    rewards = (0.0, 1.0 if signal else 0.0)
    rollouts = [make_rollout([1], [2], reward=r, policy_version=send.version) for r in rewards]
    return Group(prompt=send.prompt, rollouts=rollouts, seconds=0.0)


def simulate(
    limits: Limits, world: World, *, until_step: int | None = None
) -> tuple[Outcome, RolloutSchedule]:
    """Run to the last step, or to a cut behind `until_step`.

    Raises:
        AssertionError: nothing is left to happen and steps are missing: a deadlock.
    """
    schedule = RolloutSchedule(sampler(), limits)
    return continue_run(schedule, limits, world, until_step=until_step), schedule


def continue_run(
    schedule: RolloutSchedule, limits: Limits, world: World, *, until_step: int | None = None
) -> Outcome:
    outcome, now, serial = Outcome(), 0.0, itertools.count()
    running: dict[int, int] = {}  # prompt index -> serial of the attempt that counts
    batch: list[Group] | None = None
    events: list[tuple[float, int, str, object]] = []
    dead_until = dict.fromkeys(range(limits.engines), 0.0)

    def at(when: float, kind: str, what: object) -> int:
        number = next(serial)
        heapq.heappush(events, (when, number, kind, what))
        return number

    def fail(index: int) -> None:
        del running[index]
        if schedule.failed(index):
            outcome.put_aside.append(index)

    for when, engine, downtime in world.deaths:
        at(when, "death", (engine, downtime))
    last = limits.steps if until_step is None else until_step
    while schedule.version < last:
        for given_up in schedule.stragglers():
            del running[given_up.prompt.index]
            if limits.stale == "drop":
                outcome.put_aside.append(given_up.prompt.index)
        if batch is None and (batch := schedule.take_batch()) is not None:
            outcome.staleness += [schedule.version - group.policy_version for group in batch]
            at(now + world.train_seconds, "trained", None)
        for send in schedule.sends():
            assert dead_until[send.engine] <= now, "nothing is sent to an engine that is gone"
            seconds = world.seconds(send.prompt.index, send.attempt)
            running[send.prompt.index] = at(now + seconds, "group", send)
        on_each = [0] * limits.engines
        for send in schedule.in_flight.values():
            on_each[send.engine] += 1
        outcome.most_on_an_engine = max(outcome.most_on_an_engine, *on_each)
        outcome.most_under_way = max(outcome.most_under_way, schedule.under_way)
        assert events, f"deadlock at version {schedule.version}"
        now, number, kind, what = heapq.heappop(events)
        if kind == "trained":
            assert batch is not None
            outcome.steps.append(batch)
            outcome.ended.append(now)
            batch = None
            schedule.trained()
        elif kind == "group":
            assert isinstance(what, Send)
            index = what.prompt.index
            if running.get(index) != number:
                continue  # lost or cancelled meanwhile
            if world.breaks(index, what.attempt):
                fail(index)
                continue
            del running[index]
            if not schedule.finished(make_group_of(what, signal=world.signal(index))):
                outcome.resampled.append(index)
        elif kind == "death":
            engine, downtime = what  # type: ignore[misc]
            if dead_until[engine] > now:
                continue
            schedule.engine_lost(engine)
            dead_until[engine] = now + downtime
            at(now + downtime, "back", engine)
            for send in [s for s in schedule.in_flight.values() if s.engine == engine]:
                fail(send.prompt.index)
        else:
            assert isinstance(what, int)
            schedule.engine_back(what)
    return outcome
