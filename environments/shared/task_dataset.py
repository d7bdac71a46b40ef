"""From generated tasks to the two datasets of an environment.

Columns: `prompt` (chat messages), `answer` (a string) and `info` (a JSON string; Arrow would merge the keys
of dict columns across rows). `verifiers` adds `example_id` and parses `info` back before scoring.
"""

import json
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

from datasets import Dataset
from verifiers import Rubric

from environments.shared.word_lists import Split

ATTEMPTS_PER_TASK = 50
"""Draws that `distinct_tasks` allows for each task before it says that the generator is too small."""

ENVIRONMENT_OPTIONS = (
    "env_id",
    "env_args",
    "max_seq_len",
    "sampling_args",
    "score_rollouts",
    "timeout_seconds",
)
"""Options of `verifiers.Environment` that the built-in environments pass on."""


class Task(Protocol):
    """What a generator makes: enough to show the task and to score an answer to it."""

    def messages(self) -> list[dict[str, str]]: ...

    def answer(self) -> str: ...

    def info(self) -> dict[str, Any]: ...


TaskT = TypeVar("TaskT", bound=Task)


def distinct_tasks(
    draw: Callable[[random.Random], TaskT], *, split: str, seed: int, count: int
) -> list[TaskT]:
    """`count` tasks with different prompts; the same `split` and `seed` give the same tasks.

    A smaller `count` gives the first tasks of a larger one. Raises ValueError when the generator cannot
    make so many.
    """
    rng = random.Random(f"{split}:{seed}")
    tasks: dict[str, TaskT] = {}
    for _ in range(count * ATTEMPTS_PER_TASK):
        if len(tasks) == count:
            break
        task = draw(rng)
        tasks.setdefault(task.messages()[-1]["content"], task)
    if len(tasks) < count:
        raise ValueError(f"only {len(tasks)} distinct {split} tasks can be made, {count} were asked for")
    return list(tasks.values())


def train_and_held_out(
    draw: Callable[[random.Random, Split], TaskT], *, seed: int, num_train: int, num_eval: int
) -> tuple[list[TaskT], list[TaskT]]:
    """`distinct_tasks` of both splits. That they have nothing in common is up to `draw`."""

    def tasks(split: Split, count: int) -> list[TaskT]:
        return distinct_tasks(lambda rng: draw(rng, split), split=split, seed=seed, count=count)

    return tasks("train", num_train), tasks("eval", num_eval)


def dataset_of(tasks: Iterable[Task]) -> Dataset:
    """The tasks as rows of `prompt`, `answer`, `info`."""
    return Dataset.from_list(
        [{"prompt": t.messages(), "answer": t.answer(), "info": json.dumps(t.info())} for t in tasks]
    )


def parts_of(
    env_id: str, train: Iterable[Task], held_out: Iterable[Task], rubric: Rubric, options: Mapping[str, Any]
) -> dict[str, Any]:
    """What every environment class of `verifiers` takes: both datasets, the rubric, the id, and `options`."""
    datasets = {"dataset": dataset_of(train), "eval_dataset": dataset_of(held_out)}
    return {**datasets, "rubric": rubric, "env_id": env_id, **options}


def info_of(info: object) -> Mapping[str, Any]:
    """The info column as a mapping, whether it is still JSON text or already parsed; empty if neither."""
    if isinstance(info, str):
        try:
            info = json.loads(info)
        except ValueError:
            return {}
    return info if isinstance(info, Mapping) else {}


def check_options(options: Mapping[str, Any]) -> None:
    """Raises ValueError for an option that no built-in environment knows (`verifiers` would swallow it)."""
    for name in options:
        if name not in ENVIRONMENT_OPTIONS:
            raise ValueError(f"unknown option {name!r}; valid: {', '.join(ENVIRONMENT_OPTIONS)}")
