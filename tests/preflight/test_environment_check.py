"""`rezero check --env`, on an environment that is wrong in many ways; its two processes are real."""

from pathlib import Path

import pytest

from rezero_ray import cli

pytestmark = pytest.mark.slow  # starts processes that import verifiers

BROKEN = """
import random
import verifiers as vf
from datasets import Dataset

def task(number):
    message = {"role": "user", "content": f"Say {number}."}
    return {"prompt": [message], "answer": str(number), "info": {"number": number}}

def said(completion, answer) -> float:
    text = completion[0]["content"]
    if "{" in text:
        raise KeyError("label")
    return 0.5 * (text == answer) + random.choice([0.0, 0.01])

def reference_answer(info):
    return str(info["number"])

def load_environment(count=40):
    first = hash("seed") % 100_000
    train = [task(first + number) for number in range(count)]
    held_out = [task(first + number) for number in range(count - 5, count + 5)]
    return vf.SingleTurnEnv(
        dataset=Dataset.from_list(train),
        eval_dataset=Dataset.from_list(held_out),
        rubric=vf.Rubric(funcs=[said]),
    )
"""


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_env.py").write_text(BROKEN, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)


def test_all_that_is_wrong_with_an_environment_is_told_with_its_figures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["check", "--env", "broken-env", "--args", '{"count": 30}']) == 2
    told = capsys.readouterr()
    assert "30 training, 10 held out; 5 in both; others in a second process" in told.out
    assert "said 1" in told.out
    for problem in (
        "5 of 10 held-out prompts are training prompts too",
        "a second process got other tasks",
        "answers got another reward the second time",
        "30 of its own solutions score below 0.9",
        "said raised KeyError: 'label'",
    ):
        assert told.err.count(problem) == 1, told.err
    assert "5 problems" in told.err
