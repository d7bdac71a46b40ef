"""What one look at model, environments and machine found."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from rezero_ray.config.problems import Problem


@dataclass
class Findings:
    """`problems` forbid the run; `notes` are what could not be checked here or is worth knowing."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __add__(self, other: "Findings") -> "Findings":
        return Findings(self.problems + other.problems, self.notes + other.notes)


def together(findings: Iterable[Findings]) -> Findings:
    return sum(findings, Findings())
