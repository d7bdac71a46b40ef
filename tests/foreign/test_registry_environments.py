"""Claims about environments of the registries, through verifiers' own classes: reasoning-gym's sums and TextArena's
Hangman score right. The children are the real ones, each in a virtual environment that uv makes from the package
index; scripts stand in for the policy, and one word for NLTK's word list."""

import asyncio
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rezero_ray.config.environment import EnvConfig
from rezero_ray.foreign.loading import load_record
from rezero_ray.foreign.process import ChildProcess
from tests.foreign_interpreters import interpreter, write_words

pytestmark = [pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(600)]

Player = Callable[[Sequence[dict[str, Any]]], str]
"""The conversation so far to the next answer."""

SUMS = EnvConfig(
    id="verifiers:ReasoningGymEnv",
    args={
        "gym": [
            {
                "name": "chain_sum",
                "weight": 1.0,
                "config": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
            }
        ],
        "num_train_examples": 20,
        "num_eval_examples": 1,
    },
)
HANGMAN = EnvConfig(id="textarena", args={"game": "Hangman-v0"}, max_turns=8)
WORD = "planet"


def sum_of(messages: Sequence[dict[str, Any]]) -> int:
    left, sign, right = re.findall(r"\d+|[+-]", messages[-1]["content"].partition(":")[2])
    return int(left) + int(right) * (1 if sign == "+" else -1)


def guessing(*guesses: str) -> Player:
    """One guess a turn, the last one again and again."""
    return lambda messages: guesses[min(sum(m["role"] == "assistant" for m in messages), len(guesses) - 1)]


CALCULATORS: dict[str, tuple[Player, float]] = {
    "right": (lambda messages: f"<think>So.</think>\n<answer>{sum_of(messages)}</answer>", 1.0),
    "wrong": (lambda messages: f"<answer>{sum_of(messages) + 1}</answer>", 0.0),
    "without tags": (lambda messages: f"It is {sum_of(messages)}.", 0.0),
    "silent": (lambda _: "", 0.0),
}
GUESSERS: dict[str, tuple[Player, float]] = {
    "the word": (guessing(f"[{WORD}]"), 1.0),
    "letter by letter": (guessing(*(f"I say [{letter}]." for letter in WORD)), 1.0),
    "half of it": (guessing("[p]", "[l]", "[a]", "[a]"), 0.5),
    "in a sentence": (guessing("It is planet."), 0.0),
}


async def rewards(version: str, settings: EnvConfig, players: list[Player]) -> list[float]:
    """One rollout of each player, together as a group."""

    async def complete(question: dict[str, Any]) -> dict[str, Any]:
        text = players[question["rollout"]](question["messages"])
        return {"text": text, "tool_calls": [], "finish_reason": "stop", "overlong": False}

    child = await ChildProcess.start(await asyncio.to_thread(interpreter, version), complete)
    try:
        await child.ask("load", **load_record(settings))
        records = await child.ask("run_group", example=3, held_out=False, rollouts=len(players))
    finally:
        await child.kill()
    assert [record["error"] for record in records] == [None] * len(players)
    return [record["reward"] for record in records]


@pytest.fixture(scope="module")
def found(interpreters_of_the_session: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The reward of every player under every version; the children load at the same time."""
    for version in ("0.1.10", "0.3.1", "0.4.0"):
        interpreter(version)
    calculators = [player for player, _ in CALCULATORS.values()]
    guessers = [player for player, _ in GUESSERS.values()]

    async def together() -> list[list[float]]:
        return await asyncio.gather(
            rewards("0.1.10", SUMS, calculators),
            rewards("0.3.1", SUMS, calculators),
            rewards("0.4.0", HANGMAN, guessers),
        )

    with pytest.MonkeyPatch.context() as changes:
        for name, value in write_words(tmp_path_factory.mktemp("nltk"), WORD).items():
            changes.setenv(name, value)
        old, new, games = asyncio.run(together())
    return {
        "0.1.10": dict(zip(CALCULATORS, old, strict=True)),
        "0.3.1": dict(zip(CALCULATORS, new, strict=True)),
        "0.4.0": dict(zip(GUESSERS, games, strict=True)),
    }


@pytest.mark.parametrize("version", ["0.1.10", "0.3.1"])
@pytest.mark.parametrize("player", list(CALCULATORS))
def test_a_sum_of_reasoning_gym_is_worth_1_when_it_is_right(
    found: dict[str, Any], version: str, player: str
) -> None:
    assert found[version][player] == CALCULATORS[player][1]


@pytest.mark.parametrize("player", list(GUESSERS))
def test_a_game_of_hangman_is_worth_the_part_of_the_word_that_was_found(
    found: dict[str, Any], player: str
) -> None:
    assert found["0.4.0"][player] == pytest.approx(GUESSERS[player][1])
