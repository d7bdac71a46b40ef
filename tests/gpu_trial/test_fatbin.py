"""Claims about pruned CUDA libraries: what an H100 runs stays, byte for byte in its place, and nothing else does."""

import struct

import pytest

from benchmarks.gpu.fatbin import ELF, PTX, prune, wanted_of_flash_attention_3

Code = tuple[int, int, bytes]
"""Kind, architecture, payload."""


def entry(kind: int, architecture: int, payload: bytes) -> bytes:
    header = struct.pack("<HHIQ", kind, 0x101, 64, len(payload)).ljust(28, b"\0")
    return (header + struct.pack("<I", architecture)).ljust(64, b"\0") + payload


def container(*codes: Code) -> bytes:
    body = b"".join(entry(*code) for code in codes)
    whole = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body
    return whole.ljust(-(-len(whole) // 8) * 8, b"\0")


def library(fatbin: bytes) -> bytes:
    """An ELF file with one section of fat binaries, between others' bytes."""
    names = b"\0.shstrtab\0.nv_fatbin\0"
    code, strings = 64 + 24, 64 + 24 + len(fatbin)
    headers = strings + len(names) + 7
    table = [
        (0, 0, 0, 0, 0, 0),
        (1, 3, 0, 0, strings, len(names)),
        (names.index(b".nv"), 1, 2, 0, code, len(fatbin)),
    ]
    elf = bytearray(64)
    elf[:4] = b"\x7fELF"
    struct.pack_into("<Q", elf, 0x28, headers)
    struct.pack_into("<HHH", elf, 0x3A, 64, len(table), 1)
    sections = b"".join(struct.pack("<IIQQQQ", *row).ljust(64, b"\0") for row in table)
    return bytes(elf) + b"before the fat binaries." + fatbin + names + b"padding" + sections


@pytest.mark.parametrize(
    ("codes", "kept"),
    [
        ([(ELF, 80, b"old"), (ELF, 90, b"hopper"), (ELF, 100, b"new"), (PTX, 90, b"text")], [b"hopper"]),
        ([(ELF, 90, b"plain"), (ELF, 90, b"with wgmma"), (ELF, 120, b"new")], [b"plain", b"with wgmma"]),
        ([(ELF, 80, b"old"), (ELF, 89, b"ada"), (PTX, 80, b"text"), (PTX, 75, b"worse")], [b"text"]),
        ([(ELF, 80, b"old"), (ELF, 89, b"ada"), (PTX, 100, b"later")], []),
    ],
)
def test_what_an_h100_runs_of_a_container_stays_and_all_else_is_zero(
    codes: list[Code], kept: list[bytes]
) -> None:
    before = library(container((ELF, 90, b"another unit")) + container(*codes))
    found = prune(before)
    expected = before
    for _, _, payload in codes:
        if payload not in kept:
            expected = expected.replace(payload, bytes(len(payload)))
    assert found.library == expected
    assert found.kept == len(b"another unit") + sum(map(len, kept))
    assert found.zeroed == sum(len(payload) for *_, payload in codes) - sum(map(len, kept))


def test_a_file_without_fat_binaries_stays_as_it_is() -> None:
    for content in (b"#!/bin/sh\n", library(b"")):
        assert prune(content).library == content


def test_a_broken_entry_is_an_error_not_a_damaged_library() -> None:
    broken = bytearray(container((ELF, 90, b"code")))
    struct.pack_into("<H", broken, 16, 7)
    with pytest.raises(ValueError, match="no fat binary entry at byte"):
        prune(library(bytes(broken)))


def kernel(value_size: int, dtype: str, soft_cap: int) -> bytes:
    name = f"_ZN5flash16FlashAttnFwdSm90INS1_25CollectiveMainloopFwdSm90ILi2ESA_ELi{value_size}ENS_{dtype}fN4arch4"
    return f"\0.text.{name}Sm90ELb0ELb1ELb{soft_cap}ELb1ELb0E\0".encode()


@pytest.mark.parametrize(
    ("payload", "wanted"),
    [
        (kernel(128, "10bfloat16_tE", 0), True),
        (kernel(512, "10bfloat16_tE", 0), True),
        (kernel(128, "6half_tE", 0), False),
        (kernel(128, "13float_e4m3_tE", 0), False),
        (kernel(96, "10bfloat16_tE", 0), False),
        (kernel(128, "10bfloat16_tE", 1), False),
        (b"\0.text._ZN5flash19FlashAttnFwdCombine\0", True),
    ],
)
def test_of_flash_attention_3_bfloat16_without_soft_cap_stays(payload: bytes, wanted: bool) -> None:
    assert wanted_of_flash_attention_3(payload) is wanted
