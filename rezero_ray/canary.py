"""The start-up canary: does the engine apply what the learner learned, for every kind of target module?"""

from collections.abc import Callable, Sequence
from typing import Protocol

from rezero_ray.agreement import CanaryResult, judge_canary, mismatch_kl, require_match, stands_out
from rezero_ray.config import Config
from rezero_ray.records import Adapter

NOISE_SCALES = (0.02, 0.08, 0.32)
"""Standard deviations of the noise on the B matrices, tried in turn until its effect stands out of rounding: the
first does in float32, where bfloat16 hides it."""


class Learners(Protocol):
    def logprobs(self, token_ids: Sequence[int]) -> list[float]: ...

    def canary(
        self, module: str, seed: int, scale: float, probe: Sequence[int]
    ) -> tuple[Adapter, list[float]]: ...


class Engines(Protocol):
    def logprobs(self, version: int, token_ids: list[int]) -> list[list[float]]: ...

    def canary(self, number: int, adapter: Adapter, probe: list[int]) -> list[list[float]]: ...


def run_canary(
    config: Config,
    learners: Learners,
    engines: Engines,
    *,
    probe: list[int],
    version: int,
    on_result: Callable[[CanaryResult], None],
) -> None:
    """Compare logprobs of `probe[1:]`: as things stand, then with noise on each target module in turn.

    Raises:
        RunError: the two do not agree, or an engine ignores a module.
    """
    learner_before = learners.logprobs(probe)
    engines_before = engines.logprobs(version, probe)
    for before in engines_before:
        require_match(mismatch_kl(learner_before, before), config.trust.max_mismatch_kl, "at the start")
    modules = config.trainer.model.lora.target_modules if config.trust.canary else []
    for number, module in enumerate(modules):
        for scale in NOISE_SCALES:
            adapter, learner_after = learners.canary(module, config.seed, scale, probe)
            if all(stands_out(learner_before, learner_after, before) for before in engines_before):
                break
        for before, after in zip(engines_before, engines.canary(number, adapter, probe), strict=True):
            result = judge_canary(
                module,
                learner_before=learner_before,
                learner_after=learner_after,
                engine_before=before,
                engine_after=after,
                dtype=config.model.dtype,
            )
        on_result(result)
