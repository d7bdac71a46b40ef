"""A short mutual exclusion of the processes of one kernel, which leaves no file behind."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GUARD_SECONDS = 5.0
"""The run directory's guard is held for milliseconds; O_EXCL orders those that come after this long."""


@contextmanager
def alone_in(directory: Path, seconds: float = GUARD_SECONDS) -> Iterator[None]:
    """Alone among the processes of this kernel, where the file system has `flock` for directories. After `seconds` of
    waiting the holder counts as suspended, and the context is entered all the same."""
    file = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    break
                time.sleep(0.01)
            except OSError:  # not on this file system
                break
        yield
    finally:
        os.close(file)
