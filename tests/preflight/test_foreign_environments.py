"""Environments with an interpreter of their own, as the preflight sees them. Ours stands in for theirs."""

import sys
from pathlib import Path

import pytest

from rezero_ray.config import Config, ConfigError, load_config
from rezero_ray.foreign import interpreter
from rezero_ray.foreign.interpreter import CACHE_VARIABLE, InterpreterProblem
from rezero_ray.preflight.environments import examine_prompts, examine_sources
from tests.config.run_request import write_right

pytestmark = pytest.mark.slow  # each starts a child that imports verifiers

MODULE = """
import verifiers as vf
from datasets import Dataset

def score(completion) -> float:
    return float(isinstance(completion[0], dict))

def load_environment(count=3):
    rows = [{"prompt": [{"role": "user", "content": f"Say {i}."}], "answer": ""} for i in range(count)]
    return vf.SingleTurnEnv(dataset=Dataset.from_list(rows), rubric=vf.Rubric(funcs=[score]))
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "asks_for_dicts.py").write_text(MODULE, "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


def config_of(tmp_path: Path, *flags: str) -> Config:
    return load_config([write_right(tmp_path)], ["--orchestrator.env.0.id=asks-for-dicts", *flags])


def test_it_is_loaded_by_its_own_interpreter_and_what_was_changed_is_noted(tmp_path: Path) -> None:
    config = config_of(tmp_path, f"--orchestrator.env.0.python={sys.executable}")
    assert not examine_sources(config, must_be_here=True).problems
    found = examine_prompts(config, None)
    assert not found.problems and "asks_for_dicts" not in sys.modules
    assert "3 examples, SingleTurnEnv of verifiers" in found.notes[0]
    assert "messages as dicts" in found.notes[1]


def test_one_that_is_missing_there_is_told_with_the_command_that_mends_it(tmp_path: Path) -> None:
    flags = [
        f"--orchestrator.env.0.python={sys.executable}",
        "--orchestrator.env.0.id=intertwine/sv-env-network-logs",
    ]
    (problem,) = examine_prompts(config_of(tmp_path, *flags), None).problems
    assert problem.key == "orchestrator.env.0.id" and "No module named 'sv_env_network_logs'" in problem.what
    assert "prime env install intertwine/sv-env-network-logs" in problem.remedy


def test_requirements_that_cannot_be_met_are_told_in_the_words_of_uv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_rest: object) -> None:
        raise InterpreterProblem("no version of verifiers==9 was found")

    monkeypatch.setattr(interpreter, "_run", refuse)
    config = config_of(tmp_path, '--orchestrator.env.0.requirements=["verifiers==9"]')
    assert "is made when the run is prepared" in examine_sources(config, must_be_here=False).notes[0]
    (problem,) = examine_prompts(config, None).problems
    assert problem.key == "orchestrator.env.0.requirements"
    assert "no version of verifiers==9 was found" in problem.what


@pytest.mark.parametrize(
    ("flags", "key"),
    [
        (["--orchestrator.env.0.timeout=60", "--limits.group=30"], "orchestrator.env.0.timeout"),
        (["--orchestrator.env.0.raw_reward_range=[1.0, 0.0]"], "orchestrator.env.0.raw_reward_range"),
        (['--orchestrator.env.0.requirements=[" "]'], "orchestrator.env.0.requirements"),
    ],
)
def test_keys_that_cannot_be_meant_are_refused(tmp_path: Path, flags: list[str], key: str) -> None:
    with pytest.raises(ConfigError) as found:
        config_of(tmp_path, *flags)
    assert [problem.key for problem in found.value.problems] == [key]
