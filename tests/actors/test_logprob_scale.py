"""Claims about the temperatures that the engine's logprobs are taken at."""

import ast
import asyncio
import importlib.util
from pathlib import Path

import pytest

from actors.rollout_engine import RolloutEngine
from rezero_ray.config import load_config
from rezero_ray.config.problems import ConfigError
from rezero_ray.logprob_scale import LOWEST_SAMPLING_TEMPERATURE

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "configs/phishing.toml", ROOT / "configs/overlays/cpu.toml"]


def vllm_constant(name: str) -> float:
    """A number in vllm/sampling_params.py, read without importing vLLM."""
    spec = importlib.util.find_spec("vllm")
    assert spec is not None and spec.submodule_search_locations
    source = Path(spec.submodule_search_locations[0], "sampling_params.py").read_text("utf-8")
    (value,) = (
        ast.literal_eval(statement.value)
        for statement in ast.parse(source).body
        if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", None) == name
    )
    return float(value)


def test_the_lowest_temperature_is_the_one_that_vllm_raises_smaller_ones_to() -> None:
    assert vllm_constant("_MAX_TEMP") == LOWEST_SAMPLING_TEMPERATURE


@pytest.mark.parametrize("temperature", [0.01, 0.3, 1.99, 2.0])
def test_every_temperature_that_both_sides_take_is_allowed(temperature: float) -> None:
    config = load_config(FILES, ["--orchestrator.sampling.temperature", str(temperature)])
    assert config.orchestrator.sampling.temperature == temperature


@pytest.mark.parametrize("temperature", [0.0, 0.001, 0.0099, 2.01])
def test_a_temperature_that_the_engine_would_change_is_refused_with_the_limit(temperature: float) -> None:
    with pytest.raises(ConfigError) as found:
        load_config(FILES, ["--orchestrator.sampling.temperature", str(temperature)])
    message = str(found.value)
    assert "orchestrator.sampling.temperature" in message
    assert "0.01" in message or "2" in message


def test_a_policy_version_is_sampled_at_the_runs_temperature_and_at_no_other() -> None:
    """Its tokens are trained on, and the learner divides by the run's. Another is for the base model alone."""
    engine = RolloutEngine.__ray_metadata__.modified_class
    with pytest.raises(ValueError, match=r"orchestrator\.sampling\.temperature"):
        asyncio.run(engine.generate(None, 0, [1, 2], 4, seed=0, temperature=0.7))
