"""What this machine has: GPUs, cores, memory, shared memory. Asked without torch, in milliseconds."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rezero_ray.config import Config
from rezero_ray.host.visible_gpus import VARIABLE, Visible, hidden, visible_gpus

Device = Literal["cuda", "cpu"]

GIB = 1024**3

_NVIDIA_SMI = ("nvidia-smi", "--query-gpu=memory.total,uuid,name", "--format=csv,noheader,nounits")
_NVIDIA_SMI_SECONDS = 10  # a healthy driver answers in one; a sick one must not hold up an error message
_NO_CGROUP_LIMIT = 2**60  # cgroup v1 writes "no limit" as a number near 2**63


@dataclass(frozen=True)
class Machine:
    """`gpu_gib` has an entry for each visible GPU, None where that is not known; `gpu_name` is the first one's.

    `gpu_ids` are what CUDA_VISIBLE_DEVICES calls them, for the GPUs that the config counts from 0; `gpus_hidden` says
    which GPUs that variable hides.
    """

    gpu_gib: tuple[float | None, ...]
    cpus: int
    memory_gib: float
    shm_gib: float
    gpu_name: str | None = None
    gpu_ids: tuple[str, ...] = ()
    gpus_hidden: str | None = None

    def device(self, config: Config) -> Device:
        if config.device == "auto":
            return "cuda" if self.gpu_gib else "cpu"
        return config.device


def this_machine() -> Machine:
    every, visible = _gpus()
    gpus = [_UNKNOWN if ordinal is None else every[ordinal] for ordinal in visible.ordinals]
    return Machine(
        gpu_gib=tuple(gpu.gib for gpu in gpus),
        cpus=len(os.sched_getaffinity(0)),
        memory_gib=_memory_bytes() / GIB,
        shm_gib=_free_bytes(Path("/dev/shm")) / GIB,
        gpu_name=gpus[0].name if gpus else None,
        gpu_ids=visible.names,
        gpus_hidden=hidden(os.environ, len(every), len(gpus)),
    )


def visible_gpu_ids() -> tuple[str, ...]:
    """What CUDA_VISIBLE_DEVICES calls the visible GPUs of this machine, in CUDA's order."""
    return _gpus()[1].names


@dataclass(frozen=True)
class _Gpu:
    """As far as it is known."""

    gib: float | None = None
    uuid: str | None = None
    name: str | None = None


_UNKNOWN = _Gpu()


def _gpus() -> tuple[tuple[_Gpu, ...], Visible]:
    every = _all_gpus()
    return every, visible_gpus(os.environ.get(VARIABLE), [gpu.uuid for gpu in every])


def _all_gpus() -> tuple[_Gpu, ...]:
    if shutil.which(_NVIDIA_SMI[0]):
        try:
            answer = subprocess.run(
                _NVIDIA_SMI, capture_output=True, text=True, timeout=_NVIDIA_SMI_SECONDS, check=True
            )
            return tuple(_gpu(line) for line in answer.stdout.splitlines() if line.strip())
        except (OSError, subprocess.SubprocessError):
            pass  # the device files below tell at least how many there are
    devices = (path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))
    return tuple(_UNKNOWN for name in devices if name.isdecimal())


def _gpu(line: str) -> _Gpu:
    """A line of nvidia-smi's answer."""
    mib, uuid, name = ([*(part.strip() for part in line.split(",", 2)), "", ""])[:3]
    return _Gpu(int(mib) / 1024 if mib.isdecimal() else None, uuid or None, name or None)


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
