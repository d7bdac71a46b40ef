"""The programs of `code-vulnerability`: synthetic, small, most with one flaw, some clean.

A program is a flawed function (`environments.flaw`) or its repaired twin, among ordinary ones, in
any order, with names from a made-up company and its trade.
"""

import ast
import random
from dataclasses import dataclass
from string import Template
from typing import Any

from environments import flaws_of_injection, flaws_of_resources, flaws_of_secrecy
from environments.flaw import Cases, Flaw
from environments.word_lists import Split, code_word, organisation_stem

FLAWS = (*flaws_of_injection.FLAWS, *flaws_of_secrecy.FLAWS, *flaws_of_resources.FLAWS)

NOUNS = (
    "order", "guest", "ticket", "member", "parcel", "photo", "recipe", "ship", "tree", "sensor", "invoice",
    "patient", "book", "song", "seat", "room", "plant", "game", "report", "contract",
)  # fmt: skip
VERBS = ("fetch", "save", "send", "check", "store", "move", "track", "share", "close", "renew")

CLEAN_SHARE = 0.125
"""Share of programs without a flaw."""

MOST_ORDINARY = 3

ORDINARY: tuple[tuple[str, Cases], ...] = (
    ("def ${noun}_total(rows):\n    return sum(price * count for price, count in rows)",
     (("${noun}_total([(2, 3), (5, 1)])", 11), ("${noun}_total([])", 0))),
    ("def ${noun}_slug(title):\n    words = title.lower().split()\n    return \"-\".join(words)",
     (("${noun}_slug('Red  Bus')", "red-bus"),)),
    ("def clamp_$noun(value, low, high):\n    return max(low, min(value, high))",
     (("[clamp_$noun(v, 1, 5) for v in (0, 3, 9)]", [1, 3, 5]),)),
    ("def ${noun}_pages(items, size):\n    return [items[i:i + size] for i in range(0, len(items), size)]",
     (("${noun}_pages([1, 2, 3], 2)", [[1, 2], [3]]),)),
    ("def mean_$noun(values):\n    if not values:\n        return 0\n    return sum(values) / len(values)",
     (("[mean_$noun([1, 3]), mean_$noun([])]", [2, 0]),)),
    ("def newest_$noun(rows):\n    return max(rows, key=lambda row: row[\"year\"])",
     (("newest_$noun([{'year': 1}, {'year': 4}])", {"year": 4}),)),
    ("def count_by_$noun(names):\n    counts = {}\n    for name in names:\n"
     "        counts[name] = counts.get(name, 0) + 1\n    return counts",
     (("count_by_$noun(['a', 'b', 'a'])", {"a": 2, "b": 1}),)),
    ("def ${noun}_label(number, name):\n    return f\"{number:03d} {name.title()}\"",
     (("${noun}_label(7, 'red bus')", "007 Red Bus"),)),
)  # fmt: skip


@dataclass(frozen=True)
class Program:
    """A program and what is known about it; `cwe` is 0 and `line` is 0 where nothing is wrong.

    `cases` concern the flawed function, `others` the ordinary ones: (expression, value) pairs.
    """

    lines: tuple[str, ...]
    cwe: int
    line: int
    fix: tuple[str, ...]
    cases: Cases
    attacks: Cases
    others: Cases
    prelude: str

    @property
    def source(self) -> str:
        return "\n".join(self.lines) + "\n"


def draw_program(rng: random.Random, split: Split, *, clean: bool | None = None) -> tuple[Program, Flaw]:
    """One program, and the flaw that it has or, if clean, had; the two splits share no company."""
    kinds = sorted({flaw.cwe for flaw in FLAWS})
    kind = rng.choice(kinds)
    flaw = rng.choice([flaw for flaw in FLAWS if flaw.cwe == kind])
    if clean is None:
        clean = rng.random() < CLEAN_SHARE
    stem = organisation_stem(rng, split)
    own, *nouns = rng.sample(NOUNS, 1 + MOST_ORDINARY)
    names = {
        "noun": own, "verb": rng.choice(VERBS), "stem": stem.lower(), "STEM": stem.upper(),
        "secret": code_word(rng, split),
    }  # fmt: skip
    ordinary = list(zip(rng.sample(ORDINARY, rng.randint(1, MOST_ORDINARY)), nouns, strict=False))
    blocks = [_filled(code, names | {"noun": noun}) for (code, _), noun in ordinary]
    others = [case for (_, cases), noun in ordinary for case in _cases(cases, names | {"noun": noun})]
    bad, fix = _filled(flaw.bad, names), _filled(flaw.fix, names)
    blocks.insert(rng.randint(0, len(blocks)), _flawed_block(flaw, names, fix if clean else bad))
    head = [f'"""{own.title()}s of {stem}."""', *_imports(flaw, clean)]
    lines = tuple("\n\n".join(["\n".join(head), *blocks]).split("\n"))
    program = Program(
        lines=lines,
        cwe=0 if clean else flaw.cwe,
        line=0 if clean else 1 + next(i for i, line in enumerate(lines) if line.strip() == bad),
        fix=() if clean else (*flaw.fix_imports, *fix.split("\n")),
        cases=_cases(flaw.cases, names),
        attacks=_cases(flaw.attacks, names),
        others=tuple(others),
        prelude=_filled(flaw.prelude, names),
    )
    return program, flaw


def _imports(flaw: Flaw, clean: bool) -> list[str]:
    """The imports, those of the repair as well in a clean program, without any that nothing uses."""
    imports = {*flaw.imports, *(flaw.fix_imports if clean else ())}
    if not clean:
        return sorted(imports)
    used = {node.id for node in ast.walk(ast.parse(_plain(flaw))) if isinstance(node, ast.Name)}
    return sorted(line for line in imports if line.split()[-1] in used)


def _plain(flaw: Flaw) -> str:
    return _flawed_block(flaw, {"noun": "n", "verb": "v"}, _filled(flaw.fix, {"noun": "n", "STEM": "S"}))


def _flawed_block(flaw: Flaw, names: dict[str, str], line: str) -> str:
    """The flaw's function with `line`, which may be several, in place of `$bad`, at its indentation."""
    found = []
    for row in flaw.code.strip("\n").split("\n"):
        if row.strip() == "$bad":
            indent = row[: len(row) - len(row.lstrip())]
            found += [indent + each for each in line.split("\n")]
        else:
            found.append(_filled(row, names))
    return "\n".join(found)


def _filled(text: str, names: dict[str, str]) -> str:
    return Template(text).safe_substitute(names)


def _cases(cases: Cases, names: dict[str, str]) -> tuple[tuple[str, Any], ...]:
    return tuple((_filled(call, names), _filled_value(value, names)) for call, value in cases)


def _filled_value(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, list):
        return [_filled_value(each, names) for each in value]
    return _filled(value, names) if isinstance(value, str) else value
