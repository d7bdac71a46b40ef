"""Claims about the start-up canary, with two sides that are functions."""

import pytest

from rezero_ray.agreement import CanaryResult
from rezero_ray.canary import run_canary
from rezero_ray.config.schema import Config
from rezero_ray.errors import RunError
from rezero_ray.records import Adapter
from tests.record_builders import make_adapter, make_config

BEFORE, AFTER = [-1.0, -2.0, -3.0], [-1.2, -1.7, -3.1]
PROBE = [5, 6, 7, 8]


class Sides:
    """Engines and learner that agree but for `off`; noise on a module moves both alike."""

    def __init__(self, off: float = 0.0) -> None:
        self.off, self.perturbed = off, 0


class Learner(Sides):
    def logprobs(self, token_ids: object) -> list[float]:
        return list(BEFORE)

    def canary(self, module: str, seed: int, scale: float, probe: object) -> tuple[Adapter, list[float]]:
        self.perturbed += 1
        return make_adapter(), list(AFTER)


class Engines(Sides):
    def logprobs(self, version: int, token_ids: list[int]) -> list[list[float]]:
        return [[value + self.off for value in BEFORE]]

    def canary(self, number: int, adapter: Adapter, probe: list[int]) -> list[list[float]]:
        self.perturbed += 1
        return [[value + self.off for value in AFTER]]


def results(config: Config, learner: Learner, engines: Engines) -> list[CanaryResult]:
    found: list[CanaryResult] = []
    run_canary(config, learner, engines, probe=PROBE, version=0, on_result=found.append)
    return found


def test_every_target_module_is_perturbed_on_both_sides() -> None:
    learner, engines = Learner(), Engines()
    found = results(make_config(), learner, engines)
    assert [each.module for each in found] == make_config().trainer.model.lora.target_modules
    assert learner.perturbed == engines.perturbed == len(found) > 0


def test_without_a_canary_no_module_is_perturbed() -> None:
    learner, engines = Learner(), Engines()
    assert results(make_config(trust__canary=False), learner, engines) == []
    assert learner.perturbed == engines.perturbed == 0


@pytest.mark.parametrize("canary", [True, False])
def test_a_mismatch_above_the_limit_ends_the_run_before_anything_is_perturbed(canary: bool) -> None:
    """exp(d) - d - 1 at d = -0.06 is 0.00176: below the default of 0.05, above 0.001."""
    learner, engines = Learner(), Engines(off=0.06)
    results(make_config(trust__canary=False), learner, engines)
    with pytest.raises(RunError, match=r"at the start: .* above trust\.max_mismatch_kl = 0\.001"):
        results(make_config(trust__canary=canary, trust__max_mismatch_kl=0.001), learner, engines)
    assert learner.perturbed == engines.perturbed == 0
