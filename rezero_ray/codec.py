"""Records as bytes: MessagePack between processes and in checkpoints, JSON for readers.

Arrays travel as their memory in MessagePack (a rollout of 10,000 tokens is three copies, not 30,000 objects) and as
lists in JSON. What JSON cannot hold, a number that is not finite, is null there.
"""

import math
from functools import cache
from typing import Any, TypeVar, get_args

import msgspec
import numpy as np

Record = TypeVar("Record")


def encode(record: Any) -> bytes:
    """A record, or a list of them, as MessagePack."""
    return msgspec.msgpack.encode(record, enc_hook=_memory)


def decode(data: bytes, kind: type[Record]) -> Record:
    """What `encode` was given. Its arrays are read-only.

    Raises:
        msgspec.ValidationError: the data is something else.
    """
    return msgspec.msgpack.decode(data, type=kind, dec_hook=_array)


def encode_json(record: Any) -> bytes:
    """A record, or a dictionary with some of its fields, as one line of JSON."""
    return msgspec.json.encode(record, enc_hook=_list)


def from_json(value: Any, kind: type[Record]) -> Record:
    """A record from parsed JSON; null is read as NaN where a float belongs into an array.

    Raises:
        msgspec.ValidationError: the value is something else.
    """
    return msgspec.convert(value, kind, dec_hook=_array)


def _memory(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.data if value.flags.c_contiguous else value.tobytes()
    raise NotImplementedError(type(value))


def _list(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise NotImplementedError(type(value))


@cache
def _dtype(kind: Any) -> np.dtype[Any]:
    """X of `np.ndarray[Any, np.dtype[X]]`."""
    return np.dtype(get_args(get_args(kind)[1])[0])


def _array(kind: Any, value: Any) -> Any:
    dtype = _dtype(kind)
    if isinstance(value, bytes):
        return np.frombuffer(value, dtype=dtype)
    if np.issubdtype(dtype, np.integer):
        return np.array(msgspec.convert(value, list[int]), dtype=dtype)
    numbers = msgspec.convert(value, list[float | None])
    return np.array([math.nan if number is None else number for number in numbers], dtype=dtype)
