"""Weight files, judged by their sizes and headers: whole, truncated, or something else. No weight is read.

safetensors: 8 bytes with the header's length, the header as JSON, then the tensors' bytes without a gap.
"""

import json
import math
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
LFS_POINTER = b"version https://git-lfs.github.com/spec/"

DTYPE_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


@dataclass(frozen=True)
class Tensor:
    """A tensor as a header describes it; `begin` and `end` are bytes after the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class WeightFileError(ValueError):
    """A weight file that cannot be loaded; the message names the file and what is wrong with it."""


def read_header(file: Path) -> dict[str, Tensor]:
    """Names and descriptions of the tensors of a file.

    Raises:
        WeightFileError: the file is empty, a Git LFS pointer, truncated or damaged.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(len(LFS_POINTER))
        if start == LFS_POINTER:
            raise WeightFileError(f"{file} is a Git LFS pointer of {size} bytes, not the weights")
        if size < 8:
            raise WeightFileError(f"{file} is truncated: it has {size} bytes")
        length = struct.unpack("<Q", start[:8])[0]
        if length > MAX_HEADER_BYTES:
            raise WeightFileError(f"{file} is not a safetensors file, or is damaged")
        if length > size - 8:
            raise WeightFileError(f"{file} is truncated: it has {size} of at least {8 + length} bytes")
        stream.seek(8)
        raw = stream.read(length)
    tensors = _tensors(file, raw)
    wrong = next(_faults(tensors), None)
    if wrong is not None:
        raise WeightFileError(f"{file} is damaged: {wrong}")
    expected = 8 + length + max((tensor.end for tensor in tensors.values()), default=0)
    if size < expected:
        raise WeightFileError(f"{file} is truncated: it has {size} of {expected} bytes")
    if size > expected:
        raise WeightFileError(f"{file} is damaged: it has {size} bytes, its header describes {expected}")
    return tensors


def require_whole_pickle(file: Path) -> None:
    """Check a weight file of `torch.save` (`*.bin`), a zip archive whose directory is at its end.

    Raises:
        WeightFileError: the file is empty, a Git LFS pointer or truncated.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(len(LFS_POINTER))
    if start == LFS_POINTER:
        raise WeightFileError(f"{file} is a Git LFS pointer of {size} bytes, not the weights")
    if size == 0 or (start.startswith(b"PK") and not zipfile.is_zipfile(file)):
        raise WeightFileError(f"{file} is truncated: it has {size} bytes")


def _tensors(file: Path, raw: bytes) -> dict[str, Tensor]:
    try:
        header = json.loads(raw)
        return {name: _tensor(info) for name, info in header.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise WeightFileError(f"{file} is not a safetensors file, or is damaged") from None


def _tensor(info: Mapping[str, Any]) -> Tensor:
    begin, end = info["data_offsets"]
    return Tensor(str(info["dtype"]), tuple(int(length) for length in info["shape"]), int(begin), int(end))


def _faults(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Tensors whose bytes are not those of their shape and type, or do not follow one another."""
    at = 0
    for name, tensor in sorted(tensors.items(), key=lambda entry: (entry[1].begin, entry[1].end)):
        bits = DTYPE_BITS.get(tensor.dtype)
        if bits is None:
            yield f"{name} has the type {tensor.dtype}, which safetensors does not have"
            continue
        if min(tensor.shape, default=0) < 0:
            yield f"{name} has the shape {list(tensor.shape)}"
            continue
        expected = math.prod(tensor.shape) * bits // 8
        if tensor.end - tensor.begin != expected:
            yield (
                f"{name} of shape {list(tensor.shape)} and type {tensor.dtype} takes {expected} bytes, its header "
                f"gives it {tensor.end - tensor.begin}"
            )
            continue
        if tensor.begin != at:
            yield f"{name} begins at byte {tensor.begin} of the data, the tensor before it ends at {at}"
        at = tensor.end
