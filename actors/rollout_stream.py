"""Keeps engines and environments busy as the schedule says, and hands the learner its batches."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import ray

from actors.engine_group import EngineGroup
from actors.environment_group import EnvironmentGroup
from actors.waiting import result_of
from rezero_ray.config.evaluation import EvalConfig
from rezero_ray.config.schema import Config
from rezero_ray.errors import Kind, RunError
from rezero_ray.evaluation import HeldOutGroups
from rezero_ray.records import Group, Prompt
from rezero_ray.schedule import RolloutSchedule, Send, capacity

POLL_SECONDS = 0.5
"""Deadlines are looked at this often where nothing happens."""


class Listener(Protocol):
    """Who is told of what happens to groups and engines."""

    def group(self, group: Group) -> None: ...

    def say(self, line: str) -> None: ...

    def put_aside(self, send: Send, kind: str, message: str) -> None: ...


class RolloutStream:
    """Groups are begun and received in `next_batch`, `meanwhile` and `held_out`, and at no other time."""

    def __init__(
        self,
        schedule: RolloutSchedule,
        environments: EnvironmentGroup,
        engines: EngineGroup,
        config: Config,
        listener: Listener,
    ) -> None:
        self._schedule, self._environments, self._engines = schedule, environments, engines
        self._config, self._listener = config, listener
        self._spans: dict[int, tuple[float, float]] = {}
        self._held_out: HeldOutGroups | None = None
        self.faults: Counter[str] = Counter()

    def next_batch(self) -> list[Group]:
        """The groups of the next step, as soon as the schedule can tell.

        Raises:
            RunError: too much failed; the message says where.
        """
        while (batch := self._schedule.take_batch()) is None:
            self._turn([])
        return batch

    def meanwhile(self, references: Sequence[Any], seconds: float, what: str, kind: Kind) -> list[Any]:
        """Results of references to something else; the rollouts go on while they are awaited.

        Raises:
            RunError: one of them failed, as soon as it does, or they took longer than `seconds`.
        """
        deadline = time.monotonic() + seconds
        pending = list(references)
        while pending:
            for reference in self._turn(pending):
                pending.remove(reference)
                result_of(reference, what, kind=kind)
            if pending and time.monotonic() > deadline:
                raise RunError(kind, f"waited {seconds:.0f} s for {what}; no answer")
        return [ray.get(reference) for reference in references]

    def held_out(
        self, prompts: Sequence[Prompt], version: int, settings: EvalConfig, give_up: Callable[[], bool]
    ) -> list[Group] | None:
        """The groups of held-out prompts under one policy version, without those that failed `faults.attempts` times;
        None if `give_up` became true before they were there. Training rollouts go on meanwhile.

        Raises:
            RunError: too much failed; the message says where.
        """
        count = settings.rollouts_per_example
        under_way = self._held_out = HeldOutGroups(
            prompts,
            version,
            count=count,
            capacity=capacity(self._config, count),
            attempts=self._config.faults.attempts,
        )
        while not under_way.done and not give_up():
            self._turn([])
        self._held_out = None
        for send in under_way.in_flight:
            self._environments.cancel(send)
            self._spans.pop(send.prompt.index)
        self.seconds_of(under_way.groups)
        return under_way.groups if under_way.done else None

    def seconds_of(self, groups: Sequence[Group]) -> float:
        """Wall seconds from the first of these groups begun to the last one finished, in this process."""
        spans = [self._spans.pop(g.prompt.index) for g in groups if g.prompt.index in self._spans]
        return max(end for _, end in spans) - min(start for start, _ in spans) if spans else 0.0

    def abandon(self) -> None:
        """Give up everything under way; the schedule is to be restored from a cut."""
        self._environments.cancel_all()
        self._spans.clear()
        self._held_out = None

    def _turn(self, others: Sequence[Any]) -> list[Any]:
        """Begin what may begin, wait for something to happen, take it in. Returns which of `others` are there."""
        for engine, why in self._engines.newly_lost():
            self._schedule.engine_lost(engine)
            self.faults["engine"] += 1
            self._listener.say(f"engine {engine} was lost and starts again: {why}")
        for send in self._schedule.stragglers():
            self._environments.cancel(send)
            self._let_go(send)
        for send in [*self._held_out_sends(), *self._schedule.sends()]:
            self._spans[send.prompt.index] = (time.monotonic(), 0.0)
            self._environments.begin(send)
        self._look_at_deadlines()
        engines, workers = set(self._engines.references), set(self._environments.restarting)
        groups = set(self._environments.references)
        references = [*others, *groups, *engines, *workers]
        if not references:
            raise RunError("cluster", "nothing is under way and the step has no batch")
        there, _ = ray.wait(references, num_returns=1, timeout=POLL_SECONDS)
        for reference in there:
            if reference in groups:
                self._receive(reference)
            elif reference in workers:
                self._environments.come_back(reference)
            elif reference in engines:
                self._engine_back(reference)
        return [reference for reference in there if reference in others]

    def _receive(self, reference: Any) -> None:
        send, result = self._environments.receive(reference)
        if isinstance(result, RunError):
            self._failed(send, result)
            return
        begun, _ = self._spans[send.prompt.index]
        self._spans[send.prompt.index] = (begun, time.monotonic())
        if self._asked_for_by(send).finished(result):
            self._listener.group(result)

    def _failed(self, send: Send, error: RunError) -> None:
        begun, _ = self._spans.pop(send.prompt.index)
        if error.kind == "engine":
            self._engines.lose(send.engine, error.message, begun)
        else:
            self.faults[error.kind] += 1
        self.faults[f"{send.prompt.environment}/{error.kind}"] += 1
        asking = self._asked_for_by(send)
        if not asking.failed(send.prompt.index):
            self._listener.say(f"prompt {send.prompt.index} is sent again: {error.message}")
            return
        self._listener.put_aside(send, error.kind, error.message)
        of = asking.total if isinstance(asking, HeldOutGroups) else self._config.orchestrator.batch_size
        limit = max(1, int(self._config.faults.max_put_aside * of))
        if asking.put_aside > limit:
            raise RunError(
                error.kind,
                f"{asking.put_aside} prompts of one step were put aside, more than faults.max_put_aside "
                f"allows ({limit}); the last was {send.prompt.environment} prompt {send.prompt.index} "
                f"(example {send.prompt.example}): {error.message}",
            )

    def _held_out_sends(self) -> list[Send]:
        return self._held_out.sends(self._engines.there()) if self._held_out else []

    def _asked_for_by(self, send: Send) -> RolloutSchedule | HeldOutGroups:
        if not send.prompt.held_out:
            return self._schedule
        assert self._held_out is not None, "held-out groups are cancelled with their evaluation"
        return self._held_out

    def _let_go(self, send: Send) -> None:
        self._spans.pop(send.prompt.index, None)
        if self._config.orchestrator.stale == "drop":
            self._listener.put_aside(
                send, "stale", f"begun on version {send.version} and not finished in time"
            )

    def _engine_back(self, reference: Any) -> None:
        engine = self._engines.come_back(reference)
        if engine is not None:
            self._schedule.engine_back(engine)
            self._listener.say(f"engine {engine} is back")

    def _look_at_deadlines(self) -> None:
        self._engines.look_at_deadlines()
        for send in self._environments.end_hanging():
            self._failed(
                send,
                RunError(
                    "environment",
                    f"the worker of {send.prompt.environment} did not answer for prompt {send.prompt.index} within "
                    f"limits.group = {self._config.limits.group:.0f} s and was ended",
                ),
            )
