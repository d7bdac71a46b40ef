"""Which sequence is trained in which micro-batch of which rank.

ZeRO-3 moves the ranks in lockstep: each gathers every layer for the i-th micro-batch together with all
others. So every rank needs the same number of micro-batches, empty ones among them, and a step lasts as
long as the fullest micro-batch of each round. `pack` therefore first makes the number of rounds small and
then evens out the tokens, within a round and over the ranks.
"""

from __future__ import annotations

import heapq
import operator
from bisect import bisect_left, insort
from collections.abc import Sequence

import msgspec


class PackingPlan(msgspec.Struct, frozen=True):
    """Where every item goes. An empty micro-batch is to be run as zero-mask padding."""

    micro_batches: tuple[tuple[tuple[int, ...], ...], ...]
    """`micro_batches[rank][round]`: indices into the lengths that were packed, ascending; `()` is padding."""
    tokens: tuple[tuple[int, ...], ...]
    """`tokens[rank][round]`: how many tokens that micro-batch holds, 0 for padding."""

    @property
    def rounds(self) -> int:
        """Number of micro-batches of each rank."""
        return len(self.micro_batches[0])


def pack(lengths: Sequence[int], *, ranks: int, max_tokens: int) -> PackingPlan:
    """Assign every item to one micro-batch of one rank.

    An item is whatever must stay together: a sequence, or all the sequences that share a prompt. Items go
    longest first to the emptiest micro-batch (LPT, Graham 1969) of as few rounds as best-fit decreasing needs
    (within 11/9 of the optimum, Johnson 1974). Where that even spread would overfill a micro-batch, the
    best-fit one is used as it is. The result depends on nothing but the arguments.

    Args:
        lengths: tokens of each item, each in 1..max_tokens.
        ranks: number of learner ranks.
        max_tokens: most tokens that one micro-batch may hold.

    Returns:
        A plan in which every rank has the same number of micro-batches (none where `lengths` is empty), no
        micro-batch holds more than `max_tokens`, and every item occurs exactly once.

    Raises:
        ValueError: `ranks` or `max_tokens` below 1; a length, named by its index, outside 1..max_tokens.
    """
    if ranks < 1:
        raise ValueError(f"ranks is {ranks}; at least 1 is needed")
    if max_tokens < 1:
        raise ValueError(f"max_tokens is {max_tokens}; at least 1 is needed")
    sizes = [_checked(index, length, max_tokens) for index, length in enumerate(lengths)]
    longest_first = sorted(range(len(sizes)), key=lambda index: (-sizes[index], index))

    tight = _best_fit(sizes, longest_first, max_tokens)
    rounds = -(-len(tight) // ranks)
    bins = _even(sizes, longest_first, rounds * ranks)
    if any(sum(sizes[i] for i in members) > max_tokens for members in bins):
        bins = tight + [[] for _ in range(rounds * ranks - len(tight))]
    return _deal(sizes, bins, ranks)


def _checked(index: int, length: int, max_tokens: int) -> int:
    """The length as an int, or ValueError naming its index."""
    try:
        size = operator.index(length)
    except TypeError:
        raise ValueError(f"length {index} is {length!r}; whole numbers of tokens are expected") from None
    if size < 1:
        raise ValueError(f"length {index} is {size}; every item has at least 1 token")
    if size > max_tokens:
        raise ValueError(f"length {index} is {size}, more than max_tokens = {max_tokens}")
    return size


def _best_fit(sizes: list[int], order: list[int], max_tokens: int) -> list[list[int]]:
    """Each item into the fullest bin that still takes it, a new bin where none does."""
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens free, bin), ascending
    for index in order:
        at = bisect_left(room, (sizes[index], -1))
        if at < len(room):
            free, chosen = room.pop(at)
        else:
            free, chosen = max_tokens, len(bins)
            bins.append([])
        bins[chosen].append(index)
        if free > sizes[index]:
            insort(room, (free - sizes[index], chosen))
    return bins


def _even(sizes: list[int], order: list[int], number: int) -> list[list[int]]:
    """Each item into the bin with the fewest tokens so far."""
    bins: list[list[int]] = [[] for _ in range(number)]
    load = [(0, which) for which in range(number)]
    for index in order:
        tokens, which = load[0]
        bins[which].append(index)
        heapq.heapreplace(load, (tokens + sizes[index], which))
    return bins


def _deal(sizes: list[int], bins: list[list[int]], ranks: int) -> PackingPlan:
    """Deal the bins out, fullest first: alike ones share a round, the fullest goes to the lightest rank."""
    loaded = sorted(
        ((sum(sizes[i] for i in members), tuple(sorted(members))) for members in bins), reverse=True
    )
    batches: list[list[tuple[int, ...]]] = [[] for _ in range(ranks)]
    tokens: list[list[int]] = [[] for _ in range(ranks)]
    for start in range(0, len(loaded), ranks):
        lightest_first = sorted(range(ranks), key=lambda rank: (sum(tokens[rank]), rank))
        for rank, (load, members) in zip(lightest_first, loaded[start : start + ranks], strict=True):
            batches[rank].append(members)
            tokens[rank].append(load)
    return PackingPlan(micro_batches=tuple(map(tuple, batches)), tokens=tuple(map(tuple, tokens)))
