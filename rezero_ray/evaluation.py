"""Evaluation on held-out tasks: which are taken, what is under way, and what the rewards say. No clock, no Ray.

Intervals are of 95 %, by the central limit theorem over the prompts: the rollouts of one prompt are no independent
samples. The same prompts are sampled with the same seeds under every policy, and differences are taken prompt by
prompt (Miller 2024, "Adding Error Bars to Evals", arXiv:2411.00640).
"""

import math
import random
from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from statistics import fmean, stdev

import msgspec

from rezero_ray.config import Config
from rezero_ray.config.evaluation import EvalConfig
from rezero_ray.records import Group, Prompt
from rezero_ray.schedule import Send

Z_95 = 1.96


class Estimate(msgspec.Struct, frozen=True):
    """A mean and its interval of 95 %."""

    mean: float
    low: float
    high: float


class Score(msgspec.Struct, frozen=True):
    """What one policy makes of the held-out tasks of one environment.

    Attributes:
        rewards: of each task (by example), k each.
        failed: tasks that the environment or the engine gave up; they are in none of the figures.
        average: avg@k, the mean reward.
        passed: pass@k, the share of the tasks with at least one reward of `pass_reward` or more.
        varied: share of the tasks whose k rewards are not all equal; the others teach a group nothing.
        zeroed: rollouts with a reward function that failed and counts as 0.0.
    """

    environment: str
    policy_version: int
    k: int
    rewards: dict[int, list[float]]
    failed: int
    average: Estimate
    passed: Estimate
    varied: float
    zeroed: int = 0

    def metrics(self) -> dict[str, float]:
        """As keys of metrics.jsonl."""
        name = f"eval/{self.environment}"
        return {
            f"{name}/avg@{self.k}": self.average.mean,
            f"{name}/avg@{self.k}/low": self.average.low,
            f"{name}/avg@{self.k}/high": self.average.high,
            f"{name}/pass@{self.k}": self.passed.mean,
            f"{name}/varied": self.varied,
            f"{name}/failed": self.failed,
            f"{name}/zeroed": self.zeroed,
        }


def estimate(values: Sequence[float]) -> Estimate:
    """Mean of independent values; with fewer than two nothing is known of its error, and the interval is empty of
    meaning: it is the mean itself."""
    mean = fmean(values)
    error = Z_95 * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return Estimate(mean, mean - error, mean + error)


def held_out_prompts(sizes: Mapping[str, int], config: Config, settings: EvalConfig) -> list[Prompt]:
    """The tasks of an evaluation, the same for every policy of a run: `num_examples` of each environment, drawn by
    the run's seed. Their indices are negative: those from 0 are the training prompts'."""
    chosen = [
        (name, example)
        for name, size in sizes.items()
        for example in random.Random(f"{config.seed}/held-out/{name}").sample(
            range(size), min(settings.num_examples, size)
        )
    ]
    return [
        Prompt(index=-1 - number, environment=name, example=example, held_out=True)
        for number, (name, example) in enumerate(chosen)
    ]


def scores_of(
    prompts: Sequence[Prompt], groups: Sequence[Group], version: int, settings: EvalConfig
) -> list[Score]:
    """One score for each environment of which at least one group came back."""
    found = []
    for name in dict.fromkeys(prompt.environment for prompt in prompts):
        rewards = {
            group.prompt.example: [rollout.reward for rollout in group.rollouts]
            for group in sorted(groups, key=lambda group: -group.prompt.index)
            if group.prompt.environment == name
        }
        if not rewards:
            continue
        found.append(
            Score(
                environment=name,
                policy_version=version,
                k=settings.rollouts_per_example,
                rewards=rewards,
                failed=sum(prompt.environment == name for prompt in prompts) - len(rewards),
                average=estimate([fmean(each) for each in rewards.values()]),
                passed=estimate([float(max(each) >= settings.pass_reward) for each in rewards.values()]),
                varied=fmean(len(set(each)) > 1 for each in rewards.values()),
                zeroed=sum(
                    bool(rollout.zeroed)
                    for group in groups
                    if group.prompt.environment == name
                    for rollout in group.rollouts
                ),
            )
        )
    return found


def difference(base: Score, other: Score) -> Estimate:
    """Mean reward of `other` less that of `base`, over the tasks that both have."""
    both = [example for example in base.rewards if example in other.rewards]
    return estimate([fmean(other.rewards[example]) - fmean(base.rewards[example]) for example in both])


class HeldOutGroups:
    """The groups of one evaluation. A group that was lost or broke is begun again, at most `attempts` times in all;
    then its task is put aside."""

    def __init__(
        self, prompts: Sequence[Prompt], version: int, *, count: int, capacity: int, attempts: int
    ) -> None:
        """
        Args:
            count: rollouts of a group.
            capacity: groups that an engine works on at one time.
        """
        self.total = len(prompts)
        self.put_aside = 0
        self.groups: list[Group] = []
        self._waiting = deque(prompts)
        self._version, self._count, self._capacity, self._limit = version, count, capacity, attempts
        self._in_flight: dict[int, Send] = {}
        self._attempts: Counter[int] = Counter()

    @property
    def done(self) -> bool:
        return len(self.groups) + self.put_aside == self.total

    @property
    def in_flight(self) -> list[Send]:
        """Groups that were sent and have not come back."""
        return list(self._in_flight.values())

    def sends(self, engines: Collection[int]) -> list[Send]:
        """Every group that is to be begun now, on one of these engines. They count as sent."""
        load = dict.fromkeys(engines, 0)
        for send in self._in_flight.values():
            if send.engine in load:
                load[send.engine] += 1
        found = []
        while self._waiting and load:
            engine = min(load, key=lambda engine: load[engine])
            if load[engine] >= self._capacity:
                break
            prompt = self._waiting.popleft()
            attempt = self._attempts[prompt.index] + 1
            send = Send(prompt, engine, self._version, attempt, rollouts=self._count)
            self._in_flight[prompt.index] = send
            load[engine] += 1
            found.append(send)
        return found

    def finished(self, group: Group) -> bool:
        """A group came back whole; it is kept."""
        del self._in_flight[group.prompt.index]
        self.groups.append(group)
        return True

    def failed(self, index: int) -> bool:
        """A group was lost or broke. Returns whether its task is put aside; else it will be sent again."""
        prompt = self._in_flight.pop(index).prompt
        self._attempts[index] += 1
        if self._attempts[index] >= self._limit:
            self.put_aside += 1
            return True
        self._waiting.append(prompt)
        return False
