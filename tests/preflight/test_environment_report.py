"""What is judged to be wrong with an environment, from what it did with the answers that it was tried with."""

from dataclasses import replace
from typing import Any

import pytest

from rezero_ray.config.environment import EnvConfig
from rezero_ray.preflight.environment_child import Scored
from rezero_ray.preflight.environment_report import EnvironmentReport
from rezero_ray.preflight.probes import (
    DAMAGED,
    ECHO,
    EMPTY,
    HOSTILE,
    HOSTILE_TEXTS,
    PERFECT,
    RANDOM,
    Example,
    Probe,
    probes,
)

EXAMPLES = [
    Example(0, [{"role": "user", "content": "Is it?"}], ('{"label": "yes"}',)),
    Example(1, [{"role": "user", "content": "Or not?"}], ("no", "no indeed")),
]


def scored(kind: str, *rewards: float, text: str = "-", wrong: str | None = None) -> Scored:
    return Scored(Probe(kind, 0, (text,)), rewards, {"right": 1.0, "num_turns": 1.0}, 0.01, wrong)


SOUND = EnvironmentReport(
    EnvConfig(id="sound"),
    described={
        "train": ["a", "b"],
        "held_out": ["c"],
        "tasks": "t",
        "characters": [1, 2, 3],
        "components": [["right", 1.0]],
        "solution": "reference_answer",
    },
    facts={"class": "SingleTurnEnv", "verifiers": "0.2.0", "python": "3.11.7", "turns": 1},
    scored=(scored(PERFECT, 0.9, 0.9), scored(EMPTY, -1.0, -1.0), scored(RANDOM, -1.0, -1.0)),
)


def described(**changes: Any) -> EnvironmentReport:
    return replace(SOUND, described={**SOUND.described, **changes})


def test_a_sound_environment_has_no_problem() -> None:
    assert not replace(SOUND, again=SOUND).problems(0)
    assert not SOUND.notes()
    assert SOUND.components == {"right": 1.0, "num_turns": None}


@pytest.mark.parametrize(
    ("report", "key", "told"),
    [
        (described(held_out=["c", "b"]), "id", "1 of 2 held-out prompts are training prompts too"),
        (replace(SOUND, again=described(tasks="u")), "id", "a second process got other tasks"),
        (replace(SOUND, ended="no score within 60 s for empty"), "id", "no score within 60 s"),
        (replace(SOUND, scored=(scored(PERFECT, 0.89),)), "id", "1 of its own solutions score below 0.9"),
        (replace(SOUND, scored=(scored(RANDOM, 0.5, 0.6),)), "id", "1 of 1 answers got another reward"),
        (
            replace(SOUND, again=replace(SOUND, scored=(scored(EMPTY, -0.9),))),
            "id",
            "1 of 3 answers got another reward the second time, such as empty",
        ),
        (
            replace(SOUND, scored=(scored(PERFECT, 1.0), scored(EMPTY, 1.0))),
            "id",
            "an empty answer gets 1.00, its own solutions 1.00",
        ),
        (
            replace(SOUND, scored=(scored(HOSTILE, wrong="the reward is 7, outside"), scored(HOSTILE, 0.0))),
            "reward_range",
            'no reward for answers (1 of 2 hostile JSON), such as "-" to example 0: the reward is 7',
        ),
        (
            replace(SOUND, scored=(scored(ECHO, wrong="the reward is nan, outside; f raised KeyError"),)),
            "id",
            "f raised KeyError",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_is_told_under_its_key(report: EnvironmentReport, key: str, told: str) -> None:
    (problem,) = report.problems(3)
    assert problem.key == f"orchestrator.env.3.{key}"
    assert told in problem.what and problem.remedy
    assert "orchestrator.env.3.args" in problem.others  # with wrong args it would be another environment


def test_the_answer_column_is_no_promise_of_a_good_score() -> None:
    report = replace(
        described(solution="the answer column"), scored=(scored(PERFECT, 0.0), scored(EMPTY, 0.0))
    )
    assert not report.problems(0)


def test_a_reward_range_of_another_scale_is_judged_on_its_own() -> None:
    env = EnvConfig(id="sound", reward_range=(0.0, 2.0))
    low, high = (replace(SOUND, env=env, scored=(scored(PERFECT, reward),)) for reward in (1.89, 1.91))
    assert low.problems(0) and not high.problems(0)


def test_what_is_missing_and_no_mistake_is_a_note() -> None:
    notes = " ".join(described(train=["a", "a"], held_out=[], solution=None).notes())
    assert (
        "no held-out tasks" in notes and "1 training prompts" in notes and "reference_answer(info)" in notes
    )


def test_probes_are_the_same_every_time_and_any_tokenizer_could_have_written_them() -> None:
    planned = probes(EXAMPLES, random_texts=40)
    assert planned == probes(EXAMPLES, random_texts=40)
    kinds = [probe.kind for probe in planned]
    assert [kinds.count(kind) for kind in (PERFECT, EMPTY, ECHO, RANDOM)] == [2, 2, 2, 40]
    assert (kinds.count(HOSTILE), kinds.count(DAMAGED)) == (len(HOSTILE_TEXTS), 2 * 2 + 8)
    assert {probe.example for probe in planned if probe.kind == RANDOM} == {0, 1}
    assert Probe(ECHO, 0, ("Is it?",)) in planned and Probe(PERFECT, 1, ("no", "no indeed")) in planned
    for probe in planned:
        for text in probe.texts:
            text.encode("utf-8")  # no half of a surrogate pair


def test_one_reward_for_every_answer_is_told_with_the_reference_answer_among_them() -> None:
    alike = (scored(PERFECT, 0.25), scored(EMPTY, 0.25), scored(RANDOM, 0.25))
    (problem,) = replace(SOUND, scored=alike).problems(0)
    assert (
        "every answer that was tried, its own solutions included, gets the same reward +0.25" in problem.what
    )
    for source, answers, said in (
        ("the answer column", alike, "those by the answer column included"),
        ("the answer column", alike[1:], "was tried gets"),  # its fields are empty
        (None, alike[1:], "was tried gets"),
    ):
        report = replace(described(solution=source), scored=answers)
        assert report.constant == 0.25 and not report.problems(0)
        assert any(said in note and "the same reward +0.25" in note for note in report.notes())


def test_rewards_that_differ_or_were_not_compared_are_not_called_constant() -> None:
    assert SOUND.constant is None
    assert replace(SOUND, scored=(scored(PERFECT, 1.0),)).constant is None
    failed, others = scored(PERFECT, wrong="f raised KeyError"), (scored(EMPTY, 0.0), scored(RANDOM, 0.0))
    assert replace(SOUND, scored=(failed, *others)).constant is None
    assert replace(SOUND, scored=others, solved=(scored(PERFECT, 0.5),)).constant is None


def test_answers_with_a_reward_error_that_counts_as_zero_are_counted_in_the_check() -> None:
    zeroed = replace(scored(RANDOM, 0.0), zeroed={"f": "f returned None"})
    report = replace(SOUND, scored=(*SOUND.scored, zeroed))
    assert any("1 of 4 answers have a reward function that failed" in note for note in report.notes())
    assert any("f returned None" in note for note in report.notes())


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        ("right raised ValueError: no", "let its reward functions take whatever is said"),
        ("it rewrites the conversation: 2 of 3 messages are gone", "change none before it"),
        ("the policy cannot be shown what it says: message 2 (tool): an image", "add messages of text"),
    ],
)
def test_the_remedy_fits_what_is_wrong(wrong: str, remedy: str) -> None:
    (problem,) = replace(SOUND, scored=(*SOUND.scored, scored(EMPTY, wrong=wrong))).problems(0)
    assert wrong in problem.what and remedy in problem.remedy
