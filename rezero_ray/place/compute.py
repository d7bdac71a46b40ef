"""How fast this process multiplies and copies: one second of it."""

import time
from collections.abc import Callable
from typing import Any

from rezero_ray.place.records import Compute

SIZES = {"cpu": (1024, 64), "cuda": (8192, 1024)}
"""Side of the square matrices, MiB of the copy: more than caches hold, done in milliseconds."""


def measure_compute(device: str, dtype: str, seconds: float = 0.5) -> Compute:
    """Products of square matrices and copies of memory, `seconds` each after one to warm up; the median.

    Args:
        device: "cpu" or "cuda", whose first visible GPU it is.
        dtype: as torch names it.
    """
    import torch

    side, mib = SIZES[device]
    kind = getattr(torch, dtype)
    left, right = (torch.rand(side, side, device=device).to(kind) for _ in range(2))
    source = torch.zeros(mib * 2**20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    product = torch.empty_like(left)
    with torch.inference_mode():
        multiply = _median(lambda: torch.mm(left, right, out=product), seconds, device)
        copy = _median(lambda: target.copy_(source), seconds, device)
    return Compute(device, dtype, 2 * side**3 / multiply, 2 * source.nbytes / copy / 1e9)


def _median(work: Callable[[], Any], seconds: float, device: str) -> float:
    """Of one call, in seconds."""
    import torch

    def timed() -> float:
        began = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    timed()
    end, times = time.perf_counter() + seconds, [timed()]
    while time.perf_counter() < end:
        times.append(timed())
    return sorted(times)[len(times) // 2]
