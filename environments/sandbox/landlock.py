"""Landlock through ctypes: this process and its children lose every path, TCP port and signal not allowed.

A kernel feature for unprivileged processes (Linux 5.13 on; https://docs.kernel.org/userspace-api/landlock.html).
Newer ABIs take more away: 4 TCP, 6 abstract Unix sockets and signals to processes outside. The system calls
have the same numbers on every architecture.
"""

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION_FLAG, RULE_PATH_BENEATH, SET_NO_NEW_PRIVS = 1, 1, 38

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
READ = EXECUTE | READ_FILE | READ_DIR
ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE

RIGHTS_OF_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many of the file system rights, counted from bit 0, an ABI knows; later ones as the last."""


def abi() -> int:
    """The kernel's Landlock ABI; 0 where there is none, or where it may not be used."""
    return max(0, _libc().syscall(CREATE_RULESET, None, ctypes.c_size_t(0), VERSION_FLAG))


def losses(version: int) -> tuple[str, ...]:
    """What Landlock of this ABI does not cut off, in words."""
    missing = []
    if version < 1:
        missing.append("the file system is not cut off (no Landlock)")
    if version < 4:
        missing.append("TCP is not cut off (no Landlock ABI 4)")
    if version < 6:
        missing.append("signals to processes of the same user are not cut off (no Landlock ABI 6)")
    return tuple(missing)


def restrict(readable: Iterable[str], writable: Iterable[str]) -> None:
    """Leaves these paths, of which those that do not exist are skipped, and nothing else; not to be undone.

    Raises OSError where the kernel refuses.
    """
    libc, version = _libc(), abi()
    handled = (1 << RIGHTS_OF_ABI.get(version, max(RIGHTS_OF_ABI.values()))) - 1
    attributes = [handled]
    if version >= 4:
        attributes.append(0b11)  # binding and connecting TCP
    if version >= 6:
        attributes.append(0b11)  # abstract Unix sockets, signals
    packed = struct.pack(f"{len(attributes)}Q", *attributes)
    ruleset = _checked(libc.syscall(CREATE_RULESET, packed, ctypes.c_size_t(len(packed)), 0))
    for paths, rights in ((readable, READ), (writable, handled)):
        for path in paths:
            _allow(libc, ruleset, path, rights & handled)
    _checked(libc.prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _checked(libc.syscall(RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    if not Path(path).is_dir():
        rights &= ON_FILES
    rule = struct.pack("=Qi", rights, descriptor)
    _checked(libc.syscall(ADD_RULE, ruleset, RULE_PATH_BENEATH, rule, 0))
    os.close(descriptor)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"Landlock: {os.strerror(number)}")
    return result
