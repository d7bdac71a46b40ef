"""All environment workers, as one: a group is begun on one of them, and comes back from it whole or not at all."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from actors.waiting import result_of, wait_all
from rezero_ray.codec import decode
from rezero_ray.config.schema import Config
from rezero_ray.errors import ProcessDied, RunError
from rezero_ray.records import Group, Prompt, Sizes
from rezero_ray.schedule import Send

GRACE_SECONDS = 20.0
"""A worker gives a group up by itself after `limits.group`. One that hangs and does not is ended this much later."""


@dataclass
class Worker:
    """One actor and the groups that it has. While it restarts it gets none."""

    actor: Any
    running: dict[Any, Send] = field(default_factory=dict)
    restart: Any = None
    restart_deadline: float = 0.0


class EnvironmentGroup:
    """Spreads groups over the workers of their environment; workers that die or hang are started again.

    Ray restarts the process of a worker under the same handle. Its groups are lost, and each is reported.
    """

    def __init__(self, workers: Mapping[str, Sequence[Any]], engines: Sequence[Any], config: Config) -> None:
        self._workers = {name: [Worker(actor) for actor in actors] for name, actors in workers.items()}
        self._engines, self._config, self._limits = engines, config, config.limits
        self._restarts = dict.fromkeys(workers, 0)
        self._backlog: list[Send] = []
        self._where: dict[Any, Worker] = {}
        self._deadlines: dict[Any, float] = {}

    def sizes(self) -> dict[str, Sizes]:
        """Tasks of each environment."""
        names = list(self._workers)
        asked = [self._workers[name][0].actor.sizes.remote() for name in names]
        found = wait_all(
            asked, self._limits.engine_start, f"environments {', '.join(names)} to load", kind="environment"
        )
        return dict(zip(names, found, strict=True))

    @property
    def references(self) -> list[Any]:
        """Groups under way."""
        return list(self._where)

    @property
    def restarting(self) -> list[Any]:
        """Workers on their way back."""
        return [w.restart for workers in self._workers.values() for w in workers if w.restart is not None]

    def begin(self, send: Send) -> None:
        """Roll a group out on the worker with the fewest; later, if all of its environment are restarting."""
        there = [w for w in self._workers[send.prompt.environment] if w.restart is None]
        if not there:
            self._backlog.append(send)
            return
        worker = min(there, key=lambda w: len(w.running))
        reference = worker.actor.run_group.remote(send, self._engines[send.engine])
        worker.running[reference] = send
        self._where[reference] = worker
        self._deadlines[reference] = time.monotonic() + self._limits.group + GRACE_SECONDS

    def one_group(self, prompt: Prompt, version: int) -> Group:
        """Roll one group out on the first engine, with nothing else under way.

        Raises:
            RunError: it failed `faults.attempts` times.
        """
        problem = RunError("environment", f"no answer for prompt {prompt.index} of {prompt.environment}")
        for attempt in range(1, self._config.faults.attempts + 1):
            for restarting in self.restarting:
                ray.wait([restarting], timeout=self._limits.engine_start)
                self.come_back(restarting)
            self.begin(Send(prompt, engine=0, version=version, attempt=attempt))
            reference = self.references[0]
            there, _ = ray.wait([reference], timeout=self._limits.group + GRACE_SECONDS)
            result = self.receive(reference)[1] if there else problem
            if isinstance(result, Group):
                return result
            problem = result
        raise problem

    def cancel(self, send: Send) -> None:
        """Give a group up; nothing more is heard of it."""
        self._backlog = [waiting for waiting in self._backlog if waiting != send]
        for reference, worker in list(self._where.items()):
            if worker.running[reference] == send:
                self._forget(reference)
                ray.cancel(reference)

    def cancel_all(self) -> None:
        for send in [worker.running[reference] for reference, worker in self._where.items()]:
            self.cancel(send)
        self._backlog.clear()

    def receive(self, reference: Any) -> tuple[Send, Group | RunError]:
        """What came of a group's reference that is there."""
        worker = self._where[reference]
        send = worker.running[reference]
        self._forget(reference)
        what = f"environment worker of {send.prompt.environment}, prompt {send.prompt.index}"
        try:
            return send, decode(result_of(reference, what, kind="environment"), Group)
        except ProcessDied as error:
            self._restart(worker, send.prompt.environment)
            return send, error
        except RunError as error:
            return send, error

    def end_hanging(self) -> list[Send]:
        """End the workers of groups that are long overdue. Returns those groups; their others fail by themselves.

        Raises:
            RunError: a worker that was started again is not back within `limits.engine_start`.
        """
        now = time.monotonic()
        for name, workers in self._workers.items():
            for worker in workers:
                if worker.restart is not None and now > worker.restart_deadline:
                    limit = self._limits.engine_start
                    raise RunError(
                        "environment", f"waited {limit:.0f} s for a worker of {name} to start again"
                    )
        overdue = [reference for reference, deadline in self._deadlines.items() if now > deadline]
        found = []
        for reference in overdue:
            worker = self._where[reference]
            send = worker.running[reference]
            self._forget(reference)
            found.append(send)
            if worker.restart is None:
                ray.kill(worker.actor, no_restart=False)
                self._restart(worker, send.prompt.environment)
        return found

    def _restart(self, worker: Worker, environment: str) -> None:
        if worker.restart is not None:
            return
        self._restarts[environment] += 1
        if self._restarts[environment] > self._config.faults.restarts * len(self._workers[environment]):
            raise RunError(
                "environment",
                f"the workers of {environment} died {self._restarts[environment]} times, more than "
                "faults.restarts allows; their logs say why",
            )
        worker.restart = worker.actor.sizes.options(max_task_retries=-1).remote()
        worker.restart_deadline = time.monotonic() + self._limits.engine_start

    def come_back(self, reference: Any) -> None:
        """A worker is there again.

        Raises:
            RunError: it is not.
        """
        for name, workers in self._workers.items():
            for worker in workers:
                if worker.restart == reference:
                    result_of(reference, f"environment worker of {name} to restart", kind="environment")
                    worker.restart = None
        waiting, self._backlog = self._backlog, []
        for send in waiting:
            self.begin(send)

    def _forget(self, reference: Any) -> None:
        self._deadlines.pop(reference)
        self._where.pop(reference).running.pop(reference)
