"""`phishing-detection`: is this mail phishing? One turn, a JSON answer, evidence quoted from the mail.

The mail is synthetic (`environments.phishing_detection.mail`). Four components, each in [-1, 1] and each continuous
far into malformed text, so that a model which cannot yet write JSON has something to climb:

- `form`: how much of the asked JSON stands there, and how little around it;
- `label`: right or wrong, trusted the more the better it is stated and grounded;
- `calibration`: Brier score of the confidence;
- `evidence`: quotes verbatim in the mail, and on the spans that justify the label.
"""

import json
from collections.abc import Mapping
from typing import Any

import verifiers as vf

from environments.phishing_detection.answer import KEYS, MAX_QUOTES, PhishingAnswer, read_answer
from environments.phishing_detection.mail import LABELS, MailTask, draw_mail
from environments.shared.answer_form import SHORT_PROSE_CHARS, object_form
from environments.shared.message_text import last_assistant_text
from environments.shared.quote_match import groundedness, relevance
from environments.shared.reward_weights import signed, weighted_rubric
from environments.shared.task_dataset import check_options, info_of, parts_of, train_and_held_out

ENVIRONMENT_ID = "phishing-detection"

DEFAULT_WEIGHTS = {"form": 0.25, "label": 0.3, "calibration": 0.15, "evidence": 0.3}

WRONG_LABEL = 0.25
"""Share of the `label` credit that a wrong label keeps: it answers the question, which silence does not."""


def form(completion: object) -> float:
    """In [-1, 1]: 1 for the asked object alone; steps for braces, keys, valid JSON, each valid value."""
    answer = read_answer(last_assistant_text(completion))
    values = 0.15 * (answer.label is not None) + 0.1 * (answer.confidence is not None)
    values += 0.23 * _quotes_form(answer)
    return object_form(answer.text, answer.found, KEYS, values / 0.48)


def label(completion: object, info: object) -> float:
    """In [-1, 1]: -1 without a label, up to 1 for the right one; a wrong one keeps a quarter of the credit.

    Trust grows from naming the label in prose, over a broken object, to valid JSON with grounded evidence.
    """
    task = info_of(info)
    answer = read_answer(last_assistant_text(completion))
    stated = answer.label or answer.named
    if not stated:
        return -1.0
    right = stated == task.get("label")
    return signed(_trust(answer, task) * (1.0 if right else WRONG_LABEL))


def calibration(completion: object, info: object) -> float:
    """In [-1, 1]: `1 - 2 * (outcome - confidence)^2`, strictly proper; -1 without label or confidence.

    What is gained above 0 counts in full only with evidence from the mail.
    """
    task = info_of(info)
    answer = read_answer(last_assistant_text(completion))
    if answer.label is None or answer.confidence is None:
        return -1.0
    outcome = 1.0 if answer.label == task.get("label") else 0.0
    score = 1.0 - 2.0 * (outcome - answer.confidence) ** 2
    if score > 0:
        score *= 0.2 + 0.8 * _grounded_share(answer, task)
    return score if answer.found.parsed else (score - 1) / 2


def evidence(completion: object, info: object) -> float:
    """In [-1, 1]: mean over the quotes of being verbatim in the mail (0.4) and on the true signs (0.6).

    -1 without quotes. A quote beyond the third counts as a miss.
    """
    task = info_of(info)
    answer = read_answer(last_assistant_text(completion))
    if not answer.quotes:
        return -1.0
    mail, signs = str(task.get("mail", "")), _signs(task)
    hits = 0.0
    for quote in answer.quotes[:MAX_QUOTES]:
        grounded = groundedness(quote, mail)
        hits += 0.4 * grounded + 0.6 * grounded * relevance(quote, signs)
    score = signed(hits / len(answer.quotes))
    return score if answer.found.parsed else (score - 1) / 2


COMPONENTS = (form, label, calibration, evidence)


def _quotes_form(answer: PhishingAnswer) -> float:
    """Share in [0, 1]: a list of one to three strings, none of them from the prompt's demonstration."""
    if answer.quotes is None or answer.copied_example:
        return 0.0
    return 1.0 if len(answer.quotes) <= MAX_QUOTES else -0.8 + MAX_QUOTES / len(answer.quotes)


def _grounded_share(answer: PhishingAnswer, task: Mapping[str, Any]) -> float:
    """Share in [0, 1] of the quotes that stand in the mail."""
    if not answer.quotes:
        return 0.0
    mail = str(task.get("mail", ""))
    return sum(groundedness(quote, mail) for quote in answer.quotes[:MAX_QUOTES]) / len(answer.quotes)


def _trust(answer: PhishingAnswer, task: Mapping[str, Any]) -> float:
    """Share in [0, 1] of the label's credit that the way of stating it earns."""
    if answer.label is None:
        return 0.15 / (1 + len(answer.text) / (4 * SHORT_PROSE_CHARS))
    if not answer.found.parsed:
        return 0.3
    grounded = _grounded_share(answer, task)
    return (0.35 + 0.65 * grounded) * (1 - 0.5 * answer.found.outside)


def _signs(task: Mapping[str, Any]) -> list[str]:
    signs = task.get("indicators")
    return [sign for sign in signs if isinstance(sign, str)] if isinstance(signs, list | tuple) else []


def reference_answer(info: object) -> str:
    """The generator's own solution of a task, from its `info`: right, sure, one or two short quotes."""
    task = info_of(info)
    quotes = sorted(_signs(task), key=len)[:2]
    return json.dumps({"label": task.get("label", LABELS[0]), "confidence": 0.95, "evidence": quotes})


def generate_tasks(*, seed: int, num_train: int, num_eval: int) -> tuple[list[MailTask], list[MailTask]]:
    """Training and held-out mail; no sender occurs in both. The same seed gives the same mail."""
    return train_and_held_out(draw_mail, seed=seed, num_train=num_train, num_eval=num_eval)


def load_environment(
    *,
    seed: int = 0,
    num_train: int = 2000,
    num_eval: int = 200,
    weights: dict[str, float] | None = None,
    **options: Any,
) -> vf.Environment:
    """The environment with both datasets; the reward lies in [-1, 1].

    `weights` overrides `DEFAULT_WEIGHTS` by name and is normalised; an unknown name, or an option that
    `verifiers` would silently swallow, raises ValueError.
    """
    check_options(options)
    rubric = weighted_rubric(COMPONENTS, DEFAULT_WEIGHTS, weights)
    train, held_out = generate_tasks(seed=seed, num_train=num_train, num_eval=num_eval)
    return vf.SingleTurnEnv(**parts_of(ENVIRONMENT_ID, train, held_out, rubric, options))
