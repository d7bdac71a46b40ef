"""What is asked of a sandbox and what it answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Tier = Literal["bubblewrap", "namespaces", "plain", "modal"]
Status = Literal["finished", "timed out", "killed"]


class SandboxError(RuntimeError):
    """The sandbox itself failed; nothing is known about the program. Never a matter of reward."""


@dataclass(frozen=True)
class Limits:
    """What a program may use. `cpu_seconds` holds for each process; memory, processes and files together."""

    wall_seconds: float = 20.0
    cpu_seconds: int = 5
    memory_mib: int = 512
    processes: int = 16
    file_mib: int = 16
    output_kib: int = 64


@dataclass(frozen=True)
class Program:
    """A command (an absolute path and arguments) with the files it finds, its variables and its input."""

    files: Mapping[str, str]
    command: Sequence[str]
    limits: Limits = field(default_factory=Limits)
    environment: Mapping[str, str] = field(default_factory=dict)
    stdin: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a program ended, with the first `output_kib` of each stream.

    `finished`: by itself, with `exit_code`. `timed out`: wall time. `killed`: for `reason`, or by a signal,
    which is then `-exit_code`.
    """

    status: Status
    exit_code: int
    reason: str
    stdout: str
    stderr: str
    seconds: float


@dataclass(frozen=True)
class Isolation:
    """The tier in use, and what it does not cut off."""

    tier: Tier
    losses: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.tier}: " + ("; ".join(self.losses) if self.losses else "nothing is lost")
