"""A seeded generator of Kubernetes manifests and Terraform files with problems woven in. All synthetic.

A file is drawn as flat settings and rendered as text. It is held to a handful of rules (the prompt names
them), of which it breaks none to three; whatever it does beyond them is nobody's concern. A sound file may
look like a broken one: an open port that is 443, a host path that is harmless, a capability that is granted.
"""

import random
from dataclasses import asdict, dataclass
from typing import Any

from environments.config_verification.rules import KUBERNETES, RULE_OF, RULES, TERRAFORM, Kind, Rule, Settings
from environments.config_verification.text import kubernetes_text, terraform_text
from environments.shared.word_lists import Split, organisation_stem

POD_RULES = 6
"""Rules that a manifest is held to; a Terraform file is held to all rules of its resources."""

PROBLEM_COUNTS = (0, 0, 1, 1, 1, 2, 2, 3)
"""Drawn evenly: a quarter of the files is clean."""

RESOURCES = tuple(sorted({rule.part for rule in RULES if rule.kind == TERRAFORM}))

ROLES = ("api", "web", "jobs", "cache", "mail", "auth", "feed", "sync")

SECRET_WORDS = ("sunflower", "dragon", "monday", "letmein", "coffee", "summer", "tiger", "orange")

SYSTEM_PROMPT = (
    "Which of the rules does the file break? Reply with one line of JSON: findings (broken rules, [] if none), "
    "patch (setting: new value), confidence from 0 to 1."
)

DEMONSTRATIONS: dict[Kind, tuple[str, str]] = {
    KUBERNETES: (
        "Rules: host-ipc, no-probe\napiVersion: v1\nkind: Pod\nmetadata:\n  name: elm\nspec:\n  hostIPC: true\n"
        "  containers:\n  - name: app\n    image: elm:1.0",
        '{"findings": ["host-ipc"], "patch": {"hostIPC": false}, "confidence": 0.8}',
    ),
    TERRAFORM: (
        'Rules: key-rotation, no-tags\nresource "aws_kms_key" "elm" {\n  enable_key_rotation = false\n}',
        '{"findings": ["key-rotation"], "patch": {"enable_key_rotation": true}, "confidence": 0.8}',
    ),
}
"""An earlier exchange in the prompt that shows the form of an answer; its rules are in no task."""


@dataclass(frozen=True)
class ConfigTask:
    """One file. `parts` are "Pod" or "Deployment", or the Terraform resources; `problems` were woven in."""

    kind: Kind
    parts: tuple[str, ...]
    app: str
    settings: Settings
    rules: tuple[str, ...]
    problems: tuple[str, ...]

    def text(self, patch: Settings | None = None) -> str:
        """The file, with these settings put in where given."""
        settings = {**self.settings, **(patch or {})}
        if self.kind == KUBERNETES:
            return kubernetes_text(self.parts[0], self.app, settings)
        return terraform_text(self.parts, self.app, settings)

    def mend(self) -> Settings:
        """A patch that removes the problems."""
        patch: Settings = {}
        for name in self.problems:
            patch |= _filled(RULE_OF[name].mend, {"app": self.app})
        return patch

    def messages(self) -> list[dict[str, str]]:
        shown, answer = DEMONSTRATIONS[self.kind]
        return [
            {"role": "system", "content": SYSTEM_PROMPT},
            {"role": "user", "content": shown},
            {"role": "assistant", "content": answer},
            {"role": "user", "content": f"Rules: {', '.join(self.rules)}\n{self.text()}"},
        ]

    def answer(self) -> str:
        return ", ".join(self.problems) or "clean"

    def info(self) -> dict[str, Any]:
        return asdict(self)


def draw_file(rng: random.Random, split: Split) -> ConfigTask:
    """One file of either kind with equal chance; applications of the two splits never share a name."""
    app = f"{organisation_stem(rng, split).lower()}-{rng.choice(ROLES)}"
    kind: Kind = KUBERNETES if rng.random() < 0.5 else TERRAFORM
    parts: tuple[str, ...]
    if kind == KUBERNETES:
        parts = (rng.choice(("Pod", "Deployment")),)
        rules = rng.sample([rule for rule in RULES if rule.kind == KUBERNETES], POD_RULES)
    else:
        parts = tuple(rng.sample(RESOURCES, 2))
        rules = [rule for rule in RULES if rule.part in parts]
        rng.shuffle(rules)
    problems = _problems(rng, rules)
    fillings = {"app": app, "word": rng.choice(SECRET_WORDS), "number": rng.randrange(1, 90)}
    settings: Settings = {}
    for rule in sorted(rules, key=lambda rule: rule in problems):  # a problem has the last word on a setting
        settings |= _filled(rng.choice(rule.broken if rule in problems else rule.sound), fillings)
    names = tuple(sorted(rule.name for rule in problems))
    return ConfigTask(kind, parts, app, settings, tuple(rule.name for rule in rules), names)


def task_of(info: Any) -> ConfigTask | None:
    """The task from its `info` column, or None when that is not one of ours."""
    try:
        task = ConfigTask(**{**info, **{name: tuple(info[name]) for name in ("parts", "rules", "problems")}})
        task.messages()
        task.mend()
    except (KeyError, TypeError, AttributeError, IndexError):
        return None
    return task


def _problems(rng: random.Random, rules: list[Rule]) -> list[Rule]:
    """None to three of the rules; no two that want different values of the same setting."""
    problems: list[Rule] = []
    for rule in rng.sample(rules, min(rng.choice(PROBLEM_COUNTS), len(rules))):
        taken = {name for other in problems for name in other.broken[0]}
        if not taken & set(rule.broken[0]):
            problems.append(rule)
    return problems


def _filled(settings: Settings, fillings: dict[str, Any]) -> Settings:
    def fill(value: Any) -> Any:
        if isinstance(value, list):
            return [fill(item) for item in value]
        return value.format(**fillings) if isinstance(value, str) else value

    return {name: fill(value) for name, value in settings.items()}
