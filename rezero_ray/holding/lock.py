"""Takes a run directory for this process, keeps it with heartbeats, and notices when it was lost.

The record `lock.json` is the lock: created with O_EXCL, so one of several creators wins on local and on network file
systems. `flock` on the directory only orders the processes of one kernel while they look and replace; it is not held
during the run, because children of a process inherit it, and because network volumes do not carry it to other hosts.
A holder that was suspended for so long that another host took over finds another token in the record, and stops
before it writes (`require`).
"""

import os
import secrets
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from rezero_ray.errors import RunError
from rezero_ray.holding.guard import alone_in
from rezero_ray.holding.holder import Holder, decoded, encoded, new_holder
from rezero_ray.holding.watching import (
    BEAT_SECONDS,
    RECORD,
    TAKEOVER_SECONDS,
    Watch,
    in_use,
    look,
    waiting_line,
)

SETTLE_SECONDS = 1.0
"""After a holder on another host was replaced: two hosts may have done so at once, and the last writer stays."""


def acquire(
    directory: Path,
    *,
    limit: float = TAKEOVER_SECONDS,
    beat: float = BEAT_SECONDS,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> "RunLock":
    """The lock of `directory`, which exists. A dead holder on this host is replaced at once, one elsewhere after
    `limit` seconds without a heartbeat.

    Raises:
        ConfigError: a living process holds it.
        OSError: the record cannot be written.
    """
    lock, watch, waiting = RunLock(directory, beat), Watch(limit), False
    while True:
        with alone_in(directory):
            found = look(directory)
            if found is None:
                if lock.create():
                    break
                continue
            seen = watch.see(found)
            if seen == "alive":
                raise in_use(directory, found)
            if seen == "dead":
                if (
                    _remove(directory, found.record)
                    and lock.create()
                    and (found.verdict == "dead" or lock.settled(SETTLE_SECONDS))
                ):
                    break
                watch = Watch(limit)
                continue
        if not waiting:
            waiting = True
            say(waiting_line(directory, found, limit))
        time.sleep(min(0.5, limit / 10))
    lock.start()
    return lock


def wait_until_free(
    directory: Path,
    *,
    limit: float,
    refresh: Callable[[], None],
    say: Callable[[str], None],
    poll: float = 1.0,
) -> None:
    """Return once nobody holds `directory`; a dead holder's record is removed. For volumes that show another host's
    writes after a `refresh` only.

    Raises:
        ConfigError: a living process holds it.
    """
    watch, waiting = Watch(limit), False
    while (found := look(directory)) is not None:
        seen = watch.see(found)
        if seen == "alive":
            raise in_use(directory, found)
        if seen == "dead":
            _remove(directory, found.record)
            return
        if not waiting:
            waiting = True
            say(waiting_line(directory, found, limit))
        time.sleep(poll)
        refresh()


def clear_dead(directory: Path) -> None:
    """Remove the record of a holder that is known to be dead, so that another host need not wait for it."""
    if not directory.is_dir():
        return
    with alone_in(directory):
        found = look(directory)
        if found is not None and found.verdict == "dead":
            _remove(directory, found.record)


class RunLock:
    """Held from `acquire` until `release`, the end of the process or its loss."""

    def __init__(self, directory: Path, beat: float) -> None:
        self._path, self._beat = directory / RECORD, beat
        self._holder = new_holder(secrets.token_hex(8))
        self._taken = time.monotonic()
        self._lost: str | None = None
        self._ended = threading.Event()

    def create(self) -> bool:
        """Write the record where there is none; False where there is one."""
        try:
            file = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        try:
            os.write(file, self._record())
            os.fsync(file)
        finally:
            os.close(file)
        return True

    def settled(self, seconds: float) -> bool:
        """Whether the record is still this one after a while."""
        time.sleep(seconds)
        return _token(self._path) == self._holder.token

    def start(self) -> None:
        """Begin the heartbeats."""
        threading.Thread(
            target=_beats, args=(weakref.ref(self), self._ended, self._beat), daemon=True
        ).start()
        self._release = weakref.finalize(self, _release, self._path, self._holder, self._ended)

    def require(self) -> None:
        """Return where the directory is still held.

        Raises:
            RunError: it was released, or another process has taken it.
        """
        self.renew()
        if self._lost is not None:
            raise RunError("directory", self._lost)

    @property
    def lost(self) -> bool:
        return self._lost is not None

    def renew(self) -> None:
        """One heartbeat. A record that cannot be read or written now is left to the next."""
        if self._lost is not None or os.getpid() != self._holder.pid:
            return
        with suppress(OSError):
            try:
                file = os.open(self._path, os.O_RDWR)
            except FileNotFoundError:  # somebody deleted it, and nobody has taken the directory yet
                if self._path.parent.is_dir() and not self.create():
                    self.renew()
                return
            try:
                there = os.read(file, 4096)
                holder = decoded(there)
                if holder is not None and holder.token == self._holder.token:
                    os.pwrite(file, self._record(), 0)
                    os.fsync(file)
                    return
            finally:
                os.close(file)
            who = holder.described() if holder else "another process"
            self._lost = (
                f"{self._path.parent} was taken over by {who}: this process had given no sign of life for too long. "
                "Nothing more is written here"
            )

    def release(self) -> None:
        """Remove the record, unless another process has taken the directory."""
        self._release()
        self._lost = self._lost or f"{self._path.parent} was released by this process; open it again to write"

    def _record(self) -> bytes:
        return encoded(self._holder, time.monotonic() - self._taken)


def _beats(lock: "weakref.ref[RunLock]", ended: threading.Event, seconds: float) -> None:
    while not ended.wait(seconds):
        held = lock()
        if held is None:
            return
        held.renew()
        del held


def _release(path: Path, holder: Holder, ended: threading.Event) -> None:
    """At the end of a lock, or of the interpreter. Not in a fork of the holder, which has a copy of the lock."""
    ended.set()
    if os.getpid() == holder.pid:
        with suppress(OSError), alone_in(path.parent):
            if _token(path) == holder.token:
                path.unlink()


def _token(path: Path) -> str | None:
    try:
        found = decoded(path.read_bytes())
    except FileNotFoundError:
        return None
    return found.token if found else None


def _remove(directory: Path, record: bytes) -> bool:
    """Remove the record if it is still `record`; another that came in its place goes back."""
    path = directory / RECORD
    aside = path.with_name(f".{RECORD}.{secrets.token_hex(4)}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return True
    mine = aside.read_bytes() == record
    if not mine:
        with suppress(OSError):
            os.link(aside, path)
    aside.unlink()
    return mine
