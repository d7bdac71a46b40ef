"""All environment workers, as one: prompts in, groups out."""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray

from actors.waiting import wait_all
from rezero_ray.config.schema import Config
from rezero_ray.records import Group, Prompt

POLL_SECONDS = 0.5


class EnvironmentGroup:
    """Spreads prompts over the workers of their environment."""

    def __init__(self, workers: Mapping[str, Sequence[Any]], config: Config) -> None:
        self._workers, self._limits = workers, config.limits
        self._next = {name: itertools.cycle(actors) for name, actors in workers.items()}

    def sizes(self) -> dict[str, int]:
        """Training examples of each environment."""
        names = list(self._workers)
        asked = [self._workers[name][0].size.remote() for name in names]
        found = wait_all(
            asked, self._limits.engine_start, f"environments {', '.join(names)} to load", kind="environment"
        )
        return dict(zip(names, found, strict=True))

    def collect(
        self, prompts: Sequence[Prompt], version: int, on_group: Callable[[Group], None]
    ) -> list[Group]:
        """Roll out all prompts under policy `version`; groups come back in the order of the prompts.

        Raises:
            RunError: an engine failed, or no group came within `limits.group` seconds.
        """
        pending = {
            next(self._next[prompt.environment]).run_group.remote(prompt, version): prompt
            for prompt in prompts
        }
        groups: dict[int, Group] = {}
        last = time.monotonic()
        while pending:
            done, _ = ray.wait(list(pending), num_returns=1, timeout=POLL_SECONDS)
            if not done and time.monotonic() - last > self._limits.group:
                waiting = ", ".join(f"{p.environment}#{p.index}" for p in list(pending.values())[:4])
                wait_all(
                    list(pending),
                    0.0,
                    f"environment workers; prompts {waiting} have no group",
                    kind="environment",
                )
            for reference in done:
                prompt = pending.pop(reference)
                what = f"environment worker of {prompt.environment}, prompt {prompt.index}"
                groups[prompt.index] = wait_all([reference], self._limits.group, what, kind="environment")[0]
                on_group(groups[prompt.index])
                last = time.monotonic()
        return [groups[prompt.index] for prompt in prompts]
