"""What is wrong in a generated program, how it is repaired, and how a repair is told from a pretence.

The texts have placeholders: `$noun` and `$verb` for names, `$STEM` and `$stem` for the company, `$secret`, and
in `code` the line `$bad`, which the repair replaces.
"""

from dataclasses import dataclass
from typing import Any

RAISES = "raises"
"""What a case is expected to give that must end in an exception."""

Cases = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Flaw:
    """A function with one bad line.

    `cases` are expressions with their values that hold before and after the repair; `attacks` hold after it
    alone. `prelude` is run before the program: files, stand-ins for what needs a network.
    """

    cwe: int
    imports: tuple[str, ...]
    code: str
    bad: str
    fix: str
    cases: Cases
    attacks: Cases = ()
    fix_imports: tuple[str, ...] = ()
    prelude: str = ""
