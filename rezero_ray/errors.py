"""What can go wrong while a run is under way, by kind. A wrong request is `rezero_ray.config.ConfigError`."""

from typing import Literal

Kind = Literal["environment", "engine", "learner", "cluster", "checkpoint", "directory", "trust"]


class RunError(Exception):
    """A failure that ends the run with exit status 1. Never turned into a reward."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(kind, message)
        self.kind: Kind = kind
        self.message = message

    def __str__(self) -> str:
        return f"{self.kind} error: {self.message}"


class ProcessDied(RunError):
    """An actor's process is gone, and what it was working on with it."""
