"""Claims about `pack`."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rezero_ray.packing import PackingPlan, pack

PROBLEMS = st.integers(1, 60).flatmap(
    lambda most: st.tuples(st.lists(st.integers(1, most), max_size=40), st.integers(1, 5), st.just(most))
)


@given(problem=PROBLEMS)
def test_every_item_once_no_micro_batch_overfull_all_ranks_alike(
    problem: tuple[list[int], int, int],
) -> None:
    lengths, ranks, max_tokens = problem
    plan = pack(lengths, ranks=ranks, max_tokens=max_tokens)
    assert len(plan.micro_batches) == ranks
    assert {len(batches) for batches in plan.micro_batches} == {plan.rounds}
    placed = [index for batches in plan.micro_batches for batch in batches for index in batch]
    assert sorted(placed) == list(range(len(lengths)))
    for batches, tokens in zip(plan.micro_batches, plan.tokens, strict=True):
        assert [sum(lengths[index] for index in batch) for batch in batches] == list(tokens)
        assert max(tokens, default=0) <= max_tokens


@given(problem=PROBLEMS)
def test_rounds_stay_near_the_fewest_possible(problem: tuple[list[int], int, int]) -> None:
    lengths, ranks, max_tokens = problem
    rounds = pack(lengths, ranks=ranks, max_tokens=max_tokens).rounds
    over_half = sum(2 * length > max_tokens for length in lengths)
    fewest_bins = max(-(-sum(lengths) // max_tokens), over_half)
    assert rounds >= -(-fewest_bins // ranks)
    # Any fit at all leaves at most one bin half empty, so bins < 2 * tokens / max_tokens + 1.
    assert rounds <= -(-(2 * sum(lengths) // max_tokens + 1) // ranks)


@given(problem=PROBLEMS)
def test_the_same_arguments_give_the_same_plan(problem: tuple[list[int], int, int]) -> None:
    lengths, ranks, max_tokens = problem
    first = pack(lengths, ranks=ranks, max_tokens=max_tokens)
    assert first == pack(tuple(lengths), ranks=ranks, max_tokens=max_tokens)


def test_bins_that_fit_exactly_are_found() -> None:
    # 6 + 4, 7 + 3 and 5 + 5 fill three micro-batches of 10 to the last token.
    plan = pack([5, 3, 6, 5, 4, 7], ranks=3, max_tokens=10)
    assert plan.tokens == ((10,), (10,), (10,))


def test_spare_micro_batches_are_used_to_even_out_the_ranks() -> None:
    # All four fit one micro-batch, yet three ranks run one each anyway.
    assert sorted(pack([4, 3, 2, 2], ranks=3, max_tokens=100).tokens) == [(3,), (4,), (4,)]


def test_short_ranks_get_padding() -> None:
    plan = pack([7, 2], ranks=4, max_tokens=10)
    assert sorted(plan.micro_batches) == [((),), ((),), ((0,),), ((1,),)]


def test_nothing_to_pack_needs_no_micro_batch() -> None:
    assert pack([], ranks=2, max_tokens=10) == PackingPlan(micro_batches=((), ()), tokens=((), ()))


def test_tokens_are_even_within_a_round_and_over_ranks() -> None:
    chance = random.Random(0)
    lengths = [chance.randint(100, 1000) for _ in range(512)]
    plan = pack(lengths, ranks=3, max_tokens=8192)
    totals = [sum(tokens) for tokens in plan.tokens]
    assert max(totals) <= 1.01 * min(totals)
    assert sum(map(max, zip(*plan.tokens, strict=True))) <= 1.02 * sum(lengths) / 3


def test_ten_thousand_lengths_take_well_under_a_second() -> None:
    chance = random.Random(0)
    lengths = [chance.randint(1, 4096) for _ in range(10_000)]
    began = time.process_time()
    plan = pack(lengths, ranks=3, max_tokens=4096)
    assert time.process_time() - began < 1.0
    assert plan.rounds <= 1.02 * sum(lengths) / 4096 / 3


@pytest.mark.parametrize(
    ("lengths", "ranks", "max_tokens", "complaint"),
    [
        ([3, 11], 1, 10, "length 1 is 11, more than max_tokens = 10"),
        ([3, 4, 0], 1, 10, "length 2 is 0"),
        ([-1], 1, 10, "length 0 is -1"),
        ([2.5], 1, 10, "length 0 is 2.5"),
        ([1], 0, 10, "ranks is 0"),
        ([1], 1, 0, "max_tokens is 0"),
    ],
)
def test_what_cannot_be_packed_is_named(
    lengths: list[int], ranks: int, max_tokens: int, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        pack(lengths, ranks=ranks, max_tokens=max_tokens)
