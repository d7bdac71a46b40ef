"""What a sandboxed program may read."""

import functools
import sys
from pathlib import Path

SYSTEM_PATHS = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/alternatives")
DEVICES = ("/dev/zero", "/dev/urandom")
SINK = "/dev/null"


@functools.cache
def _library_paths() -> list[str]:
    own = {sys.prefix, sys.base_prefix, *(str(Path(p).resolve()) for p in (sys.prefix, sys.base_prefix))}
    return sorted(path for path in own if path not in SYSTEM_PATHS)


def readable_paths() -> list[str]:
    """What every program may read: the system's programs and libraries, and this Python with its packages."""
    return [*SYSTEM_PATHS, *_library_paths(), *DEVICES]


def anybody_may_run(program: str) -> bool:
    """Whether a user without privileges can reach a program and start it."""
    return all(
        path.exists() and all(step.stat().st_mode & 0o001 for step in (path, *path.parents))
        for path in (Path(program), Path(program).resolve())
    )
