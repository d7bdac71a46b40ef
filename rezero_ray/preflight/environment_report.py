"""What trying an environment without a model showed, and what is wrong with it. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from rezero_ray.config import Problem
from rezero_ray.config.environment import EnvConfig
from rezero_ray.config.problems import shown
from rezero_ray.preflight.environment_child import Scored
from rezero_ray.preflight.probes import EMPTY, PERFECT
from rezero_ray.preflight.scripted_policy import NOT_SHOWN, REWRITES

PERFECT_AT_LEAST = 0.9
"""Of a task's own solution, on a scale where reward_range is [-1, 1]."""

_ROUNDING = 1e-9


def what_makes_it(index: int) -> tuple[str, ...]:
    """The keys without which another environment than the one that is meant would be tried."""
    return tuple(f"orchestrator.env.{index}.{name}" for name in ("id", "args", "requirements", "python"))


@dataclass(frozen=True)
class Answers:
    """The answers of one kind: how many were tried and got a reward, and the rewards."""

    kind: str
    tried: int
    rewards: tuple[float, ...]


@dataclass(frozen=True)
class EnvironmentReport:
    """What one process told, and another beside it.

    Args:
        described: see `ClassicEnvironment.describe`.
        facts: what it said when it was loaded.
        scored: each probe, as a group of two of the same answer.
        ended: what ended the scoring early.
        solved: further solutions, scored once each, for which the processor worked `solved_cpu` seconds.
        again: another process's report, of the same probes.
    """

    env: EnvConfig
    described: Mapping[str, Any]
    facts: Mapping[str, Any]
    scored: tuple[Scored, ...]
    ended: str | None = None
    solved: tuple[Scored, ...] = ()
    solved_cpu: float = 0.0
    again: "EnvironmentReport | None" = None

    @property
    def answers(self) -> list[Answers]:
        """By kind, in the order in which they were tried."""
        kinds: dict[str, list[Scored]] = {}
        for each in (*self.scored, *self.solved):
            kinds.setdefault(each.probe.kind, []).append(each)
        return [
            Answers(kind, len(of_kind), tuple(each.rewards[0] for each in of_kind if each.rewards))
            for kind, of_kind in kinds.items()
        ]

    @property
    def components(self) -> dict[str, float | None]:
        """Reward functions with their weights, then metrics without."""
        found: dict[str, float | None] = {str(name): weight for name, weight in self.described["components"]}
        for each in self.scored:
            found |= {name: None for name in each.metrics if name not in found}
        return found

    @property
    def milliseconds(self) -> float | None:
        """Of one core, for scoring one answer: a solution where those are known, else any answer."""
        if len(self.solved) > 1 and self.solved_cpu > 0:
            return 1000 * self.solved_cpu / len(self.solved)
        cpu = sum(each.cpu for each in self.scored)
        count = sum(len(each.rewards) for each in self.scored)
        return 1000 * cpu / count if count and cpu > 0 else None

    @property
    def zeroed(self) -> list[Scored]:
        """Probes for which a reward function failed and counts as 0.0."""
        return [each for each in (*self.scored, *self.solved) if each.zeroed]

    @property
    def constant(self) -> float | None:
        """The reward of every answer, where all that got one got the same and more than one kind of answer did; None
        where solutions were tried and got none."""
        rewards = {round(reward, 9) for answers in self.answers for reward in answers.rewards}
        failed = any(answers.kind == PERFECT and not answers.rewards for answers in self.answers)
        kinds = {answers.kind for answers in self.answers if answers.rewards}
        return rewards.pop() if len(rewards) == 1 and len(kinds) > 1 and not failed else None

    @property
    def solutions_scored(self) -> bool:
        """Whether a solution got a reward."""
        return any(answers.kind == PERFECT and answers.rewards for answers in self.answers)

    @property
    def in_both_splits(self) -> int:
        """Held-out prompts that are training prompts."""
        train = set(self.described["train"])
        return sum(prompt in train for prompt in self.described["held_out"])

    @property
    def doubles(self) -> int:
        """Training tasks whose prompt an earlier one has."""
        return len(self.described["train"]) - len(set(self.described["train"]))

    @property
    def unsteady(self) -> list[Scored]:
        """Probes whose reward was another the second time."""
        again = {each.probe: set(each.rewards) for each in (self.again.scored if self.again else ())}
        return [each for each in self.scored if len(set(each.rewards) | again.get(each.probe, set())) > 1]

    @property
    def solved_by_function(self) -> bool:
        """Whether the solutions are the environment's own, and not its answer column."""
        return str(self.described["solution"] or "").startswith("reference_")

    def problems(self, index: int) -> list[Problem]:
        """What is wrong with it, under the keys of `orchestrator.env.{index}`."""
        key, value = f"orchestrator.env.{index}", shown(self.env.id)
        found = [
            Problem(f"{key}.id", what, remedy, value) for what, remedy in (*self._data(), *self._scoring())
        ]
        others = what_makes_it(index)
        return [replace(problem, others=others) for problem in (*found, *self._not_scored(key))]

    def _data(self) -> Iterator[tuple[str, str]]:
        if self.in_both_splits:
            count = len(self.described["held_out"])
            yield (
                f"{self.in_both_splits} of {count} held-out prompts are training prompts too",
                "draw the two splits from different material",
            )
        if self.again is not None and self.again.described["tasks"] != self.described["tasks"]:
            yield (
                "a second process got other tasks from the same arguments: a run could not be resumed",
                "seed its generator with an argument; leave out hash(), the time and the order of sets",
            )

    def _scoring(self) -> Iterator[tuple[str, str]]:
        ended = self.ended or (self.again.ended if self.again else None)
        if ended is not None:
            yield ended, "bound what a reward function does with a text"
        if self.unsteady:
            first = self.unsteady[0]
            yield (
                f"{len(self.unsteady)} of {len(self.scored)} answers got another reward the second time, such as "
                f"{first.probe.kind}: {shown(first.probe.texts[-1])}",
                "leave chance, time and what was scored before out of the reward functions",
            )
        if not self.solved_by_function:
            return
        means = {each.kind: fmean(each.rewards) for each in self.answers if each.rewards}
        alike = PERFECT in means and EMPTY in means and means[EMPTY] >= means[PERFECT]
        empty = (
            f"an empty answer gets {means[EMPTY]:.2f}, its own solutions {means[PERFECT]:.2f}"
            if alike
            else ""
        )
        if self.constant is not None and self.solutions_scored:
            yield (
                f"every answer that was tried, its own solutions included, gets the same reward {self.constant:+.2f}"
                + (f": {empty}" if empty else ""),
                "let its reward functions tell answers apart: nothing can be learned from equal rewards",
            )
            return
        low = [each for each in self.scored + self.solved if self._is_low(each)]
        if low:
            probe = low[0].probe
            yield (
                f"{len(low)} of its own solutions score below {PERFECT_AT_LEAST}, such as that of example "
                f"{probe.example} with {low[0].rewards[0]:.2f}: {shown(probe.texts[-1])}",
                f"look at its reward functions, or at its {self.described['solution']}",
            )
        if alike:
            yield empty, "let its reward functions tell the two apart"

    def _is_low(self, scored: Scored) -> bool:
        lowest, highest = self.env.reward_range
        if scored.probe.kind != PERFECT or not scored.rewards:
            return False
        return 2 * (scored.rewards[0] - lowest) / (highest - lowest) - 1 < PERFECT_AT_LEAST - _ROUNDING

    def _not_scored(self, key: str) -> Iterator[Problem]:
        """One problem for the answers whose reward is out of range, one for those that got none."""
        wrong = [each for each in (*self.scored, *self.solved) if each.wrong is not None]
        outside = [each for each in wrong if "outside" in str(each.wrong) and "raised" not in str(each.wrong)]
        if outside:
            remedy = "write what its rewards lie between"
            value = shown(list(self.env.reward_range))
            yield Problem(f"{key}.reward_range", f"{self.env.name}: {self._told(outside)}", remedy, value)
        broken = [each for each in wrong if each not in outside]
        if broken:
            remedy = "let its reward functions take whatever is said"
            if all(str(each.wrong).startswith((REWRITES, NOT_SHOWN)) for each in broken):
                remedy = "add messages of text behind the policy's reply, and change none before it"
            yield Problem(f"{key}.id", self._told(broken), remedy, shown(self.env.id))

    def _told(self, wrong: Sequence[Scored]) -> str:
        tried = Counter(each.probe.kind for each in (*self.scored, *self.solved))
        kinds = Counter(each.probe.kind for each in wrong)
        counts = ", ".join(f"{count} of {tried[kind]} {kind}" for kind, count in kinds.items())
        first = wrong[0].probe
        example = f"{shown(first.texts[-1])} to example {first.example}"
        return f"no reward for answers ({counts}), such as {example}: {wrong[0].wrong}"

    def notes(self) -> list[str]:
        """What is no mistake, and worth knowing."""
        found = []
        if not self.described["held_out"]:
            found.append("no held-out tasks")
        if self.doubles:
            found.append(f"{self.doubles} training prompts are there more than once")
        if self.constant is not None and not (self.solved_by_function and self.solutions_scored):
            source = self.described["solution"]
            included = f", those by {source} included," if self.solutions_scored else ""
            found.append(
                f"every answer that was tried{included} gets the same reward "
                f"{self.constant:+.2f}: if no answer earns another one, nothing can be learned from it"
            )
        if self.described["solution"] is None:
            found.append(
                "no solution is known: a function reference_answer(info) in its module would have it checked"
            )
        if self.zeroed:
            reason = next(iter(self.zeroed[0].zeroed.values()))
            found.append(
                f"{len(self.zeroed)} of {len(self.scored) + len(self.solved)} answers have a reward function that "
                f'failed and counts as 0.0 (reward_errors = "zero"), such as: {reason}'
            )
        return [f"environment {self.env.name}: {note}" for note in found]

    def summary(self) -> str:
        """The figures on one line."""
        held_out = len(self.described["held_out"])
        parts = [f"{len(self.described['train'])} training tasks, {held_out} held out"]
        parts += [f"{each.kind} {fmean(each.rewards):+.2f}" for each in self.answers if each.rewards]
        return f"environment {self.env.name}: {', '.join(parts)}"
