"""A seeded generator of labelled log windows. All of it is synthetic; outside names end in `.example`.

A window has a line with the approved hosts and five to seven numbered lines: one episode, an attack or
ordinary traffic that looks like one (`environments.network_logs.episodes`), among background traffic. What tells
the two apart stands in the window. `NetworkTask.lines` are the numbers of the episode's lines.
"""

import json
import random
from dataclasses import asdict, dataclass
from typing import Any

from environments.network_logs.episodes import ATTACKS, LOOK_ALIKES, ROLES, Scene, background
from environments.shared.word_lists import Split, host_names, organisation_stem

BENIGN = "benign"
LABELS = (*ATTACKS, BENIGN)

BENIGN_SHARE = 0.4
"""Below a half: one attack among seven must not be a worse bet than the one label for everything else."""

WINDOW_LINES = (5, 6, 6, 7)
"""Lines of a window; at least `MIN_BACKGROUND` of them are background."""

MIN_BACKGROUND = 2

MARGIN = 40.0
"""Seconds of the window before and after the episode together, shared out by chance: where in the window
the episode stands says nothing, and lines named blindly do not pay."""

FIRST_NUMBERS = range(20, 90)
"""Number of a window's first line. The demonstrations end at 13: copying theirs names no line."""

NUM_HOSTS, NUM_OUTSIDE = 9, 5

SYSTEM_PROMPT = (
    "Which attack is in the log: "
    + ", ".join(ATTACKS)
    + f", or {BENIGN}? Lines: number time source>target event or sent/received. "
    "Reply with one line of JSON: label, confidence from 0 to 1, lines that show it."
)


@dataclass(frozen=True)
class Demonstration:
    """An earlier exchange in the prompt that shows the form of an answer; its lines are in no window."""

    log: str
    label: str
    lines: tuple[int, ...]

    def messages(self) -> list[dict[str, str]]:
        answer = json.dumps({"label": self.label, "confidence": 0.8, "lines": list(self.lines)})
        return [{"role": "user", "content": self.log}, {"role": "assistant", "content": answer}]


DEMONSTRATIONS = (
    Demonstration(
        "Approved: scanner pc1\n"
        "11 00:07 pc2>db tcp/21 refused\n12 00:08 pc2>db tcp/23 refused\n13 00:09 pc3>db smb 1k/2k",
        "scan",
        (11, 12),
    ),
    Demonstration(
        "Approved: scanner pc1\n"
        "11 00:05 pc3>db smb 1k/2k\n12 00:07 pc1>db tcp/21 refused\n13 00:08 pc1>db tcp/23 refused",
        BENIGN,
        (12, 13),
    ),
)
"""A task shows one of the two, drawn without regard to its own label."""


@dataclass(frozen=True)
class NetworkTask:
    """One window, its label, the numbers of the lines that decide, and which demonstration is shown.

    `first` and `count` are the number of the first line and how many there are; `episode` is the name of
    what happens, which no answer has to give.
    """

    log: str
    label: str
    lines: tuple[int, ...]
    first: int
    count: int
    episode: str
    demonstration: int

    def messages(self) -> list[dict[str, str]]:
        return [
            {"role": "system", "content": SYSTEM_PROMPT},
            *DEMONSTRATIONS[self.demonstration].messages(),
            {"role": "user", "content": self.log},
        ]

    def answer(self) -> str:
        return self.label

    def info(self) -> dict[str, Any]:
        return asdict(self)


def draw_window(rng: random.Random, split: Split) -> NetworkTask:
    """One window; but for the servers `dns` and `mail`, no name occurs in both splits."""
    scene = _draw_scene(rng, split)
    theme = rng.choice(sorted(ATTACKS))
    benign = rng.random() < BENIGN_SHARE
    episode = rng.choice(LOOK_ALIKES[theme]) if benign else ATTACKS[theme]
    events = [(time, body, True) for time, body in episode(rng, scene)]
    span, before = max(time for time, _, _ in events), rng.uniform(0, MARGIN)
    for _ in range(max(MIN_BACKGROUND, rng.choice(WINDOW_LINES) - len(events))):
        events.append((rng.uniform(-before, span + MARGIN - before), background(rng, scene), False))
    events.sort(key=lambda event: event[0])
    start, first = rng.uniform(MARGIN, 1800), rng.choice(FIRST_NUMBERS)
    numbered = [(first + n, start + time, body, decides) for n, (time, body, decides) in enumerate(events)]
    lines = [f"{number} {_clock(time)} {body}" for number, time, body, _ in numbered]
    approved = ", ".join(f"{role} {scene.known[role]}" for role in ROLES)
    return NetworkTask(
        log="\n".join([f"Approved: {approved}", *lines]),
        label=BENIGN if benign else theme,
        lines=tuple(number for number, _, _, decides in numbered if decides),
        first=first,
        count=len(numbered),
        episode=episode.__name__,
        demonstration=rng.randrange(len(DEMONSTRATIONS)),
    )


def _draw_scene(rng: random.Random, split: Split) -> Scene:
    names = host_names(rng, split, NUM_HOSTS + len(ROLES) - 1)
    outside: dict[str, None] = {}
    while len(outside) <= NUM_OUTSIDE:
        outside[f"{organisation_stem(rng, split).lower()}.example"] = None
    backup, *sites = outside
    inside = [role for role in ROLES if role != "backup"]
    known = {**dict(zip(inside, names, strict=False)), "backup": backup}
    return Scene(tuple(names[len(inside) :]), tuple(sites), known)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"
