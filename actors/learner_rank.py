"""The learner: one DeepSpeed ZeRO-3 rank an actor, and the group that drives them in lockstep.

Failure semantics: a rank is never restarted on its own (the others would keep their state and silently diverge).
Any failure of a rank is the group's; all are started again and go on from the last complete checkpoint.
"""

from collections.abc import Callable, Sequence
from typing import Any

import ray

from actors.rendezvous import join, open_store
from actors.waiting import wait_all
from rezero_ray.batch import TrainingBatch, Tree, micro_batches, single_sequence
from rezero_ray.codec import decode, encode
from rezero_ray.config.schema import Config
from rezero_ray.forecast.measurement import measure_place
from rezero_ray.forecast.place import Place, known_place
from rezero_ray.records import Adapter, Bytes, MicroBatch, StepReport

PLACE_SECONDS = 0.3
"""Of a run's start, for measuring a CPU while nothing else of the run is at work."""


@ray.remote(max_restarts=0)
class LearnerRank:
    """One rank. Every public method is collective: the group calls it on all ranks at the same time."""

    def __init__(self, config: Config, rank: int, world_size: int, device: str) -> None:
        self._config, self._rank, self._world_size, self._device_kind = config, rank, world_size, device

    def address(self) -> tuple[str, int]:
        """Where the ranks meet: a store that this one keeps open."""
        host = ray.util.get_node_ip_address()
        self._store = open_store(host)
        return host, self._store.port

    def start(self, master_address: str, master_port: int) -> dict[str, int]:
        """Join the process group and load the model. Returns counts of parameters."""
        own = ray.util.get_node_ip_address()
        join(master_address, master_port, rank=self._rank, world_size=self._world_size, own=own)
        from actors.deepspeed_learner import DeepSpeedLearner

        self._learner = DeepSpeedLearner(self._config, self._device_kind, self._world_size)
        return self._learner.parameter_counts()

    def place(self, shape: dict[str, int]) -> Place:
        """This rank's device and its speeds for a model of this shape (`rezero_ray.forecast`); not collective."""
        dtype = self._config.model.dtype
        if self._device_kind == "cuda":
            import torch

            known = known_place(torch.cuda.get_device_name(0), dtype)
            if known is not None:
                return known
        return measure_place(self._device_kind, dtype, seconds=PLACE_SECONDS, **shape)

    def step(self, work: bytes, normalizers: dict[str, int], step: int) -> StepReport:
        """`work` is this rank's part of `TrainingBatch.trees`, encoded."""
        return self._learner.step(micro_batches(decode(work, list[list[Tree]])), normalizers, step)

    def logprobs(self, micro_batch: MicroBatch, *, use_adapter: bool = True) -> list[float]:
        return self._learner.logprobs(micro_batch, use_adapter=use_adapter)

    def adapter(self) -> Adapter | None:
        """The adapter as PEFT files, on rank 0; None on the others."""
        return self._learner.adapter()

    def canary(
        self, module: str, seed: int, scale: float, probe: Sequence[int]
    ) -> tuple[Adapter | None, list[float]]:
        """An adapter that is noise on `module` alone, and the logprobs of `probe` under it; then the old adapter."""
        with self._learner.perturbed(module, seed, scale):
            return self._learner.adapter(), self._learner.logprobs(single_sequence(probe))

    def state(self) -> Bytes | None:
        """Adapter in fp32 and AdamW's moments, whole, on rank 0; None on the others."""
        return self._learner.state()

    def load_state(self, state: Bytes) -> None:
        self._learner.load_state(state)


class LearnerGroup:
    """All ranks, as one. Every wait is bounded by the config's `[limits]`.

    `await_seats` returns when there is a place for new ranks.
    """

    def __init__(
        self, make_ranks: Callable[[], Sequence[Any]], await_seats: Callable[[], None], config: Config
    ) -> None:
        self._make_ranks, self._await_seats, self._limits = make_ranks, await_seats, config.limits
        self._ranks = list(make_ranks())

    def restart(self) -> None:
        """End every rank and start new ones, which know nothing of the steps so far."""
        for rank in self._ranks:
            ray.kill(rank)
        self._await_seats()
        self._ranks = list(self._make_ranks())
        self.start()

    def start(self) -> dict[str, int]:
        """Start every rank; returns counts of parameters."""
        limit = self._limits.learner_start
        address, port = wait_all(
            [self._ranks[0].address.remote()], limit, "learner rank 0's address", kind="learner"
        )[0]
        starting = [rank.start.remote(address, port) for rank in self._ranks]
        return dict(wait_all(starting, limit, "learner ranks to load the model", kind="learner")[0])

    def begin_step(self, batch: TrainingBatch, step: int) -> list[Any]:
        """Begin one optimizer step on all ranks. Each reference becomes a `StepReport`; they are alike."""
        return [
            rank.step.remote(encode(work), batch.normalizers, step)
            for rank, work in zip(self._ranks, batch.trees, strict=True)
        ]

    def place(self, shape: dict[str, int]) -> Place:
        """Where rank 0 is, and how fast that is. See `LearnerRank.place`."""
        found: Place = wait_all(
            [self._ranks[0].place.remote(shape)],
            self._limits.publish,
            "learner rank 0 to measure",
            kind="learner",
        )[0]
        return found

    def adapter(self) -> Adapter:
        """The adapter as it stands."""
        found = self._collective("adapter")
        return found[0]

    def logprobs(self, token_ids: Sequence[int], *, use_adapter: bool = True) -> list[float]:
        """Logprobs of `token_ids[1:]`, each given those before it."""
        batch = single_sequence(token_ids)
        return list(self._collective("logprobs", batch, use_adapter=use_adapter)[0])

    def canary(
        self, module: str, seed: int, scale: float, probe: Sequence[int]
    ) -> tuple[Adapter, list[float]]:
        """See `LearnerRank.canary`."""
        adapter, logprobs = self._collective("canary", module, seed, scale, list(probe))[0]
        return adapter, logprobs

    def state(self) -> Bytes:
        """See `LearnerRank.state`. It lies in Ray's object store, where it was put."""
        found: Bytes = self._collective("state")[0]
        return found

    def load_state(self, state: Bytes) -> None:
        self._collective("load_state", ray.put(state))

    def _collective(self, method: str, *args: Any, **kwargs: Any) -> list[Any]:
        running = [getattr(rank, method).remote(*args, **kwargs) for rank in self._ranks]
        return wait_all(running, self._limits.train_step, f"learner ranks ({method})", kind="learner")
