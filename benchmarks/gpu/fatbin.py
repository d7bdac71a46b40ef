"""CUDA fat binaries inside ELF libraries: leave only the machine code that an sm_90 GPU runs. Pure.

The section `.nv_fatbin` is a row of containers, one a translation unit: a header of 16 bytes (magic, version u16,
header size u16, size of what follows u64) and entries. An entry has a header (kind u16, version u16, header size u32,
payload size u64, ..., architecture u32 at offset 28) and a payload, PTX or machine code. Code that is not kept
becomes zeros and its header stays, so that nothing moves and the loader still finds its way; zeros compress to
nothing. sm_90a has the number 90, too.
"""

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

MAGIC = 0xBA55ED50
PTX, ELF = 1, 2
SECTIONS = (".nv_fatbin", "__nv_relfatbin")


@dataclass(frozen=True)
class Entry:
    """Code for one architecture: 90 for sm_90. Its payload lies at [start, end)."""

    kind: int
    architecture: int
    start: int
    end: int


@dataclass(frozen=True)
class Pruned:
    """A library of the same size, and bytes of code in it by what became of them."""

    library: bytes
    kept: int
    zeroed: int


def prune(library: bytes, wanted: Callable[[bytes], bool] = lambda _: True) -> Pruned:
    """Zero all code but the best for sm_90 of each container, and of that what `wanted(payload)` refuses.

    A library without fat binaries comes back as it is.

    Raises:
        ValueError: an entry is not as described above.
    """
    data, kept, zeroed = bytearray(library), 0, 0
    for start, end in _fatbin_sections(library):
        for entries in _containers(library, start, end):
            best = _best(entries)
            for entry in entries:
                size = entry.end - entry.start
                if entry in best and wanted(library[entry.start : entry.end]):
                    kept += size
                else:
                    zeroed += size
                    data[entry.start : entry.end] = bytes(size)
    return Pruned(bytes(data), kept, zeroed)


def _best(entries: Sequence[Entry]) -> list[Entry]:
    """Machine code for sm_90, else PTX for the highest architecture up to 90, else nothing.

    Machine code runs on later minor versions of its own major version alone: that of sm_80, sm_86 or sm_89 never
    runs on sm_90. A kernel that has neither is not for an H100.
    """
    exact = [entry for entry in entries if entry.kind == ELF and entry.architecture == 90]
    if exact:
        return exact
    ptx = [entry for entry in entries if entry.kind == PTX and entry.architecture <= 90]
    highest = max((entry.architecture for entry in ptx), default=0)
    return [entry for entry in ptx if entry.architecture == highest]


def _fatbin_sections(library: bytes) -> Iterator[tuple[int, int]]:
    if library[:4] != b"\x7fELF":
        return
    (headers,) = struct.unpack_from("<Q", library, 0x28)
    size, count, strings = struct.unpack_from("<HHH", library, 0x3A)
    table = [struct.unpack_from("<IIQQQQ", library, headers + index * size) for index in range(count)]
    for name, _, _, _, offset, length in table:
        at = table[strings][4] + name
        if library[at : library.index(b"\0", at)].decode() in SECTIONS:
            yield offset, offset + length


def _containers(library: bytes, at: int, end: int) -> Iterator[list[Entry]]:
    while at + 16 <= end:
        magic, _, header, size = struct.unpack_from("<IHHQ", library, at)
        if magic != MAGIC:  # padding between containers
            at += 8
            continue
        yield list(_entries(library, at + header, at + header + size))
        at = (at + header + size + 7) // 8 * 8


def _entries(library: bytes, at: int, end: int) -> Iterator[Entry]:
    while at + 32 <= end:
        kind, _, header, size = struct.unpack_from("<HHIQ", library, at)
        if kind not in (PTX, ELF) or header < 32 or at + header + size > end:
            raise ValueError(
                f"no fat binary entry at byte {at}: kind {kind}, header {header}, payload {size}"
            )
        (architecture,) = struct.unpack_from("<I", library, at + 28)
        yield Entry(kind, architecture, at + header, at + header + size)
        at += header + size


_MAIN_LOOP = re.compile(
    rb"FlashAttnFwdSm90\w*?ELi(\d+)ENS_\d+(bfloat16_t|half_t|float_e4m3_t)\w*?Sm90ELb[01]ELb[01]ELb([01])E"
)


def wanted_of_flash_attention_3(payload: bytes) -> bool:
    """Whether code of FlashAttention-3 is for bfloat16, values of size 64, 128, 256 or 512, and no soft cap.

    Those are the dense models' and MLA's. Code without an attention main loop (combination, scheduling) is wanted.
    """
    loops = _MAIN_LOOP.findall(payload)
    if not loops:
        return b"FlashAttnFwdSm90" not in payload
    return any(
        size in (b"64", b"128", b"256", b"512") and dtype == b"bfloat16_t" and soft_cap == b"0"
        for size, dtype, soft_cap in loops
    )
