"""Names the attack of a log window from its text alone, by the rules in docs/environments/network-logs.md."""

import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

BENIGN = ("benign", ())

AT_ONCE = 2
"""Seconds between two events of a machine; a person needs longer to type a password."""

SEVERAL = 3


class Line(NamedTuple):
    number: int
    time: int
    source: str
    target: str
    event: str


def parse(log: str) -> tuple[dict[str, str], list[Line]]:
    """The approved names by role, and the lines."""
    header, *rows = log.splitlines()
    known = dict(entry.split() for entry in header.removeprefix("Approved: ").split(", "))
    lines = []
    for row in rows:
        number, minutes, seconds, source, target, event = re.fullmatch(
            r"(\d+) (\d\d):(\d\d) ([^>]+)>(\S+) (.+)", row
        ).groups()  # type: ignore[union-attr]
        lines.append(Line(int(number), 60 * int(minutes) + int(seconds), source, target, event))
    return known, lines


def outside(name: str) -> bool:
    return name.endswith(".example")


def read_window(log: str) -> tuple[str, tuple[int, ...]]:
    """The label and, of an attack, its line numbers."""
    known, lines = parse(log)
    found = [(label, group) for label, group in _suspicions(known, lines) if len(group) >= SEVERAL - 1]
    assert len(found) <= 1, f"more than one attack: {found}"
    return (found[0][0], tuple(line.number for line in found[0][1])) if found else BENIGN


def _suspicions(known: dict[str, str], lines: list[Line]) -> Iterator[tuple[str, list[Line]]]:
    groups: dict[tuple[str, ...], list[Line]] = defaultdict(list)
    for line in lines:
        words = line.event.split()
        if "fail" in words:
            groups["brute-force", line.source, line.target].append(line)
        elif "ok" in words and line.source != known["admin"]:
            groups["lateral", words[-1]].append(line)
        elif words[0].startswith("tcp/") and outside(line.source):
            groups["flood", line.target, words[0]].append(line)
        elif words[0].startswith("tcp/") and line.source != known["scanner"]:
            groups["scan", line.source].append(line)
        elif line.target == "dns":
            name, _, domain = words[1].partition(".")
            if len(name) >= 8:
                groups["tunnel", line.source, domain].append(line)
        elif outside(line.target) and line.target != known["backup"] and "M/" in line.event:
            groups["exfil", line.source, line.target].append(line)
        elif outside(line.target) and line.source != known["monitor"]:
            groups["beacon", line.source, line.target, line.event].append(line)
    for (label, *_), group in groups.items():
        if HOLDS[label](group):
            yield label, group


def _gaps(group: list[Line]) -> list[int]:
    return [later.time - earlier.time for earlier, later in pairwise(group)]


HOLDS = {
    "brute-force": lambda group: len(group) > SEVERAL and max(_gaps(group)) <= AT_ONCE,
    "lateral": lambda group: len({line.target for line in group}) >= SEVERAL,
    "flood": lambda group: len({line.source for line in group}) >= SEVERAL,
    "scan": lambda group: len({(line.target, line.event.split()[0]) for line in group}) >= SEVERAL,
    "tunnel": lambda group: len(group) >= SEVERAL,
    "exfil": lambda group: len(group) >= SEVERAL - 1,
    "beacon": lambda group: len(group) >= SEVERAL and max(_gaps(group)) - min(_gaps(group)) <= AT_ONCE,
}
