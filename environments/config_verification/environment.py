"""`config-verification`: which rules does this Kubernetes or Terraform file break, and what mends it?

The files are synthetic (`files.py`); checkov's own checks and Rego policies decide which rules a file breaks
before and after the answer's patch (`oracle.py`). One turn, a JSON answer, four components, each in [-1, 1]:

- `form`: how much of the asked JSON stands there, how much of it fits the file, and how little around it;
- `findings`: severity-weighted F1 of the named rules; for a clean file, saying so;
- `repair`: severity of what the patch removes, less what it breaks or changes for nothing;
- `calibration`: Brier score of the confidence that the findings are exactly right.
"""

import json
from typing import Any

import verifiers as vf

from environments.config_verification.answer import KEYS, ConfigAnswer, read_answer
from environments.config_verification.files import ConfigTask, draw_file, task_of
from environments.config_verification.oracle import failing_rules, shared_oracle
from environments.config_verification.rules import SEVERITY_WEIGHTS, weight_of
from environments.shared.message_text import last_assistant_text
from environments.shared.reward_weights import signed, weighted_rubric
from environments.shared.task_dataset import check_options, info_of, parts_of, train_and_held_out

ENVIRONMENT_ID = "config-verification"

DEFAULT_WEIGHTS = {"form": 0.2, "findings": 0.35, "repair": 0.35, "calibration": 0.1}

SHORT_PROSE_CHARS = 240
"""Prose that is shorter gains a trace of `form`: brevity is the first step towards one line of JSON."""

BROKEN_JSON = 0.4
"""Trust in the parts of an object that does not parse."""

NAMED_IN_PROSE = 0.2
"""Trust in rules that short prose names; less the longer it is."""

NEEDLESS_CHANGE = 0.1
"""Share of `repair` that each entry of the patch costs which removes no problem."""

CLEAN_BUT_ACCUSED = 0.5
"""Share of `repair` that leaving a clean file alone keeps when the findings accuse it all the same."""


def form(completion: object, info: object) -> float:
    """In [-1, 1]: 1 for the asked object alone, about this file; steps for braces, keys, valid JSON, values."""
    task = task_of(info_of(info))
    answer = read_answer(last_assistant_text(completion))
    text = answer.text.strip()
    if task is None or not text:
        return -1.0
    share = 0.03 * max(0.0, 1 - len(text) / SHORT_PROSE_CHARS)
    share += 0.04 * text.startswith("{") + 0.03 * ("{" in text) + 0.03 * ("}" in text)
    share += sum(0.03 for key in KEYS if f'"{key}"' in text)
    share += 0.15 * answer.found.parsed
    solid = 1.0 if answer.found.parsed else BROKEN_JSON
    share += solid * (0.19 * _findings_form(answer, task) + 0.19 * _patch_form(answer, task))
    share += solid * 0.1 * (answer.confidence is not None)
    share += 0.15 * (1 - answer.found.outside) * answer.found.parsed
    extra_keys = len(set(answer.found.fields) - set(KEYS)) if answer.found.parsed else 0
    return signed(share / (1 + 0.1 * extra_keys))


def findings(completion: object, info: object) -> float:
    """In [-1, 1]: F1 of the findings, each weighing by its severity; for a clean file, 1 for an empty list.

    Trust grows from naming rules in prose, over a broken object, to valid JSON with nothing around it.
    """
    task = task_of(info_of(info))
    answer = read_answer(last_assistant_text(completion))
    if task is None:
        return -1.0
    if answer.findings is None:
        named = answer.named & set(task.rules)
        trust = NAMED_IN_PROSE / (1 + len(answer.text) / (4 * SHORT_PROSE_CHARS))
        return signed(trust * _f1(named, _broken(task)) if named else 0.0)
    return signed(_trust(answer) * _f1(frozenset(answer.findings), _broken(task)))


def repair(completion: object, info: object) -> float:
    """In [-1, 1]: severity-weighted share of the problems that the patch removes, less the new ones.

    Entries that remove nothing cost a little. A clean file is best left alone; -1 without a patch.
    """
    task = task_of(info_of(info))
    answer = read_answer(last_assistant_text(completion))
    if task is None or answer.patch is None:
        return -1.0
    before = failing_rules(task.kind, task.text())
    after = failing_rules(task.kind, task.text(answer.applicable(task.kind, task.settings)))
    broken = before & set(task.rules)
    removed, added = broken - after, after - before
    needless = max(0, len(answer.patch) - len(removed))
    if broken:
        share = (weight_of(removed) - weight_of(added)) / weight_of(broken)
    else:
        share = 1.0 - weight_of(added) / SEVERITY_WEIGHTS["medium"]
        share *= 1.0 if answer.findings == () else CLEAN_BUT_ACCUSED
    return signed(_trust(answer) * (share - NEEDLESS_CHANGE * needless))


def calibration(completion: object, info: object) -> float:
    """In [-1, 1]: `1 - 2 * (outcome - confidence)^2`, outcome 1 for exactly the right findings.

    -1 without findings or confidence. What is gained above 0 counts in full only with good findings.
    """
    task = task_of(info_of(info))
    answer = read_answer(last_assistant_text(completion))
    if task is None or answer.findings is None or answer.confidence is None:
        return -1.0
    broken, stated = _broken(task), frozenset(answer.findings)
    score = 1.0 - 2.0 * (float(stated == broken) - answer.confidence) ** 2
    if score > 0:
        score *= 0.2 + 0.8 * _f1(stated, broken)
    return score if answer.found.parsed else (score - 1) / 2


COMPONENTS = (form, findings, repair, calibration)


def _broken(task: ConfigTask) -> frozenset[str]:
    """The rules of the task that its file breaks, as the oracles say."""
    return failing_rules(task.kind, task.text()) & set(task.rules)


def _f1(stated: frozenset[str], broken: frozenset[str]) -> float:
    """Severity-weighted F1, in [0, 1]; two empty sets agree."""
    if not stated and not broken:
        return 1.0
    return 2 * weight_of(stated & broken) / (weight_of(stated) + weight_of(broken))


def _trust(answer: ConfigAnswer) -> float:
    return (1 - 0.5 * answer.found.outside) if answer.found.parsed else BROKEN_JSON


def _findings_form(answer: ConfigAnswer, task: ConfigTask) -> float:
    """Share in [0, 1] of the findings that are rules of the task; an empty list is well formed."""
    if not answer.findings:
        return float(answer.findings is not None)
    return sum(name in task.rules for name in answer.findings) / len(answer.findings)


def _patch_form(answer: ConfigAnswer, task: ConfigTask) -> float:
    """Share in [0, 1] of the patch that can be applied; no patch at all fits no findings only."""
    if answer.patch is None:
        return 0.0
    if not answer.patch:
        return float(answer.findings == ())
    return len(answer.applicable(task.kind, task.settings)) / len(answer.patch)


def reference_answer(info: object) -> str:
    """The generator's own solution of a task, from its `info`: what it wove in, and how to mend it."""
    task = task_of(info_of(info))
    problems, patch = (list(task.problems), task.mend()) if task else ([], {})
    return json.dumps({"findings": problems, "patch": patch, "confidence": 0.95})


def generate_tasks(*, seed: int, num_train: int, num_eval: int) -> tuple[list[ConfigTask], list[ConfigTask]]:
    """Training and held-out files; no application occurs in both. The same seed gives the same files."""
    return train_and_held_out(draw_file, seed=seed, num_train=num_train, num_eval=num_eval)


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
    `verifiers` would silently swallow, raises ValueError. Without its oracles it raises OracleError, which
    names the command that installs them.
    """
    check_options(options)
    rubric = weighted_rubric(COMPONENTS, DEFAULT_WEIGHTS, weights)
    shared_oracle().start()
    train, held_out = generate_tasks(seed=seed, num_train=num_train, num_eval=num_eval)
    return vf.SingleTurnEnv(**parts_of(ENVIRONMENT_ID, train, held_out, rubric, options))
