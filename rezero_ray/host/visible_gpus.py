"""Which GPUs CUDA_VISIBLE_DEVICES leaves, counted as CUDA counts them.

CUDA's rules, as in its programming guide and in `torch.cuda`: entries are read from the left and the first one that
names no GPU ends the list, so those behind a -1 are invisible; an entry that names a GPU a second time leaves none at
all; a number is read as C's `strtoul` reads it; a UUID may be cut short where it stays unambiguous.
NVIDIA_VISIBLE_DEVICES is read by the container runtime only: inside, GPUs count from 0 again.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

VARIABLE = "CUDA_VISIBLE_DEVICES"

_NUMBER = re.compile(r"[+-]?[0-9]+")
_Entry = TypeVar("_Entry", int, str)


@dataclass(frozen=True)
class Visible:
    """`names` are what CUDA_VISIBLE_DEVICES calls the visible GPUs, in CUDA's order; `ordinals` their numbers among
    all of the machine, None where that is not known (a MIG instance, or a UUID when the driver cannot be asked)."""

    names: tuple[str, ...]
    ordinals: tuple[int | None, ...]


def visible_gpus(value: str | None, uuids: Sequence[str | None]) -> Visible:
    """What CUDA would see on a machine with these GPUs.

    Args:
        value: of CUDA_VISIBLE_DEVICES; None where it is not set.
        uuids: of the machine's GPUs in the driver's order; None where one is not known.
    """
    if value is None:
        return Visible(tuple(map(str, range(len(uuids)))), tuple(range(len(uuids))))
    entries = value.split(",")
    if entries[0].startswith("MIG-"):
        first = entries[:1] if uuids and entries.count(entries[0]) == 1 else []
        return Visible(tuple(first), (None,) * len(first))  # CUDA takes one instance a process
    if not entries[0].startswith("GPU-"):
        return _within(_unrepeated(_numbers(entries)), len(uuids))
    named = _unrepeated(_uuids(entries))
    if not any(uuids):  # the driver does not say which is which: as many as there can be
        unknown = tuple(named[: len(uuids)])
        return Visible(unknown, (None,) * len(unknown))
    return _within([_with_uuid(entry, uuids) for entry in named], len(uuids))


def hidden(variables: Mapping[str, str], count: int, left: int) -> str | None:
    """A sentence for the reader where CUDA_VISIBLE_DEVICES hides some of `count` GPUs and leaves `left`."""
    value = variables.get(VARIABLE)
    if value is None or left == count:
        return None
    text = f"{VARIABLE}={value} leaves {left} of the {count} GPUs here, as CUDA counts"
    container = variables.get("NVIDIA_VISIBLE_DEVICES")
    if container and container not in ("all", "void", "none"):
        text += f"; inside the container that NVIDIA_VISIBLE_DEVICES={container} made they count from 0"
    return text


def _within(numbers: Iterable[int], count: int) -> Visible:
    """The numbers up to the first one that is none of `count` GPUs'."""
    ordinals = _unrepeated(itertools.takewhile(lambda number: 0 <= number < count, numbers))
    return Visible(tuple(map(str, ordinals)), tuple(ordinals))


def _numbers(entries: Sequence[str]) -> Iterator[int]:
    for entry in entries:
        number = _NUMBER.match(entry.strip())
        if number is None or int(number[0]) < 0:
            return
        yield int(number[0])


def _uuids(entries: Sequence[str]) -> Iterator[str]:
    return itertools.takewhile(lambda entry: entry.startswith("GPU-"), entries)


def _with_uuid(beginning: str, uuids: Sequence[str | None]) -> int:
    """Number of the only GPU whose UUID begins so; -1 where there is none or more than one."""
    found = [number for number, uuid in enumerate(uuids) if uuid is not None and uuid.startswith(beginning)]
    return found[0] if len(found) == 1 else -1


def _unrepeated(entries: Iterable[_Entry]) -> list[_Entry]:
    """The entries; none of them where one comes twice."""
    every = list(entries)
    return every if len(set(every)) == len(every) else []
