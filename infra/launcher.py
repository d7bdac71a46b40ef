"""Launchers: get machines, run the same command there, and hand back what one holds of it."""

import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from typing import Protocol, cast

from rezero_ray.config import Config
from rezero_ray.config.infra import backends
from rezero_ray.config.infra_table import InfraTable


class Handle(Protocol):
    """A run that was launched; it goes on without whoever holds this."""

    @property
    def name(self) -> str:
        """What `rezero logs NAME` and `rezero stop NAME` take."""
        ...

    @property
    def address(self) -> str:
        """Where a person looks at it."""
        ...

    def facts(self) -> Sequence[tuple[str, str]]:
        """What there is to know, as (what, value): for the person who launched it, secrets included."""
        ...

    def status(self) -> str:
        """A line: queued, running and how far, or how it ended."""
        ...

    def logs(self) -> Iterator[str]:
        """What the command prints, in pieces as they come, until it has ended."""
        ...

    def stop(self) -> None:
        """Ask it to save a checkpoint and end; returns at once."""
        ...

    def result(self) -> int:
        """Wait for its end: the exit status of the command."""
        ...


class Launcher(Protocol):
    """What `infra/<kind>/launcher.py` offers. What is wrong with the request is a ConfigError."""

    def launch(self, config: Config, *, resume: bool, force_new: bool) -> Handle:
        """Get the machine and start the command there; refuse what runs already, unless `force_new`."""
        ...

    def runs(self) -> Sequence[Handle]:
        """Every run that the backend knows of, the newest first."""
        ...


def launcher_of(infra: InfraTable) -> Launcher | None:
    """Who takes the command elsewhere; None where this process carries it out."""
    return _launcher(infra.kind) if infra.elsewhere() else None


def launchers() -> dict[str, Launcher]:
    """The launcher of every kind that has one."""
    kinds = [kind for kind in backends() if importlib.util.find_spec(f"infra.{kind}.launcher")]
    return {kind: _launcher(kind) for kind in kinds}


def _launcher(kind: str) -> Launcher:
    return cast(Launcher, importlib.import_module(f"infra.{kind}.launcher"))
