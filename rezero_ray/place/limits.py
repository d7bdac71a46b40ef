"""What the kernel and the control group (the container) let this process have. Read, not tried."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

from rezero_ray.place.records import MemoryFigures

GIB = 1024**3

NO_LIMIT = 2**60
"""cgroup v1 writes "no limit" as a number near 2**63."""


def memory_figures(root: Path = Path("/")) -> MemoryFigures:
    """Of /proc/meminfo, and of the tightest control group above this process."""
    told = dict(_meminfo(root))
    limit, used = None, None
    for folder in _control_groups(root, "memory"):
        found = _number(folder, "memory.max", "memory.limit_in_bytes")
        if found is not None and found < min(NO_LIMIT, limit or NO_LIMIT):
            limit, used = found, _number(folder, "memory.current", "memory.usage_in_bytes") or 0.0
            used -= _reclaimable(folder)
    return MemoryFigures(
        host_gib=told["MemTotal"] / GIB,
        available_gib=told.get("MemAvailable", told["MemFree"]) / GIB,
        limit_gib=None if limit is None else limit / GIB,
        used_gib=None if used is None else max(0.0, used) / GIB,
    )


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Cores' worth of time that the tightest control group grants; None where there is no limit."""
    found = []
    for folder in _control_groups(root, "cpu"):
        quota = _number(folder, "cpu.cfs_quota_us")
        period = _number(folder, "cpu.cfs_period_us")
        words = _text(folder / "cpu.max").split()
        if len(words) == 2 and words[0].isdecimal():
            quota, period = float(words[0]), float(words[1])
        if quota is not None and period and quota > 0:
            found.append(quota / period)
    return min(found, default=None)


def open_files() -> int:
    """The hard limit: Ray raises the soft one to it."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def locked_memory_gib() -> float | None:
    """Memory that may be pinned; None for no limit."""
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    return None if hard == resource.RLIM_INFINITY else hard / GIB


def cpus() -> int:
    return len(os.sched_getaffinity(0))


def _meminfo(root: Path) -> Iterator[tuple[str, float]]:
    """Name -> bytes."""
    for line in (root / "proc/meminfo").read_text("ascii").splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdecimal():
            yield name, float(words[0]) * (1024 if words[1:] == ["kB"] else 1)


def _control_groups(root: Path, controller: str) -> Iterator[Path]:
    """The folder of this process's group and those above it, of version 2 and of version 1.

    A container sees its own group as the top: a path below it that is not there is passed over.
    """
    mount = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if names and controller not in names.split(","):
            continue
        top = mount / controller if names else mount
        inner = top / path.lstrip("/")
        yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(top))


def _reclaimable(folder: Path) -> float:
    """Bytes of the group's file cache that the kernel gives back when memory runs short."""
    for line in _text(folder / "memory.stat").splitlines():
        name, _, number = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file") and number.isdecimal():
            return float(number)
    return 0.0


def _number(folder: Path, *names: str) -> float | None:
    for name in names:
        text = _text(folder / name).strip()
        if text.lstrip("-").isdecimal():
            return float(text)
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
