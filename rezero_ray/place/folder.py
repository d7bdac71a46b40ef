"""How much fits into a folder, and how fast. The file that is written has a name nobody else uses, and goes again."""

import ctypes
import mmap
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from rezero_ray.place.records import FolderFigures

GIB = 1024**3
MIB = 1024**2

BLOCK_BYTES = 4 * MIB
FLUSHES = 5
SPARE_GIB = 0.25  # never filled up: others write there, too

PREFIX = ".rezero-doctor-"


def measure_folder(folder: Path, file_mib: int) -> FolderFigures:
    """Write `file_mib`, flush it to the device, read it again; less where less is free.

    A folder that is not there yet is measured in the nearest one above it that is.
    """
    where = nearest_existing(folder)
    try:
        usage = shutil.disk_usage(where)
    except OSError as error:
        return FolderFigures(str(where), 0.0, 0.0, error=error.strerror or str(error))
    total, free = usage.total / GIB, usage.free / GIB
    if file_mib == 0:
        return FolderFigures(str(where), total, free)
    size = min(file_mib * MIB, int(usage.free - SPARE_GIB * GIB)) // BLOCK_BYTES * BLOCK_BYTES
    size = max(size, min(BLOCK_BYTES, usage.free // 2))
    if size < mmap.PAGESIZE:
        return FolderFigures(str(where), total, free, error="is full")
    try:
        with tempfile.NamedTemporaryFile(dir=where, prefix=PREFIX, buffering=0) as file:
            return _measured(file.fileno(), FolderFigures(str(where), total, free, file_mib=size / MIB), size)
    except OSError as error:
        return FolderFigures(str(where), total, free, error=error.strerror or str(error))


def nearest_existing(folder: Path) -> Path:
    path = folder.expanduser().absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path if path.is_dir() else path.parent


def _measured(file: int, known: FolderFigures, size: int) -> FolderFigures:
    block = os.urandom(BLOCK_BYTES)  # file systems may leave zeros out
    flushes = [_flush_seconds(file, block) for _ in range(FLUSHES)]
    os.ftruncate(file, 0)
    began = time.perf_counter()
    for start in range(0, size, BLOCK_BYTES):
        _write(file, block[: size - start], start)
    os.fsync(file)
    write = time.perf_counter() - began
    offset = os.fstat(file).st_mtime - time.time()
    return FolderFigures(
        known.path,
        known.total_gib,
        known.free_gib,
        file_mib=known.file_mib,
        write_gb_s=size / write / 1e9,
        read_gb_s=_read_gb_s(file, size),
        flush_ms=1000 * statistics.median(flushes),
        clock_offset_s=offset if abs(offset) > 1 else 0.0,
    )


def _write(file: int, data: bytes, start: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, start)
        view, start = view[written:], start + written


def _flush_seconds(file: int, block: bytes) -> float:
    began = time.perf_counter()
    os.pwrite(file, block[: mmap.PAGESIZE], 0)
    os.fsync(file)
    return time.perf_counter() - began


def _read_gb_s(file: int, size: int) -> float | None:
    """None where the kernel keeps the file in memory, as it does on tmpfs: that would measure something else."""
    if _is_memory(file):
        return None
    os.posix_fadvise(file, 0, size, os.POSIX_FADV_DONTNEED)
    if _cached_share(file, size) > 0.1:
        return None
    began = time.perf_counter()
    for start in range(0, size, BLOCK_BYTES):
        os.pread(file, BLOCK_BYTES, start)
    return size / (time.perf_counter() - began) / 1e9


def _is_memory(file: int) -> bool:
    return os.fstat(file).st_dev == _device(Path("/dev/shm"))


def _device(path: Path) -> int | None:
    try:
        return path.stat().st_dev
    except OSError:
        return None


def _cached_share(file: int, size: int) -> float:
    """Share of the file's pages that are in memory, by mincore(2); gVisor says all of them."""
    libc = ctypes.CDLL(None)
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    with mmap.mmap(file, size) as view:
        start = ctypes.c_char.from_buffer(view)
        failed = libc.mincore(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(size), pages)
        del start  # the mapping cannot be closed before
    return 1.0 if failed else sum(page & 1 for page in pages) / len(pages)
