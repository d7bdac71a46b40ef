"""A process in user, mount, PID, network and IPC namespaces of its own, through ctypes; no privilege needed.

The new root directory holds the allowed paths alone, the network a loopback that is down, and the death of
the first process inside is the death of all.
"""

import ctypes
import os
import signal
from collections.abc import Iterable
from pathlib import Path

NEW_MOUNTS, NEW_IPC, NEW_USER, NEW_PIDS, NEW_NETWORK = 0x20000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
BIND, RECURSIVE, PRIVATE = 0x1000, 0x4000, 0x40000
DETACH, SET_PARENT_DEATH_SIGNAL = 2, 1
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
"""Number of the system call, which the C library does not wrap."""

INNER_USER = 1000
"""User and group of the program inside: not 0, so that it has no capability."""


def enter(root: str, visible: Iterable[str], stand_in: int | None) -> None:
    """Moves this process into new namespaces in which `visible` paths are all there is, at their own names.

    `root` is an empty directory to build the new root on. `stand_in` is, for root alone, the user id that
    the program has outside: the kernel does not count root's processes. Returns in a child that is not the
    first process inside; its ancestors only wait, and pass its end on. Raises OSError where the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _unshare(libc, stand_in)
    _new_root(libc, root, visible)
    pass_on_end_of(os.fork(), libc)
    pass_on_end_of(os.fork(), libc)
    if stand_in is not None:
        os.setresgid(INNER_USER, INNER_USER, INNER_USER)
        os.setresuid(INNER_USER, INNER_USER, INNER_USER)
        libc.prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


def _unshare(libc: ctypes.CDLL, stand_in: int | None) -> None:
    """New namespaces; a helper that stays outside maps the users, which for two of them takes its privilege."""
    wait, go = os.pipe()
    process, user, group = os.getpid(), os.getuid(), os.getgid()
    helper = os.fork()
    if helper == 0:
        os.read(wait, 1)
        users, groups = f"{INNER_USER} {user} 1", f"{INNER_USER} {group} 1"
        if stand_in is not None:
            users = groups = f"0 0 1\n{INNER_USER} {stand_in} 1"
        else:
            Path(f"/proc/{process}/setgroups").write_text("deny")
        Path(f"/proc/{process}/uid_map").write_text(users)
        Path(f"/proc/{process}/gid_map").write_text(groups)
        os._exit(0)
    _checked(libc.unshare(NEW_USER | NEW_MOUNTS | NEW_PIDS | NEW_NETWORK | NEW_IPC), "unshare")
    libc.prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    os.write(go, b"x")
    if os.waitpid(helper, 0)[1]:
        raise OSError("the users of the namespace could not be mapped")
    os.close(wait)
    os.close(go)


def pass_on_end_of(child: int, libc: ctypes.CDLL) -> None:
    """In the child: return, and die with the parent. In the parent: wait for that child, exit as it did."""
    if child == 0:
        libc.prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        return
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def _new_root(libc: ctypes.CDLL, root: str, visible: Iterable[str]) -> None:
    _mount(libc, "none", "/", None, RECURSIVE | PRIVATE)
    _mount(libc, "tmpfs", root, "tmpfs", 0)
    for path in visible:
        source = Path(path)
        if not source.exists():
            continue
        target = Path(root + path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            target.mkdir(exist_ok=True)
        else:
            target.touch()
        _mount(libc, path, str(target), None, BIND | RECURSIVE)
    os.chdir(root)
    old = Path(root) / "old"
    old.mkdir()
    _checked(libc.syscall(PIVOT_ROOT[os.uname().machine], b".", b"old"), "pivot_root")
    os.chdir("/")
    _checked(libc.umount2(b"/old", DETACH), "umount")
    Path("/old").rmdir()


def _mount(libc: ctypes.CDLL, source: str, target: str, kind: str | None, flags: int) -> None:
    kind_bytes = kind.encode() if kind else None
    _checked(libc.mount(source.encode(), target.encode(), kind_bytes, ctypes.c_ulong(flags), None), "mount")


def _checked(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
