"""A bound on the memory that one test may add to pytest's own process.

A process beside pytest watches it, because code that never lets go of the interpreter lock would hold up a thread.
Above the bound it sends a signal: the stacks of all threads are printed, and the test fails by `OutOfBoundsError`.
Above one and a half times the bound the test has not heard it, and pytest is killed before the machine is out of
memory. Either way the test is named.
"""

import faulthandler
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

GROWTH_GIB = 4.0
"""The quick tests add less than 1 GiB each; a run's processes are not pytest's own."""

WATCHER = """
import os, select, signal, sys
pid, growth = int(sys.argv[1]), int(float(sys.argv[2]) * 2**30)
page, test, base, told, rest = os.sysconf("SC_PAGE_SIZE"), "no test", 0, False, b""
def resident():
    with open(f"/proc/{pid}/statm") as file:
        return page * int(file.read().split()[1])
def say(what):
    os.write(2, f"\\nmemory watch: {test}: {what}\\n".encode(errors="replace"))
try:
    base = resident()
    while True:
        if select.select([0], [], [], 0.1)[0]:
            piece = os.read(0, 65536)
            if not piece:
                sys.exit()
            *names, rest = (rest + piece).split(b"\\n")
            if names:
                test, base, told = names[-1].decode(), resident(), False
        grown = resident() - base
        if grown > growth and not told:
            told = True
            say(f"pytest's process has grown by {grown / 2**30:.1f} GiB")
            os.kill(pid, signal.SIGUSR2)
        if grown > 1.5 * growth:
            say(f"and goes on to {grown / 2**30:.1f} GiB: killed")
            os.kill(pid, signal.SIGKILL)
            sys.exit()
except (OSError, IndexError):  # pytest has ended
    pass
"""


class OutOfBoundsError(BaseException):
    """Not an `Exception`: neither the code under test nor hypothesis is to catch it and try again."""


class MemoryWatch:
    """Plugin of one session; `stderr` is a file descriptor that pytest does not capture."""

    def __init__(self, growth_gib: float, stderr: int) -> None:
        self._growth_gib, self._test = growth_gib, ""
        signal.signal(signal.SIGUSR2, self._fail)
        faulthandler.register(signal.SIGUSR2, file=stderr, all_threads=True, chain=True)
        self._watcher = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", WATCHER, str(os.getpid()), str(growth_gib)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,  # Ctrl-C is for pytest
        )

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._test = item.nodeid
        assert self._watcher.stdin is not None
        try:
            self._watcher.stdin.write(f"{item.nodeid}\n".encode(errors="replace"))
            self._watcher.stdin.flush()
        except BrokenPipeError:
            raise RuntimeError("the memory watch has ended") from None
        return (yield)

    def pytest_unconfigure(self) -> None:
        faulthandler.unregister(signal.SIGUSR2)
        self._watcher.communicate()

    def _fail(self, *_: object) -> None:
        raise OutOfBoundsError(f"{self._test} added more than {self._growth_gib:g} GiB to pytest's process")


def watch(config: pytest.Config) -> None:
    """Start the watch, where the kernel tells what a process has."""
    if Path("/proc/self/statm").exists():
        growth = float(os.environ.get("REZERO_TEST_MEMORY_GIB", GROWTH_GIB))
        config.pluginmanager.register(MemoryWatch(growth, os.dup(2)), "rezero-memory-watch")
