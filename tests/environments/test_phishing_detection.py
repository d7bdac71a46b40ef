"""What the mail generator promises, and what the rewards of `phishing-detection` tell apart."""

import json
import random
from typing import Any

import pytest

from environments.phishing_detection.environment import generate_tasks, reference_answer
from environments.phishing_detection.mail import DEMONSTRATIONS, LABELS, look_alike
from tests.environments.scripted_client import run_rollout, score_texts


def other(label: str) -> str:
    return LABELS[1 - LABELS.index(label)]


def answer(label: str, confidence: float, *quotes: str) -> str:
    return json.dumps({"label": label, "confidence": confidence, "evidence": list(quotes)})


@pytest.fixture(scope="module")
def row(phishing: Any) -> dict[str, Any]:
    return phishing.get_eval_dataset()[0]


@pytest.fixture(scope="module")
def task(row: dict[str, Any]) -> dict[str, Any]:
    return json.loads(row["info"])


def test_one_turn_only(phishing: Any, row: dict[str, Any]) -> None:
    output, client = run_rollout(phishing, row, [reference_answer(row["info"]), "unused"])
    assert client.calls == 1
    assert output["stop_condition"] == "max_turns_reached"


def test_from_prose_to_the_right_answer_every_step_earns_more(
    phishing: Any, row: dict[str, Any], task: dict[str, Any]
) -> None:
    right, sign = task["label"], task["indicators"][0]
    ladder = [
        "",
        "The mail looks odd to me.",
        f"The mail is {other(right)}.",
        f"The mail is {right}.",
        f"{{label: {right}}}",
        f'{{"label": "{right}", "confidence": 0.9',
        json.dumps({"label": right}),
        answer(other(right), 0.9, "nothing of the kind"),
        answer(other(right), 0.9, sign),
        answer(right, 0.3, sign),
        answer(right, 0.95, sign),
    ]
    rewards = [score_texts(phishing, row, [text])["reward"] for text in ladder]
    assert rewards == sorted(set(rewards))


def test_calibration_is_best_at_the_true_confidence(phishing: Any, row: dict[str, Any], task: Any) -> None:
    sign, grid = task["indicators"][0], [0.0, 0.25, 0.5, 0.75, 1.0]

    def scores(label: str) -> list[float]:
        states = [score_texts(phishing, row, [answer(label, c, sign)]) for c in grid]
        return [state["metrics"]["calibration"] for state in states]

    assert scores(task["label"]) == sorted(scores(task["label"]))
    assert scores(other(task["label"])) == sorted(scores(other(task["label"])), reverse=True)


def test_evidence_tells_invented_from_irrelevant_from_telling_quotes(
    phishing: Any, row: dict[str, Any], task: dict[str, Any]
) -> None:
    subject = next(line for line in task["mail"].splitlines() if line.startswith("Subject"))
    quotes = ["zebras fly at night", f"{subject} zebra", subject, task["indicators"][0]]
    states = [score_texts(phishing, row, [answer(task["label"], 0.9, quote)]) for quote in quotes]
    scores = [state["metrics"]["evidence"] for state in states]
    assert scores == sorted(set(scores))


@pytest.mark.parametrize("confidence", [-0.1, 1.1, "0.9", None, True, float("nan")])
def test_a_confidence_that_is_no_probability_counts_as_missing(
    phishing: Any, row: dict[str, Any], confidence: object
) -> None:
    text = json.dumps({"label": "phishing", "confidence": confidence, "evidence": ["x"]})
    assert score_texts(phishing, row, [text])["metrics"]["calibration"] == -1


def test_stuffed_evidence_scores_at_most_zero_even_with_the_right_label(phishing: Any) -> None:
    words = "urgent verify account password click link suspicious confirm bank login".split()  # noqa: SIM905
    for row in phishing.get_eval_dataset():
        mail = json.loads(row["info"])["mail"]
        for quotes in (words, words[:3], mail.split(), [mail], [mail] * 3, [DEMONSTRATIONS[0].quote]):
            text = answer(row["answer"], 1.0, *quotes)
            assert score_texts(phishing, row, [text])["reward"] <= 0


def test_signs_stand_verbatim_in_the_mail_and_both_labels_are_common() -> None:
    train, held_out = generate_tasks(seed=2, num_train=1000, num_eval=200)
    for task in (*train, *held_out):
        assert task.indicators
        assert all(sign in task.mail for sign in task.indicators)
        assert all(demonstration.quote not in task.mail for demonstration in DEMONSTRATIONS)
    for tasks in (train, held_out):
        share = sum(task.label == "phishing" for task in tasks) / len(tasks)
        assert 0.4 < share < 0.6


def test_tone_alone_does_not_decide() -> None:
    train, _ = generate_tasks(seed=2, num_train=1000, num_eval=1)
    for word in ("password", "within 24 hours", "today"):
        assert {task.label for task in train if word in task.mail} == set(LABELS)


def test_every_domain_is_reserved_and_senders_of_the_splits_differ() -> None:
    train, held_out = generate_tasks(seed=2, num_train=1000, num_eval=200)
    for task in (*train, *held_out):
        hosts = [word for word in task.mail.replace(">", " ").split() if "@" in word or "://" in word]
        assert all(host.split("://")[-1].split("/")[0].endswith(".example") for host in hosts)
    senders = [{task.mail.splitlines()[0].split("<")[0] for task in tasks} for tasks in (train, held_out)]
    assert not senders[0] & senders[1]


def test_a_look_alike_is_never_the_domain_itself() -> None:
    rng = random.Random(0)
    assert all(look_alike(rng, "brookfield.example") != "brookfield.example" for _ in range(200))
