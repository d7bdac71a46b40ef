"""All measurements of one machine that take neither Ray nor torch."""

import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from rezero_ray.host.sockets import ray_folder
from rezero_ray.place import gpus, limits
from rezero_ray.place.folder import measure_folder
from rezero_ray.place.records import Gpu, MachineFigures

SHM = Path("/dev/shm")


class Effort(msgspec.Struct, frozen=True):
    """MiB written into /dev/shm and at output_dir."""

    shm_mib: int
    disk_mib: int


QUICK = Effort(shm_mib=64, disk_mib=16)
"""Of a run's start: a second at most, where the disk writes 20 MB/s."""

FULL = Effort(shm_mib=256, disk_mib=256)


def measure_machine(disk: Path | None, effort: Effort) -> MachineFigures:
    """This machine; `disk` is where the run writes, None where that is elsewhere."""
    found, peers, error = _gpus()
    return MachineFigures(
        host=platform.node(),
        cpus=limits.cpus(),
        cpu_quota=limits.cpu_quota(),
        memory=limits.memory_figures(),
        shm=measure_folder(SHM, effort.shm_mib),
        tmp=measure_folder(Path(ray_folder(os.environ)), 0),
        disk=None if disk is None else measure_folder(disk, effort.disk_mib),
        open_files=limits.open_files(),
        locked_memory_gib=limits.locked_memory_gib(),
        clock=time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
        gpus=found,
        gpus_error=error,
        peers=peers,
    )


def _gpus() -> tuple[list[Gpu], list[list[bool]] | None, str]:
    """GPUs, peers, and what kept the driver from telling them. It is asked for both at once: each takes a second."""
    if not gpus.devices():
        return [], None, ""
    found: list[Gpu] = []
    with ThreadPoolExecutor(2) as pool:
        names, matrix = pool.submit(gpus.gpus), pool.submit(gpus.peers)
        try:
            found = names.result()
            return found, matrix.result() if len(found) > 1 else None, ""
        except gpus.DriverError as error:
            return found, None, str(error)
