"""`network-logs`: which attack does a log window show, or none? One turn, a JSON answer, evidence by line number.

The log is synthetic (`environments.network_logs.sessions`). Four components, each in [-1, 1] and each continuous
far into malformed text, so that a model which cannot yet write JSON has something to climb:

- `form`: how much of the asked JSON stands there, and how little around it;
- `label`: right, a wrong attack, a false alarm or a missed attack; trusted the more the better it is stated
  and the better the lines bear it out;
- `calibration`: Brier score of the confidence;
- `evidence`: the lines that decide and no others.
"""

import json
from collections.abc import Mapping
from typing import Any

import verifiers as vf

from environments.network_logs.answer import KEYS, MAX_LINES, NetworkAnswer, read_answer
from environments.network_logs.sessions import BENIGN, NetworkTask, draw_window
from environments.shared.answer_form import SHORT_PROSE_CHARS, object_form
from environments.shared.message_text import last_assistant_text
from environments.shared.reward_weights import signed, weighted_rubric
from environments.shared.task_dataset import check_options, info_of, parts_of, train_and_held_out

ENVIRONMENT_ID = "network-logs"

DEFAULT_WEIGHTS = {"form": 0.25, "label": 0.3, "calibration": 0.15, "evidence": 0.3}

OTHER_ATTACK, FALSE_ALARM, MISSED_ATTACK = 0.5, 0.25, 0.1
"""Shares of the `label` credit that a wrong label keeps: an alarm of the wrong kind is still looked at, and
a missed attack is the costliest error, yet it answers the question, which silence does not."""

ENOUGH_SUPPORT = 0.5
"""Half of the informedness that the lines can have lets the label and the confidence count in full."""


def form(completion: object) -> float:
    """In [-1, 1]: 1 for the asked object alone; steps for braces, keys, valid JSON, each valid value."""
    answer = read_answer(last_assistant_text(completion))
    values = 0.3 * (answer.label is not None) + 0.2 * (answer.confidence is not None)
    values += 0.5 * _lines_form(answer)
    return object_form(answer.text, answer.found, KEYS, values)


def label(completion: object, info: object) -> float:
    """In [-1, 1]: -1 without a label, up to 1 for the right one; a wrong one keeps a share of the credit.

    Trust grows from naming the label in prose, over a broken object, to valid JSON with the right lines.
    """
    task = info_of(info)
    answer = read_answer(last_assistant_text(completion))
    stated = answer.label or answer.named
    if not stated:
        return -1.0
    return signed(_trust(answer, task) * _label_share(stated, task.get("label")))


def calibration(completion: object, info: object) -> float:
    """In [-1, 1]: -1 without label or confidence, else `2 * weight * (1 - (outcome - confidence)^2) - 1`.

    The weight depends on the lines alone, from 0.2 to 1 (half of that over a broken object), so the score is
    strictly proper whatever the lines.
    """
    task = info_of(info)
    answer = read_answer(last_assistant_text(completion))
    if answer.label is None or answer.confidence is None:
        return -1.0
    outcome = 1.0 if answer.label == task.get("label") else 0.0
    weight = (0.2 + 0.8 * _support(answer, task)) * (1.0 if answer.found.parsed else 0.5)
    return signed(weight * (1.0 - (outcome - answer.confidence) ** 2))


def evidence(completion: object, info: object) -> float:
    """In [-1, 1]: -1 without lines of the window, -0.5 for all of them, 1 for exactly those that decide."""
    task = info_of(info)
    answer = read_answer(last_assistant_text(completion))
    share = _in_window(answer, task) * ((1 + _informedness(answer, task)) / 2) ** 2
    return signed(share * (1.0 if answer.found.parsed else 0.5))


COMPONENTS = (form, label, calibration, evidence)


def _lines_form(answer: NetworkAnswer) -> float:
    """At most 1: a list of different line numbers, no more than a window has, not the demonstration's."""
    if answer.lines is None or answer.copied_example:
        return 0.0
    different = len(set(answer.lines)) / len(answer.lines)
    return different if len(answer.lines) <= MAX_LINES else -0.8 + MAX_LINES / len(answer.lines)


def _label_share(stated: str, right: object) -> float:
    if stated == right:
        return 1.0
    if stated == BENIGN:
        return MISSED_ATTACK
    return FALSE_ALARM if right == BENIGN else OTHER_ATTACK


def _trust(answer: NetworkAnswer, task: Mapping[str, Any]) -> float:
    """Share in [0, 1] of the label's credit that the way of stating it earns."""
    if answer.label is None:
        return 0.15 / (1 + len(answer.text) / (4 * SHORT_PROSE_CHARS))
    if not answer.found.parsed:
        return 0.3
    return (0.35 + 0.65 * _support(answer, task)) * (1 - 0.5 * answer.found.outside)


def _support(answer: NetworkAnswer, task: Mapping[str, Any]) -> float:
    """Share in [0, 1]: how well the named lines bear the label out; 0 for none, for all and for chance."""
    informedness = max(0.0, _informedness(answer, task))
    return _in_window(answer, task) * min(1.0, informedness / ENOUGH_SUPPORT)


def _in_window(answer: NetworkAnswer, task: Mapping[str, Any]) -> float:
    """Share in [0, 1] of the named lines that the window has."""
    if not answer.lines:
        return 0.0
    window = _window(task)
    return sum(number in window for number in answer.lines) / len(answer.lines)


def _informedness(answer: NetworkAnswer, task: Mapping[str, Any]) -> float:
    """In [-1, 1]: share of the deciding lines that are named, less the share of the other lines (Youden's J).

    0 for all lines, and on average for lines picked blindly.
    """
    window, deciding = _window(task), _deciding(task)
    others = len(window) - len(deciding)
    if not deciding or not others:
        return 0.0
    named = {number for number in answer.lines or () if number in window}
    return len(named & deciding) / len(deciding) - len(named - deciding) / others


def _window(task: Mapping[str, Any]) -> range:
    first, count = task.get("first"), task.get("count")
    return range(first, first + count) if isinstance(first, int) and isinstance(count, int) else range(0)


def _deciding(task: Mapping[str, Any]) -> set[int]:
    lines = task.get("lines")
    numbers = lines if isinstance(lines, list | tuple) else ()
    window = _window(task)
    return {number for number in numbers if isinstance(number, int) and number in window}


def reference_answer(info: object) -> str:
    """The generator's own solution of a task, from its `info`: right, sure, the lines that decide."""
    task = info_of(info)
    lines = sorted(_deciding(task))
    return json.dumps({"label": task.get("label", BENIGN), "confidence": 0.95, "lines": lines})


def generate_tasks(
    *, seed: int, num_train: int, num_eval: int
) -> tuple[list[NetworkTask], list[NetworkTask]]:
    """Training and held-out windows; no host's name occurs in both. The same seed gives the same windows."""
    return train_and_held_out(draw_window, seed=seed, num_train=num_train, num_eval=num_eval)


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
