"""What was measured, in the units that the names say, and what was found of it. They are what doctor.json holds."""

from typing import Literal

import msgspec

Verdict = Literal["ok", "low", "bad"]


class FolderFigures(msgspec.Struct, frozen=True):
    """A folder, and a file that was written into it, flushed, read again and removed.

    `error` tells what kept the file from being written; the speeds are None then.
    `read_gb_s` is None where the cache could not be dropped: the memory would have been measured.
    """

    path: str
    total_gib: float
    free_gib: float
    file_mib: float = 0.0
    write_gb_s: float | None = None
    read_gb_s: float | None = None
    flush_ms: float | None = None  # of one page: median of a few
    clock_offset_s: float = 0.0  # the file system's clock against the machine's
    error: str = ""


class MemoryFigures(msgspec.Struct, frozen=True):
    """`host_gib` and `available_gib` are what /proc/meminfo says, in gVisor that is the host's.

    `limit_gib` and `used_gib` are the control group's (the container's); None where it has no limit.
    """

    host_gib: float
    available_gib: float
    limit_gib: float | None = None
    used_gib: float | None = None

    @property
    def free_gib(self) -> float:
        """What a process may still take, as far as the two tell."""
        if self.limit_gib is None:
            return self.available_gib
        return min(self.available_gib, self.limit_gib - (self.used_gib or 0.0))


class Gpu(msgspec.Struct, frozen=True):
    """`used_gib` is what others hold while the doctor looks."""

    name: str
    memory_gib: float
    used_gib: float
    driver: str


class MachineFigures(msgspec.Struct, frozen=True):
    """One machine. `peers[i][j]`: GPU i can read GPU j's memory; None where there are no two GPUs or none can tell.

    `clock_offset_s` is the machine's clock against the command's.
    """

    host: str
    cpus: int
    cpu_quota: float | None
    memory: MemoryFigures
    shm: FolderFigures
    tmp: FolderFigures
    disk: FolderFigures | None
    open_files: int
    locked_memory_gib: float | None  # None for no limit
    clock: str
    clock_offset_s: float = 0.0
    gpus: list[Gpu] = []
    gpus_error: str = ""
    peers: list[list[bool]] | None = None


class Compute(msgspec.Struct, frozen=True):
    """Of one process: products of square matrices, and copies of memory (bytes read and bytes written)."""

    device: str
    dtype: str
    flop_s: float
    memory_gb_s: float


class RanksFigures(msgspec.Struct, frozen=True):
    """All learner ranks, where the run would put them.

    `bus_gb_s` is the time of a large sum as the bytes that each link carried, 2 (n - 1) / n of its size: the figure
    that does not depend on the number of ranks; `latency_us` that of a sum of four bytes. Both None for a lone rank.
    `hosts[i]` is rank i's machine, `computes[i]` what it reckons while the others do, too.
    """

    backend: str
    hosts: list[str]
    computes: list[Compute]
    mib: int = 0
    bus_gb_s: float | None = None
    latency_us: float | None = None
    variables: dict[str, str] = {}  # NCCL_* and GLOO_* that the ranks have


class VolumeFigures(msgspec.Struct, frozen=True):
    """A file written into a network Volume, and the commit that keeps it."""

    name: str
    file_mib: float
    write_s: float
    commit_s: float
    error: str = ""


class Finding(msgspec.Struct, frozen=True):
    """A line of the doctor's table. `remedy` is there where the verdict is not ok."""

    what: str
    value: str
    needed: str = ""
    verdict: Verdict = "ok"
    remedy: str = ""
