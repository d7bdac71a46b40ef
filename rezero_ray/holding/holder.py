"""The record of the process that holds a run directory, and what a reader may conclude from it. Pure but for /proc.

A holder in the reader's own PID namespace is judged by its PID and its start time: exact, at once, and independent
of clocks. Any other holder is judged by its heartbeat alone: the reader watches the record and waits until it
changes, or does not change for a while. Times of two machines are never compared.
"""

import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

Verdict = Literal["alive", "dead", "unknown"]

HELD_DIGITS = 15
"""Width of `held` in the record: a heartbeat overwrites it in place, so the record keeps its length."""


class Place(msgspec.Struct, frozen=True):
    """Where a PID means something: one boot of one kernel, one PID namespace.

    `init_started` is when PID 1 of the namespace was started, in clock ticks since boot: it tells containers apart
    that the other fields do not.
    """

    host: str
    boot_id: str
    pid_namespace: str
    init_started: int


class Holder(msgspec.Struct, frozen=True):
    """A process that holds a run directory.

    Attributes:
        token: random, of this one time that the directory was taken.
        started: of the process, in clock ticks since boot.
        since: UTC by the holder's clock; for readers, never compared.
        held: seconds by the holder's monotonic clock, renewed by every heartbeat.
    """

    token: str
    place: Place
    pid: int
    started: int
    since: str
    held: str = "0"

    def described(self) -> str:
        """For an error: the process, its host and how long it has been there."""
        return (
            f"process {self.pid} on {self.place.host}, for {_duration(float(self.held))} since {self.since}"
        )


def this_place() -> Place:
    """Of the calling process; empty fields where /proc does not tell."""
    init = _stat(1)
    return Place(
        host=socket.gethostname(),
        boot_id=_read(Path("/proc/sys/kernel/random/boot_id")),
        pid_namespace=_link(Path("/proc/self/ns/pid")),
        init_started=init[1] if init else 0,
    )


def new_holder(token: str) -> Holder:
    """The calling process, as it takes a directory."""
    found = _stat(os.getpid())
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return Holder(token, this_place(), os.getpid(), found[1] if found else 0, since)


def encoded(holder: Holder, held: float) -> bytes:
    """One line of JSON, of the same length for every `held`."""
    padded = f"{held:0{HELD_DIGITS}.3f}"
    return msgspec.json.encode(msgspec.structs.replace(holder, held=padded)) + b"\n"


def decoded(record: bytes) -> Holder | None:
    """None where it is being written, or is no record."""
    try:
        holder = msgspec.json.decode(record, type=Holder)
        float(holder.held)
    except (msgspec.DecodeError, ValueError):
        return None
    return holder


def verdict(holder: Holder | None, here: Place, is_alive: Callable[[int, int], bool]) -> Verdict:
    """What is known without waiting. `is_alive(pid, started)` is asked about PIDs of `here` only."""
    if holder is None or holder.place != here or not here.boot_id or not here.pid_namespace:
        return "unknown"
    return "alive" if is_alive(holder.pid, holder.started) else "dead"


def is_alive(pid: int, started: int) -> bool:
    """Whether the process of this PID and start time runs. A zombie does not, and neither does a PID's next owner."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    found = _stat(pid)
    if found is None:  # it exists, and /proc hides it
        return True
    state, its_start = found
    return state not in "ZX" and its_start == started


def _stat(pid: int) -> tuple[str, int] | None:
    """State letter and start time (clock ticks since boot) of a process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0], int(fields[19])
    except (OSError, IndexError, ValueError):
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
