"""One run with a built-in environment, two toys that no interpreter could hold together, and two environments of the
registries through verifiers' own classes. The model is a tiny one: its texts are noise."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.foreign_interpreters import REQUIREMENTS, interpreter, write_words
from tests.run.train_process import ObservedRun, TrainProcess, read_lines

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STEPS = 10

CLASSIC, V1 = json.dumps(REQUIREMENTS["0.1.10"]), json.dumps(REQUIREMENTS["0.4.0"])
REQUEST = f"""
seq_len = 1024

[trainer]
micro_batch_tokens = 4096

[inference.model]
max_model_len = 1024

[[orchestrator.env]]
id = "phishing-detection"

[[orchestrator.env]]
id = "pinned-classic"
requirements = {CLASSIC}

[[orchestrator.env]]
id = "pinned-v1"
requirements = {V1}

[[orchestrator.env]]
id = "verifiers:ReasoningGymEnv"
requirements = {CLASSIC}
args = {{ gym = "letter_counting", num_train_examples = 50, num_eval_examples = 1 }}

[[orchestrator.env]]
id = "textarena"
requirements = {V1}
args = {{ game = "Hangman-v0" }}
max_turns = 3
"""
TOYS = {"pinned-classic": 3.0, "pinned-v1": 2.0}
"""The major version of openai that each must live with."""


@pytest.fixture(scope="module")
def mixed_run(
    tiny_model: Path, toys: None, interpreters_of_the_session: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ObservedRun]:
    folder = tmp_path_factory.mktemp("mixed")
    request = folder / "request.toml"
    request.write_text(REQUEST, "utf-8")
    for version in ("0.1.10", "0.4.0"):
        interpreter(version)
    with pytest.MonkeyPatch.context() as changes:
        for name, value in write_words(folder / "nltk", "planet", "river").items():
            changes.setenv(name, value)
        run = TrainProcess(
            folder / "run",
            *(
                str(request),
                "--model.name",
                str(tiny_model),
                "--max_steps",
                str(STEPS),
                "--ckpt.interval",
                "10",
            ),
            *("--trainer_gpu_ids", "[1]", "--trust.canary", "false", "--infra.dashboard", "false"),
            *("--mlflow.enabled", "false"),
            *("--orchestrator.batch_size", "5", "--orchestrator.max_async_level", "1"),
        )
    try:
        status = run.wait(600)
        yield ObservedRun(run.output, run.text, status)
    finally:
        run.end()


def rows_of(run: ObservedRun, step: int) -> list[dict[str, Any]]:
    return read_lines(run.output / "rollouts" / f"step_{step:06d}.jsonl")


def test_it_takes_ten_steps_without_an_error_of_an_environment(mixed_run: ObservedRun) -> None:
    assert mixed_run.status == 0, mixed_run.text
    rows = mixed_run.metrics()
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert all(row["errors/environment"] == 0 and row["rollouts/trained"] == 20 for row in rows)


def test_every_environment_is_trained_on_and_several_in_one_step(mixed_run: ObservedRun) -> None:
    seen = [{row["prompt"]["environment"] for row in rows_of(mixed_run, s)} for s in range(1, STEPS + 1)]
    assert set.union(*seen) == {
        *("phishing-detection", "pinned-classic", "pinned-v1", "verifiers:ReasoningGymEnv", "textarena")
    }
    assert any({"phishing-detection", *TOYS} <= each for each in seen)
    for step, environments in enumerate(seen, start=1):
        means = mixed_run.metrics()[step - 1]
        assert {name for name in environments if f"reward/{name}/mean" in means} == environments


@pytest.mark.parametrize("toy", list(TOYS))
def test_each_toy_lives_with_its_own_packages_and_is_learned_from(mixed_run: ObservedRun, toy: str) -> None:
    version = {"pinned-classic": "0.1.10", "pinned-v1": "0.4.0"}[toy]
    assert f"of verifiers {version} on Python" in mixed_run.text
    rows = [row for step in range(1, STEPS + 1) for row in rows_of(mixed_run, step)]
    own = [row for row in rows if row["prompt"]["environment"] == toy]
    assert {row["components"]["openai"] for row in own} == {TOYS[toy]}
    assert all(row["reward"] == row["components"]["length"] for row in own)
    assert any(row["advantage"] != 0 for row in own)


def test_those_of_the_registries_score_what_the_policy_wrote(mixed_run: ObservedRun) -> None:
    rows = [row for step in range(1, STEPS + 1) for row in rows_of(mixed_run, step)]
    sums = [row for row in rows if row["prompt"]["environment"] == "verifiers:ReasoningGymEnv"]
    games = [row for row in rows if row["prompt"]["environment"] == "textarena"]
    assert all({"check_answer_reward_func", "format_reward_func"} <= row["components"].keys() for row in sums)
    assert all(row["components"].keys() >= {"game_reward"} and 0 <= row["reward"] <= 1 for row in games)
    assert max(row["turns"] for row in games) > 1
