"""All rollout engines, as one: the policy published to each by version, and engines that are lost brought back."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray

from actors.waiting import result_of, wait_all
from rezero_ray.agreement import mismatch_kl, require_match
from rezero_ray.config.schema import Config
from rezero_ray.errors import RunError
from rezero_ray.records import Adapter

LOOK_SECONDS = 0.5
"""Between two looks whether Ray is still there, while engines end."""


class EngineGroup:
    """Every wait is bounded by the config's `[limits]`.

    An engine that fails is ended, and Ray starts its process again under the same handle. It is back when it has
    loaded the model and every policy version that is still in use; until then the others go on without it.
    """

    def __init__(self, engines: Sequence[Any], config: Config) -> None:
        self.handles, self._config, self._limits = list(engines), config, config.limits
        self._adapters: dict[int, Any] = {}
        self._probe: list[int] = []
        self.scores: dict[int, list[float]] = {}  # of the probe under the newest version, by engine
        self.peak_bytes: dict[int, int] = {}  # of memory, by engine, as of the newest version
        self._coming_back: dict[Any, int] = {}
        self._restarts = [0] * len(self.handles)
        self._processes: list[int | None] = [None] * len(self.handles)
        self._lost_at = [-math.inf] * len(self.handles)
        self._newly_lost: list[tuple[int, str]] = []

    def start(self) -> list[Any]:
        """Begin to start every engine; returns what `started` is to be called with, so that the learner can start
        meanwhile."""
        return [engine.start.remote() for engine in self.handles]

    def started(self, starting: Sequence[Any]) -> None:
        """Wait until every engine has loaded the model.

        Raises:
            RunError: one of them did not.
        """
        what = "rollout engines to load the model"
        self._processes = wait_all(starting, self._limits.engine_start, what, kind="engine")

    # --- the policy ----------------------------------------------------------------------------------------

    def publish(self, version: int, adapter: Adapter) -> None:
        """Publish policy `version` to every engine that is there, and forget the one behind the window.

        Once there is a probe (`watch`), `scores` are each engine's logprobs of it under this version.
        """
        window = self._config.orchestrator.max_async_level + 1
        self._adapters = {v: held for v, held in self._adapters.items() if v > version - window}
        self._adapters[version] = ray.put(adapter)
        self.peak_bytes = self._ask_all(
            "publish", version, self._adapters[version], what=f"to take policy version {version}"
        )
        for engine in self.peak_bytes:
            self._retire(engine, version - window)
        if self._probe:
            self.scores = self._logprobs(version)

    def watch(self, version: int, probe: list[int]) -> None:
        """From now on score `probe[1:]` under each version that is published."""
        self._probe = probe
        self.scores = self._logprobs(version)

    def reset(self) -> None:
        """Forget every version and what was cached under it: the learner has gone back."""
        self._adapters, self._probe, self.scores = {}, [], {}
        self._ask_all("reset", what="to forget the policy")

    def canary(self, number: int, adapter: Adapter, probe: list[int]) -> list[list[float]]:
        """Logprobs of the probe under a canary adapter, of each engine."""
        running = [engine.canary.remote(number, ray.put(adapter), probe) for engine in self.handles]
        return wait_all(running, self._limits.publish, f"engines to score canary {number}", kind="engine")

    def logprobs(self, version: int, token_ids: list[int]) -> list[list[float]]:
        """Logprobs of `token_ids[1:]` under policy `version`, of each engine.

        Raises:
            RunError: one of them failed.
        """
        running = [engine.logprobs.remote(version, token_ids) for engine in self.handles]
        return wait_all(
            running, self._limits.publish, f"engines to score under policy version {version}", kind="engine"
        )

    # --- engines that are lost -----------------------------------------------------------------------------

    @property
    def references(self) -> list[Any]:
        """What a change may come from: engines on their way back."""
        return list(self._coming_back)

    def lose(self, engine: int, why: str, since: float = math.inf) -> None:
        """Take an engine for lost and start it again. Nothing happens where that is under way, or where what failed
        was begun (`since`, of the monotonic clock) before the engine was last started again.

        Raises:
            RunError: it has been started again `faults.restarts` times.
        """
        if engine in self._coming_back.values() or since < self._lost_at[engine]:
            return
        self._lost_at[engine] = time.monotonic()
        self._restarts[engine] += 1
        if self._restarts[engine] > self._config.faults.restarts:
            raise RunError(
                "engine", f"engine {engine} was lost {self._restarts[engine]} times (faults.restarts): {why}"
            )
        self._newly_lost.append((engine, why))
        self.scores.pop(engine, None)
        ray.kill(self.handles[engine], no_restart=False)
        start = self.handles[engine].start.options(max_task_retries=-1)
        again = start.remote(instead_of=self._processes[engine])
        self._coming_back[again] = engine

    def look_at_deadlines(self) -> None:
        """
        Raises:
            RunError: an engine that was started again is not back within `limits.engine_start`.
        """
        limit = self._limits.engine_start
        for engine in self._coming_back.values():
            if time.monotonic() > self._lost_at[engine] + limit:
                raise RunError("engine", f"waited {limit:.0f} s for engine {engine} to start again")

    def newly_lost(self) -> list[tuple[int, str]]:
        """Engines that were lost since the last call, and why."""
        found, self._newly_lost = self._newly_lost, []
        return found

    def come_back(self, reference: Any) -> int | None:
        """An engine has loaded the model: give it every version in use. Returns which, None if it was lost again.

        Raises:
            RunError: it does not start; or, of kind `trust`, it scores the probe otherwise than before.
        """
        engine = self._coming_back.pop(reference)
        self._processes[engine] = result_of(reference, f"engine {engine} to start again", kind="engine")
        handle, newest = self.handles[engine], max(self._adapters)
        try:
            for version in sorted(self._adapters):
                wait_all(
                    [handle.publish.remote(version, self._adapters[version])],
                    self._limits.publish,
                    f"engine {engine} to take policy version {version} again",
                    kind="engine",
                )
            if self._probe:
                what = f"engine {engine} to score under policy version {newest}"
                scoring = [handle.logprobs.remote(newest, self._probe)]
                scores = wait_all(scoring, self._limits.publish, what, kind="engine")[0]
                for other in self.scores.values():
                    limit = self._config.trust.max_mismatch_kl
                    require_match(mismatch_kl(other, scores), limit, f"engine {engine} after its restart")
                self.scores[engine] = scores
        except RunError as error:
            if error.kind == "trust":
                raise
            self.lose(engine, error.message)
            return None
        return engine

    def stop(self, alive: Callable[[], bool] = lambda: True) -> None:
        """Let the engines end what they hold. Where Ray is not `alive` any more, it has ended them."""
        if not alive():
            return
        pending = [self.handles[engine].stop.remote() for engine in self.there()]
        deadline = time.monotonic() + self._limits.publish
        while pending and alive() and time.monotonic() < deadline:
            _, pending = ray.wait(pending, num_returns=len(pending), timeout=LOOK_SECONDS)

    # --- how -----------------------------------------------------------------------------------------------

    def there(self) -> list[int]:
        """Engines that are not on their way back."""
        return [e for e in range(len(self.handles)) if e not in self._coming_back.values()]

    def _ask_all(self, method: str, *args: Any, what: str) -> dict[int, Any]:
        """The answers of the engines that are there; one that fails to answer is lost."""
        asked = {e: getattr(self.handles[e], method).remote(*args) for e in self.there()}
        answers = {}
        for engine, reference in asked.items():
            try:
                answers[engine] = wait_all(
                    [reference], self._limits.publish, f"engine {engine} {what}", kind="engine"
                )[0]
            except RunError as error:
                self.lose(engine, error.message)
        return answers

    def _logprobs(self, version: int) -> dict[int, list[float]]:
        return self._ask_all(
            "logprobs", version, self._probe, what=f"to score under policy version {version}"
        )

    def _retire(self, engine: int, version: int) -> None:
        """Ask for a version's removal once nothing uses it; not waited for."""
        if version >= 0:
            self.handles[engine].retire.remote(version)
