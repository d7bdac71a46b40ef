"""The descendants of a process, found through /proc: their count, their memory, and their end."""

import os
import signal
import time
from pathlib import Path

PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024

LAST_WORD_SECONDS = 10.0
"""How long `kill_descendants` goes on against a program that forks as fast as it is killed."""


def every_process() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def descendants(ancestor: int) -> list[int]:
    """Every living process that `ancestor` is the parent, or grandparent, of; zombies are not alive."""
    children: dict[int, list[int]] = {}
    dead: set[int] = set()
    for process in every_process():
        try:
            fields = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        children.setdefault(int(fields[1]), []).append(process)
        if fields[0] in "ZX":
            dead.add(process)
    found, open_ends = [], [ancestor]
    while open_ends:
        offspring = children.get(open_ends.pop(), [])
        found += offspring
        open_ends += offspring
    return [process for process in found if process not in dead]


def resident_kib(processes: list[int]) -> int:
    """Memory of the processes together, shared pages counted once for each."""
    total = 0
    for process in processes:
        try:
            total += int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE_KIB
        except OSError:
            continue  # it ended meanwhile
    return total


def tasks_of_user(user: int) -> int:
    """Threads of all processes of a user, which is what the kernel's limit on processes counts."""
    total = 0
    for process in every_process():
        try:
            if Path(f"/proc/{process}").stat().st_uid == user:
                total += sum(1 for _ in Path(f"/proc/{process}/task").iterdir())
        except OSError:
            continue  # it ended meanwhile
    return total


def marked(marker: str) -> list[int]:
    """Every process whose environment at its start held `marker`."""
    found = []
    for process in every_process():
        try:
            environment = Path(f"/proc/{process}/environ").read_bytes()
        except OSError:
            continue  # not ours, or ended
        if process != os.getpid() and marker.encode() in environment:
            found.append(process)
    return found


def kill(processes: list[int]) -> None:
    """Kills each; one that ended already is as good."""
    for process in processes:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue


def kill_descendants(ancestor: int) -> None:
    """Kills until no descendant lives; `ancestor` must be the reaper of its orphans.

    Raises TimeoutError when some live on after `LAST_WORD_SECONDS`.
    """
    deadline = time.monotonic() + LAST_WORD_SECONDS
    while alive := descendants(ancestor):
        kill(alive)
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(alive)} processes of the sandbox could not be killed")
        time.sleep(0.001)
