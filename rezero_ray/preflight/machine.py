"""What this machine has: GPUs, cores, memory, shared memory. Asked without torch, in milliseconds."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rezero_ray.config import Config

Device = Literal["cuda", "cpu"]

GIB = 1024**3

_NVIDIA_SMI = ("nvidia-smi", "--query-gpu=memory.total,name", "--format=csv,noheader,nounits")
_NVIDIA_SMI_SECONDS = 10  # a healthy driver answers in one; a sick one must not hold up an error message
_NO_CGROUP_LIMIT = 2**60  # cgroup v1 writes "no limit" as a number near 2**63


@dataclass(frozen=True)
class Machine:
    """`gpu_gib` has an entry for each visible GPU, None where that is not known; `gpu_name` is the first one's."""

    gpu_gib: tuple[float | None, ...]
    cpus: int
    memory_gib: float
    shm_gib: float
    gpu_name: str | None = None

    def device(self, config: Config) -> Device:
        if config.device == "auto":
            return "cuda" if self.gpu_gib else "cpu"
        return config.device


def this_machine() -> Machine:
    gpus = _gpus()
    return Machine(
        gpu_gib=tuple(gib for gib, _ in gpus),
        cpus=len(os.sched_getaffinity(0)),
        memory_gib=_memory_bytes() / GIB,
        shm_gib=_free_bytes(Path("/dev/shm")) / GIB,
        gpu_name=gpus[0][1] if gpus else None,
    )


_Gpu = tuple[float | None, str | None]
"""GiB and name, as far as they are known."""

_UNKNOWN: _Gpu = (None, None)


def _gpus() -> tuple[_Gpu, ...]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    every = _all_gpus()
    if visible is None:
        return every
    names = [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]
    return tuple(
        every[int(name)] if name.isdecimal() and int(name) < len(every) else _UNKNOWN
        for name in names
        if every
    )


def _all_gpus() -> tuple[_Gpu, ...]:
    if shutil.which(_NVIDIA_SMI[0]):
        try:
            answer = subprocess.run(
                _NVIDIA_SMI, capture_output=True, text=True, timeout=_NVIDIA_SMI_SECONDS, check=True
            )
            lines = [line.partition(",") for line in answer.stdout.splitlines() if line.strip()]
            return tuple(
                (int(mib) / 1024 if mib.strip().isdecimal() else None, name.strip() or None)
                for mib, _, name in lines
            )
        except (OSError, subprocess.SubprocessError):
            pass  # the device files below tell at least how many there are
    devices = (path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))
    return tuple(_UNKNOWN for name in devices if name.isdecimal())


def _memory_bytes() -> float:
    """Of the machine, or of the control group (container) that this process lives in."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = Path("/sys/fs/cgroup", name).read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if text.isdecimal() and int(text) < _NO_CGROUP_LIMIT:
            limits.append(int(text))
    return min(limits)


def _free_bytes(path: Path) -> float:
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return 0.0
