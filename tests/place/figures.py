"""A machine on which nothing is wrong, to change one thing of."""

from typing import Any

import msgspec

from rezero_ray.place.records import FolderFigures, Gpu, MachineFigures, MemoryFigures

H100 = Gpu("NVIDIA H100 80GB HBM3", 79.6, 0.4, "580.95.05")

HEALTHY = MachineFigures(
    host="box",
    cpus=32,
    cpu_quota=None,
    memory=MemoryFigures(host_gib=512.0, available_gib=500.0),
    shm=FolderFigures("/dev/shm", 64.0, 60.0, file_mib=256, write_gb_s=2.0, flush_ms=0.0),
    tmp=FolderFigures("/tmp", 500.0, 400.0),
    disk=FolderFigures("/data", 900.0, 800.0, file_mib=256, write_gb_s=1.0, read_gb_s=2.0, flush_ms=1.0),
    open_files=65536,
    locked_memory_gib=None,
    clock="2026-11-21 20:00:00",
    gpus=[H100] * 4,
    peers=[[True] * 4] * 4,
)


def changed(**changes: Any) -> MachineFigures:
    """HEALTHY with other fields; a dict changes fields of a field: `shm={"free_gib": 0.05}`."""
    whole = {
        name: msgspec.structs.replace(getattr(HEALTHY, name), **value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return msgspec.structs.replace(HEALTHY, **whole)
