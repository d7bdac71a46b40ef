"""Whose is a run directory? Looks at the record, and where that does not tell, watches it for a heartbeat."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rezero_ray.config.problems import ConfigError, Problem, shown
from rezero_ray.holding.holder import Holder, Verdict, decoded, is_alive, this_place, verdict

RECORD = "lock.json"

BEAT_SECONDS = 5.0
"""Between two heartbeats of a holder."""

TAKEOVER_SECONDS = 60.0
"""Without a heartbeat after which a holder on another host counts as dead: twelve heartbeats, and what a network
volume may take to show them."""


class Found(NamedTuple):
    """A record as it was read; `holder` is None where it cannot be decoded."""

    record: bytes
    holder: Holder | None
    verdict: Verdict


def look(directory: Path) -> Found | None:
    """The record of a run directory and what it tells without waiting; None where there is none.

    Raises:
        OSError: it cannot be read.
    """
    try:
        record = (directory / RECORD).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    holder = decoded(record)
    return Found(record, holder, verdict(holder, this_place(), is_alive))


class Watch:
    """Decides about a holder whose process cannot be looked at, by watching its record.

    Only what this process sees and its own monotonic clock count: no clock of the holder or of a file server.
    """

    def __init__(self, limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._clock = limit, clock
        self._seen: bytes | None = None
        self._since = 0.0

    def see(self, found: Found) -> Verdict:
        """`alive` once the record has changed, `dead` once it has not for the limit."""
        if found.verdict != "unknown":
            return found.verdict
        if self._seen is None:
            self._seen, self._since = found.record, self._clock()
        elif found.record != self._seen:
            return "alive"
        elif self._clock() - self._since >= self._limit:
            return "dead"
        return "unknown"


def in_use(directory: Path, found: Found) -> ConfigError:
    """The refusal of a directory whose holder lives."""
    who = found.holder.described() if found.holder else "a process that has just taken it"
    remedy = "wait for that process or stop it, or name another output_dir"
    return ConfigError([Problem("output_dir", f"is in use by {who}", remedy, shown(str(directory)))])


def waiting_line(directory: Path, found: Found, limit: float) -> str:
    """Why a start waits."""
    who = found.holder.described() if found.holder else f"whoever wrote {RECORD}"
    return (
        f"{directory} was last held by {who}, which cannot be seen from here; "
        f"waiting up to {limit:.0f} s for a heartbeat"
    )
