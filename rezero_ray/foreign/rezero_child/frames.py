"""Records on a pipe: four bytes of length, then JSON. Both ends use this."""

import json
import struct
from typing import Any, BinaryIO

READY = b"\nrezero records follow\n"
"""Written by the child before its first record. What the interpreter prints while it starts comes before."""

HEAD = struct.Struct(">I")
LONGEST = 256 * 1024**2
"""Bytes of one record. A longer length is taken for noise on the pipe."""


def pack(record: dict[str, Any]) -> bytes:
    """What JSON does not know is written as its text; NaN and the infinities survive.

    Raises:
        ValueError: the record is too long, or nested too deep.
    """
    try:
        body = json.dumps(record, default=str).encode("utf-8")
    except RecursionError:
        raise ValueError("a record is nested too deep for JSON") from None
    if len(body) > LONGEST:
        raise ValueError(f"a record of {len(body)} bytes is longer than {LONGEST}")
    return HEAD.pack(len(body)) + body


def body_length(head: bytes) -> int:
    """
    Raises:
        ValueError: these four bytes begin no record.
    """
    (length,) = HEAD.unpack(head)
    if length > LONGEST:
        raise ValueError("this is no record: something else was written to the pipe")
    return int(length)


def unpack(body: bytes) -> dict[str, Any]:
    try:
        record = json.loads(body)
    except RecursionError:
        raise ValueError("a record is nested too deep for JSON") from None
    if not isinstance(record, dict):
        raise ValueError("a record is an object")
    return record


def read_record(stream: BinaryIO) -> dict[str, Any] | None:
    """The next record, None at the end of the pipe. Blocks."""
    head = _exactly(stream, HEAD.size)
    if head is None:
        return None
    body = _exactly(stream, body_length(head))
    return None if body is None else unpack(body)


def _exactly(stream: BinaryIO, count: int) -> bytes | None:
    parts = b""
    while len(parts) < count:
        part = stream.read(count - len(parts))
        if not part:
            return None
        parts += part
    return parts
