"""The most memory that this process and those that it started have had. Asked of the kernel: no sampling beside."""

from pathlib import Path

from rezero_ray.place.gpus import DriverError, gpus


def peak_resident_bytes() -> int:
    """Sum of the peaks of this process and all below it that still live; 0 where /proc does not tell."""
    own = Path("/proc/self").resolve()
    return sum(_peak(pid) for pid in _with_descendants(own.name)) if own.name.isdecimal() else 0


def peak_reserved_bytes() -> int:
    """Of GPU memory, by torch's allocator in this process, with what CUDA's context and NCCL hold not counted."""
    import torch

    return int(torch.cuda.max_memory_reserved())


def used_gpu_bytes() -> int:
    """Of this process's first GPU, by every process now; 0 where nvidia-smi does not tell."""
    try:
        visible = gpus()
    except DriverError:
        return 0
    return int(visible[0].used_gib * 2**30) if visible else 0


def _peak(pid: str) -> int:
    try:
        lines = Path("/proc", pid, "status").read_text("ascii", errors="replace").splitlines()
    except OSError:  # it ended meanwhile
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def _with_descendants(pid: str) -> list[str]:
    found = [pid]
    for children in Path("/proc", pid, "task").glob("*/children"):
        try:
            below = children.read_text("ascii").split()
        except OSError:
            continue
        for child in below:
            found += _with_descendants(child)
    return found
