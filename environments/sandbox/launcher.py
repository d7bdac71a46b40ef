"""The process between an environment and a sandboxed program: it shuts the program in, watches and ends it.

Started by `environments.sandbox.sandbox` with a request (JSON) on standard input; the standard library is all that
it imports. It becomes the reaper of every orphan below it, so that no descendant can slip away, and kills
all of them in the end, or as soon as the process that asked for the run is gone; then it clears up as well.
"""

import ctypes
import json
import os
import resource
import select
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from environments.sandbox import landlock, namespaces
from environments.sandbox.process_tree import descendants, kill_descendants, resident_kib, tasks_of_user

SET_CHILD_SUBREAPER, DROP_FROM_BOUNDING_SET, MOST_CAPABILITIES = 36, 24, 64

FIRST_LOOK_SECONDS = 0.02
LAST_LOOK_SECONDS = 0.1
"""The program's processes, memory and files are looked at this often: less as time goes on."""

GONE = "the process that asked is gone"

MOST_FILES = 2000
"""A program that has made more files than this is killed."""

SPARE_PROCESSES = 4
"""What the kernel allows beyond the limit, so that the watch sees a program go over it."""

OWN_PROCESSES = {"bubblewrap": 2, "namespaces": 2, "plain": 0}
"""Descendants that belong to the isolation and not to the program."""


def main() -> None:
    """Runs the request and writes how it ended, as JSON, to standard output."""
    asker = os.getppid()
    request = json.load(sys.stdin)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "cannot become the reaper of orphans")
    failed_read, failed_write = os.pipe2(os.O_CLOEXEC)
    started = time.monotonic()
    program = os.fork()
    if program == 0:
        _start(request, libc, failed_write)
    os.close(failed_write)
    reason = _watch(program, asker, request, started)
    status = _end(program)
    if reason == GONE:
        shutil.rmtree(Path(request["root"]).parent, ignore_errors=True)
    failure = os.read(failed_read, 4000).decode(errors="replace")
    seconds = time.monotonic() - started
    print(json.dumps({"exit_code": status, "reason": reason, "failure": failure, "seconds": seconds}))


def _start(request: dict[str, Any], libc: ctypes.CDLL, failed: int) -> None:
    """In the child: shut in, then become the program. Never returns; what fails is written to `failed`."""
    try:
        libc.prctl(namespaces.SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        for number, (path, flags) in enumerate(request["streams"]):
            os.dup2(os.open(path, flags, 0o600), number)
        if request["tier"] == "namespaces":
            visible = [*request["readable"], *request["writable"]]
            namespaces.enter(request["root"], visible, request["stand_in"])
        os.chdir(request["directory"])
        limits = request["limits"]
        _limit(resource.RLIMIT_CORE, 0)
        _limit(
            resource.RLIMIT_CPU, limits["cpu_seconds"], slack=1
        )  # first a signal that names it, then the end
        _limit(resource.RLIMIT_AS, limits["memory_mib"] << 20)
        _limit(resource.RLIMIT_FSIZE, limits["file_mib"] << 20)
        _limit_processes(request)
        if request["tier"] != "bubblewrap" and landlock.abi():
            landlock.restrict(request["readable"], request["writable"])
        if request["tier"] == "plain" and request["stand_in"] is not None:
            _become_stand_in(request, libc)
        os.execve(request["command"][0], request["command"], request["environment"])
    except BaseException as error:
        os.write(failed, f"{type(error).__name__}: {error}".encode())
    os._exit(127)


def _limit_processes(request: dict[str, Any]) -> None:
    """A bound that the kernel holds, however fast a program forks; the exact count is watched.

    The kernel counts by real user, and never root's. So root's program has a user id that nothing else has.
    """
    most: int = request["limits"]["processes"] + OWN_PROCESSES[request["tier"]] + SPARE_PROCESSES
    if request["tier"] != "namespaces" and request["stand_in"] is None:
        most += tasks_of_user(os.getuid())
    _limit(resource.RLIMIT_NPROC, most)


def _become_stand_in(request: dict[str, Any], libc: ctypes.CDLL) -> None:
    """Root's program is another user's from here on; the real one alone where only root can open what it needs."""
    for capability in range(MOST_CAPABILITIES):
        libc.prctl(DROP_FROM_BOUNDING_SET, capability, 0, 0, 0)
    user = request["effective_user"]
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(request["stand_in"], user, user)
    libc.prctl(namespaces.SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


def _limit(kind: int, most: int, slack: int = 0) -> None:
    ceiling = resource.getrlimit(kind)[1]
    if ceiling == resource.RLIM_INFINITY:
        ceiling = most + slack
    resource.setrlimit(kind, (min(most, ceiling), min(most + slack, ceiling)))


def _watch(program: int, asker: int, request: dict[str, Any], started: float) -> str:
    """Waits for the program's end; why it has to be killed, or an empty string if it ended by itself."""
    poll = select.poll()
    poll.register(os.pidfd_open(program), select.POLLIN)
    limits, pause = request["limits"], FIRST_LOOK_SECONDS
    while True:
        left = limits["wall_seconds"] - (time.monotonic() - started)
        if poll.poll(1000 * max(0.0, min(pause, left))):
            return ""
        if left <= pause and time.monotonic() - started >= limits["wall_seconds"]:
            return "wall time"
        if os.getppid() != asker:
            return GONE
        alive = descendants(os.getpid())
        if len(alive) > limits["processes"] + OWN_PROCESSES[request["tier"]]:
            return "processes"
        if resident_kib(alive) > limits["memory_mib"] << 10:
            return "memory"
        if _too_much_written(request["writable"], limits["file_mib"] << 20):
            return "files"
        pause = min(LAST_LOOK_SECONDS, 1.2 * pause)


def _too_much_written(directories: Sequence[str], most: int) -> bool:
    total = files = 0
    for directory in directories:
        for parent, _, names in os.walk(directory):
            files += 1 + len(names)
            for name in names:
                try:
                    total += Path(parent, name).lstat().st_size
                except OSError:
                    continue  # it is gone already
            if files > MOST_FILES or total > most:
                return True
    return False


def _end(program: int) -> int:
    """Kills whatever lives below, and gives the program's exit code, negative for a signal."""
    kill_descendants(os.getpid())
    _, status = os.waitpid(program, 0)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    main()
