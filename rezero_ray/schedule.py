"""Which prompt is sent when, to which engine, under which policy version; and which groups make a step.

A pure state machine: no clock, no threads, no Ray. `actors.rollout_stream` tells it what happened and does what it
says; the tests run it by the thousand in simulated time. Its whole policy, for a batch of B groups and a
staleness bound n (`orchestrator.max_async_level`):

- **Window.** At policy version w at most (n + 1) B prompts are under way: those of the step in training, and
  as many as the n steps behind it take. So nothing is begun that could not be trained in time.
- **Version.** A group is begun on the newest version and finishes on it. Begun on version w, it is trained at
  step w + 1 + n at the latest: then no rollout is ever more than n versions old, time in queues included.
- **Batch.** A step takes the B finished groups with the earliest last step, and only when all that stay behind can
  still be trained in time (at most j B of them with a last step within the next j). Where that would make it wait
  for a straggler, `stale` decides: wait ("finish"), begin the group again on the newest version ("retry"), or put
  it aside ("drop").
- **Engines.** A group goes whole to the engine with the fewest groups, where its prompt's prefix is cached once. No
  engine gets more than its capacity: a prompt waits here, where it costs no staleness, not in the engine's queue.
- **Failures.** A group that was lost or broke is begun again, at most `attempts` times in all; then its prompt is
  put aside and another takes its place. Every prompt is trained once, put aside, or without signal.

With n = 0 a step's prompts are begun when the version before it is published, and nothing overlaps.
"""

import heapq
from collections import Counter
from typing import Literal

import msgspec

from rezero_ray.config import Config
from rezero_ray.records import Group, Prompt
from rezero_ray.sampler import PromptSampler, SamplerState

StalePolicy = Literal["finish", "retry", "drop"]


class Send(msgspec.Struct, frozen=True):
    """A group to begin: on which engine, under which policy version, for the how-manieth time (from 1), of how many
    rollouts (None: `orchestrator.rollouts_per_example`)."""

    prompt: Prompt
    engine: int
    version: int
    attempt: int
    rollouts: int | None = None


class ScheduleState(msgspec.Struct, frozen=True):
    """A cut between two steps. `waiting` holds what was under way: it is begun again after a restart."""

    sampler: SamplerState
    waiting: list[Prompt]
    attempts: dict[int, int]
    ready: list[Group]


def rolled_out_again(state: ScheduleState) -> ScheduleState:
    """The same cut with nothing ready: the prompts of finished groups are begun again."""
    again = [*state.waiting, *(group.prompt for group in state.ready)]
    waiting = sorted(again, key=lambda prompt: prompt.index)
    return msgspec.structs.replace(state, waiting=waiting, ready=[])


class Limits(msgspec.Struct, frozen=True):
    """The numbers of the policy above. `capacity`: groups an engine works on at one time."""

    batch_size: int
    steps: int
    max_async_level: int = 0
    engines: int = 1
    capacity: int = 1_000_000
    stale: StalePolicy = "finish"
    attempts: int = 3
    resample: int = 0


def capacity(config: Config, rollouts: int) -> int:
    """Groups of so many rollouts that an engine works on at one time: twice those that it decodes, so that its slots
    do not run dry while a group's last rollout ends."""
    return 2 * max(1, config.inference.model.max_num_seqs // rollouts)


def limits_of(config: Config) -> Limits:
    """The configured policy."""
    orchestrator = config.orchestrator
    budget = int(orchestrator.resample_budget * orchestrator.batch_size)
    return Limits(
        batch_size=orchestrator.batch_size,
        steps=config.max_steps,
        max_async_level=orchestrator.max_async_level,
        engines=config.inference.parallel.dp,
        capacity=capacity(config, orchestrator.rollouts_per_example),
        stale=orchestrator.stale,
        attempts=config.faults.attempts,
        resample=budget if orchestrator.filter_zero_advantage else 0,
    )


class RolloutSchedule:
    """See the module. Every method is an event or a question; none waits.

    `resampled`, `put_aside` and `dropped` count the prompts of the step under way that were replaced: for want of
    signal, for failures, and as stragglers under "drop".
    """

    def __init__(self, sampler: PromptSampler, limits: Limits) -> None:
        self._sampler, self._limits = sampler, limits
        self.version = 0
        self._waiting: list[tuple[int, Prompt]] = []
        self._in_flight: dict[int, Send] = {}
        self._begun_in_flight: Counter[int] = Counter()
        self._ready: dict[int, Group] = {}
        self._training = 0
        self._attempts: Counter[int] = Counter()
        self._load = [0] * limits.engines
        self._alive = [True] * limits.engines
        self.resampled = self.put_aside = self.dropped = 0

    # --- questions -----------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> dict[int, Send]:
        """Groups that were sent and have not come back, by prompt index."""
        return self._in_flight

    @property
    def under_way(self) -> int:
        """Prompts that were taken from the sampler and are neither trained nor put aside."""
        return len(self._waiting) + len(self._in_flight) + len(self._ready) + self._training

    def state(self) -> ScheduleState:
        """The cut at this moment; to be made between two steps.

        Raises:
            RuntimeError: a step is in training.
        """
        if self._training:
            raise RuntimeError("a cut is made between steps, and one is in training")
        again = [prompt for _, prompt in self._waiting] + [send.prompt for send in self._in_flight.values()]
        return ScheduleState(
            sampler=self._sampler.state,
            waiting=sorted(again, key=lambda prompt: prompt.index),
            attempts=dict(sorted(self._attempts.items())),
            ready=[self._ready[index] for index in sorted(self._ready)],
        )

    # --- events --------------------------------------------------------------------------------------------

    def restore(self, state: ScheduleState, version: int) -> None:
        """Go on from a cut that was made after step `version`; whatever is under way is forgotten.

        Groups that this config finds too old, or too many, are begun again: it need not be the one of the cut.

        Raises:
            ValueError: the state speaks of other environments.
        """
        self._sampler.restore(state.sampler)
        self.version = version
        self._in_flight, self._begun_in_flight, self._training = {}, Counter(), 0
        self._ready = {}
        for group in sorted(state.ready, key=lambda g: (g.policy_version, g.prompt.index)):
            steps_left = group.policy_version + self._limits.max_async_level + 1 - version
            if len(self._ready) < min(steps_left * self._limits.batch_size, self._window()):
                self._ready[group.prompt.index] = group
        again = [group.prompt for group in state.ready if group.prompt.index not in self._ready]
        self._waiting = sorted((prompt.index, prompt) for prompt in [*state.waiting, *again])
        self._attempts = Counter(state.attempts)
        self._load = [0] * self._limits.engines
        self.resampled = self.put_aside = self.dropped = 0

    def sends(self) -> list[Send]:
        """Every group that is to be begun now. They count as sent."""
        found = []
        while (engine := self._free_engine()) is not None:
            prompt = self._next_prompt()
            if prompt is None:
                break
            send = Send(prompt, engine, self.version, self._attempts[prompt.index] + 1)
            self._in_flight[prompt.index] = send
            self._load[engine] += 1
            self._begun_in_flight[self.version] += 1
            found.append(send)
        return found

    def finished(self, group: Group) -> bool:
        """A group came back whole. Returns whether it is kept: one without signal is replaced within the budget."""
        index = group.prompt.index
        self._take_back(index)
        if self.resampled < self._limits.resample and not _has_signal(group):
            self.resampled += 1
            self._attempts.pop(index, None)
            return False
        self._ready[index] = group
        return True

    def failed(self, index: int) -> bool:
        """A group was lost or broke. Returns whether its prompt is put aside; else it will be sent again."""
        prompt = self._take_back(index).prompt
        self._attempts[index] += 1
        if self._attempts[index] >= self._limits.attempts:
            del self._attempts[index]
            self.put_aside += 1
            return True
        heapq.heappush(self._waiting, (index, prompt))
        return False

    def engine_lost(self, engine: int) -> None:
        """Send nothing there. Its groups stay in flight until each is reported `failed`."""
        self._alive[engine] = False

    def engine_back(self, engine: int) -> None:
        self._alive[engine] = True

    def stragglers(self) -> list[Send]:
        """Groups that the next step will not wait for ("retry", "drop"): to be cancelled. The schedule has let go
        of them: under "retry" they will be sent again, under "drop" they are put aside."""
        if self._limits.stale == "finish" or self._training or len(self._ready) < self._limits.batch_size:
            return []
        batch = self._earliest()
        given_up: list[Send] = []
        for steps in range(self._limits.max_async_level + 1):
            left = self._left_behind(batch, within=steps)
            excess = len(left) - steps * self._limits.batch_size
            late = sorted((i for i in left if i in self._in_flight), key=lambda i: (self._begun(i), i))
            for index in late[: max(0, excess)]:
                given_up.append(self._take_back(index))
                if self._limits.stale == "drop":
                    self._attempts.pop(index, None)
                    self.dropped += 1
                else:
                    heapq.heappush(self._waiting, (index, given_up[-1].prompt))
        return given_up

    def take_batch(self) -> list[Group] | None:
        """The groups of the next step, by prompt index, or None where it has to wait. They count as in training."""
        if self._training or len(self._ready) < self._limits.batch_size:
            return None
        if any(count and begun <= self._oldest() for begun, count in self._begun_in_flight.items()):
            return None  # one of them has to be in this step
        batch = self._earliest()
        for steps in range(1, self._limits.max_async_level + 1):
            if len(self._left_behind(batch, within=steps)) > steps * self._limits.batch_size:
                return None
        groups = [self._ready.pop(index) for index in sorted(batch)]
        for group in groups:
            self._attempts.pop(group.prompt.index, None)
        self._training = len(groups)
        return groups

    def trained(self) -> None:
        """The step in training has made the next policy version, and every engine that is there has it."""
        self._training = 0
        self.version += 1
        self.resampled = self.put_aside = self.dropped = 0

    # --- how -----------------------------------------------------------------------------------------------

    def _window(self) -> int:
        limits = self._limits
        return min(limits.max_async_level + 1, limits.steps - self.version) * limits.batch_size

    def _next_prompt(self) -> Prompt | None:
        if len(self._in_flight) + len(self._ready) + self._training >= self._window():
            return None
        return heapq.heappop(self._waiting)[1] if self._waiting else self._sampler.take(1)[0]

    def _free_engine(self) -> int | None:
        free = [e for e, load in enumerate(self._load) if self._alive[e] and load < self._limits.capacity]
        return min(free, key=self._load.__getitem__, default=None)

    def _take_back(self, index: int) -> Send:
        send = self._in_flight.pop(index)
        self._load[send.engine] -= 1
        self._begun_in_flight[send.version] -= 1
        return send

    def _oldest(self) -> int:
        """The oldest version that the next step may be trained on."""
        return self.version - self._limits.max_async_level

    def _begun(self, index: int) -> int:
        """The version that a group in flight or ready was begun on."""
        send = self._in_flight.get(index)
        return send.version if send is not None else self._ready[index].policy_version

    def _earliest(self) -> set[int]:
        order = heapq.nsmallest(
            self._limits.batch_size, self._ready, key=lambda index: (self._begun(index), index)
        )
        return set(order)

    def _left_behind(self, batch: set[int], *, within: int) -> list[int]:
        """Groups outside the batch whose last step is the next one or one of the `within` behind it."""
        newest = self._oldest() + within
        return [
            index
            for index in (*self._in_flight, *self._ready)
            if index not in batch and self._begun(index) <= newest
        ]


def _has_signal(group: Group) -> bool:
    return len({rollout.reward for rollout in group.rollouts}) > 1
