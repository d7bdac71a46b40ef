"""Claims about `build_batch`: every trained token once, where it belongs, with everything it needs."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rezero_ray.advantages import group_advantages
from rezero_ray.batch import TrainingBatch, build_batch, micro_batches, padding_micro_batch, single_sequence
from rezero_ray.records import Group, MicroBatch, Rollout
from tests.record_builders import make_config, make_group, make_rollout

SEQ_LEN = 24
TOKENS = st.integers(0, 99)


@st.composite
def groups(draw: st.DrawFn) -> list[Group]:
    """Groups of equal or different rewards; masks with holes, some of them with no trained token."""

    def rollout(prompt: list[int]) -> Rollout:
        tail = draw(st.lists(TOKENS, max_size=SEQ_LEN - len(prompt)))
        mask = draw(st.lists(st.integers(0, 1), min_size=len(tail), max_size=len(tail)))
        return make_rollout(prompt, tail, mask=mask, reward=draw(st.sampled_from([0.0, 0.0, 1.0, 0.5])))

    found = []
    for index in range(draw(st.integers(1, 4))):
        prompt = draw(st.lists(TOKENS, min_size=1, max_size=SEQ_LEN // 2))
        size = draw(st.integers(1, 4))
        found.append(make_group([rollout(prompt) for _ in range(size)], index=index))
    return found


LAYOUTS = st.fixed_dictionaries(
    {
        "ranks": st.integers(1, 4),
        "trainer__share_prompts": st.booleans(),
        "trainer__micro_batch_tokens": st.sampled_from([SEQ_LEN, 2 * SEQ_LEN, 1000]),
        "trainer__loss": st.sampled_from([{"kl_coef": 0.0}, {"kl_coef": 0.1}]),
    }
)


def build(groups: list[Group], ranks: int = 1, **changes: Any) -> TrainingBatch:
    return build_batch(groups, make_config(seq_len=SEQ_LEN, **changes), ranks=ranks)


def in_use(batch: TrainingBatch) -> list[MicroBatch]:
    """The micro-batches that train something."""
    return [micro for rank in batch.trees for micro in micro_batches(rank) if micro.loss_mask.any()]


def visible(micro: MicroBatch, source: int) -> list[int]:
    """Positions on axis T that the token at `source` attends to, in the order of its sequence."""
    ((start, _, prefix_start, prefix_end),) = [s for s in micro.segments if s[0] <= source < s[1]]
    return [*range(prefix_start, prefix_end), *range(start, source + 1)]


def expected_tokens(groups: list[Group], *, all_computed: bool) -> list[tuple[Any, ...]]:
    """(sequence, ids up to the token, the token, its logprob, its advantage) of every token to be trained."""
    found: list[tuple[Any, ...]] = []
    number = 0
    for group in groups:
        advantages = group_advantages([r.reward for r in group.rollouts]).tolist()
        for rollout, advantage in zip(group.rollouts, advantages, strict=True):
            for at, trained in enumerate(rollout.loss_mask):
                if trained and (advantage != 0 or all_computed):
                    seen = tuple(rollout.token_ids[:at].tolist())
                    token, logprob = int(rollout.token_ids[at]), float(rollout.logprobs[at])
                    found.append((number, seen, token, logprob, advantage))
            number += 1
    return found


@given(groups=groups(), layout=LAYOUTS)
def test_every_trained_token_once_with_all_that_its_policy_saw_before_it(
    groups: list[Group], layout: dict[str, Any]
) -> None:
    found = []
    for micro in in_use(build(groups, **layout)):
        for source, target, logprob, advantage, number in zip(
            micro.sources,
            micro.targets,
            micro.inference_logprobs,
            micro.advantages,
            micro.sequence_ids,
            strict=True,
        ):
            seen = visible(micro, int(source))
            assert micro.position_ids[seen].tolist() == list(range(len(seen)))
            ids = tuple(micro.token_ids[seen].tolist())
            found.append((int(number), ids, int(target), float(logprob), float(advantage)))
    moved = any(a for group in groups for a in group_advantages([r.reward for r in group.rollouts]).tolist())
    everything = layout["trainer__loss"]["kl_coef"] != 0 or not moved
    expected = expected_tokens(groups, all_computed=everything)
    assert len(found) == len(expected)
    for one, other in zip(sorted(found), sorted(expected), strict=True):
        assert one[:3] == other[:3]
        assert one[3:] == pytest.approx(other[3:], abs=1e-6)  # float32


@given(groups=groups(), layout=LAYOUTS)
def test_segments_cover_the_axis_in_order_and_no_micro_batch_is_above_the_limit(
    groups: list[Group], layout: dict[str, Any]
) -> None:
    batch = build(groups, **layout)
    assert len(batch.trees) == layout["ranks"]
    assert len({len(rank) for rank in batch.trees}) == 1
    for micro in (micro for rank in batch.trees for micro in micro_batches(rank)):
        assert len(micro.token_ids) == len(micro.position_ids) <= layout["trainer__micro_batch_tokens"]
        assert [s[0] for s in micro.segments] == [0, *(s[1] for s in micro.segments[:-1])]
        assert micro.segments[-1][1] == len(micro.token_ids)
        for start, _, prefix_start, prefix_end in micro.segments:
            assert prefix_start <= prefix_end <= start
            assert prefix_start == prefix_end or any(
                s[:2] == (prefix_start, prefix_end) for s in micro.segments
            )
        arrays = (micro.sources, micro.targets, micro.inference_logprobs, micro.advantages, micro.loss_mask)
        assert {len(array) for array in arrays} == {len(micro.sequence_ids)}


@given(groups=groups(), layout=LAYOUTS)
def test_normalizers_count_the_whole_step_however_it_is_laid_out(
    groups: list[Group], layout: dict[str, Any]
) -> None:
    batch = build(groups, **layout)
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    assert batch.normalizers == {
        "tokens": sum(sum(rollout.loss_mask) for rollout in rollouts),
        "sequences": sum(any(rollout.loss_mask) for rollout in rollouts),
    }
    assert [len(group) for group in batch.advantages] == [len(group.rollouts) for group in groups]
    assert batch.computed_sequences == len(
        {int(number) for micro in in_use(batch) for number in micro.sequence_ids}
    )


EQUAL_AND_DIFFERENT = [
    make_group([make_rollout([1, 2], [3, 4], reward=1.0), make_rollout([1, 2], [5], reward=1.0)], index=0),
    make_group([make_rollout([6], [7], reward=0.0), make_rollout([6], [8, 9], reward=1.0)], index=1),
]


def test_sequences_of_zero_advantage_are_left_out_where_there_is_no_kl_term() -> None:
    batch = build(EQUAL_AND_DIFFERENT)
    assert {int(n) for micro in in_use(batch) for n in micro.sequence_ids} == {2, 3}
    assert batch.computed_sequences == 2
    assert batch.normalizers == {"tokens": 6, "sequences": 4}


def test_sequences_of_zero_advantage_are_computed_where_there_is_a_kl_term() -> None:
    batch = build(EQUAL_AND_DIFFERENT, trainer__loss={"kl_coef": 0.01})
    assert {int(n) for micro in in_use(batch) for n in micro.sequence_ids} == {0, 1, 2, 3}
    assert batch.computed_sequences == 4


def test_a_step_whose_every_advantage_is_zero_is_computed() -> None:
    batch = build(EQUAL_AND_DIFFERENT[:1])
    assert batch.computed_sequences == 2
    assert batch.normalizers["tokens"] == 3


def test_a_shared_prompt_is_computed_once() -> None:
    prompt = list(range(10))
    group = make_group([make_rollout(prompt, [50 + n], reward=n) for n in range(4)])
    (shared,) = in_use(build([group], trainer__micro_batch_tokens=1000))
    (separate,) = in_use(build([group], trainer__micro_batch_tokens=1000, trainer__share_prompts=False))
    assert len(shared.token_ids) == 10 + 4
    assert len(separate.token_ids) == 4 * (10 + 1)


def test_a_group_is_spread_over_the_ranks() -> None:
    group = make_group([make_rollout([1], [2] * 20, reward=n) for n in range(4)])
    batch = build([group], ranks=4, trainer__micro_batch_tokens=1000)
    assert [len(rank) for rank in batch.trees] == [1, 1, 1, 1]
    assert all(micro_batches(rank)[0].loss_mask.sum() == 20 for rank in batch.trees)


def test_rollouts_of_a_group_that_begin_differently_do_not_share_a_prompt() -> None:
    group = make_group([make_rollout([1, 2, 3], [4], reward=0.0), make_rollout([1, 9], [5, 6], reward=1.0)])
    seen = {
        int(target): micro.token_ids[visible(micro, int(source))].tolist()
        for micro in in_use(build([group], trainer__micro_batch_tokens=1000))
        for source, target in zip(micro.sources, micro.targets, strict=True)
    }
    assert seen == {4: [1, 2, 3], 5: [1, 9], 6: [1, 9, 5]}


def test_padding_trains_nothing() -> None:
    micro = padding_micro_batch()
    assert not micro.loss_mask.any()
    assert micro.segments == [(0, len(micro.token_ids), 0, 0)]
    assert micro.sources.max() < len(micro.token_ids)


def test_a_single_sequence_is_scored_at_every_token_but_the_first() -> None:
    micro = single_sequence([5, 6, 7])
    assert micro.sources.tolist() == [0, 1]
    assert micro.targets.tolist() == [6, 7]
    assert micro.segments == [(0, 3, 0, 0)]
    assert np.array_equal(micro.position_ids, [0, 1, 2])


def test_a_step_without_a_trained_token_still_gives_every_rank_one_round() -> None:
    silent = make_rollout([1, 2, 3], [4], mask=[0])
    batch = build([make_group([silent, silent])], ranks=3)
    assert [len(rank) for rank in batch.trees] == [1, 1, 1]
    assert not in_use(batch)
    assert all(len(micro.token_ids) for rank in batch.trees for micro in micro_batches(rank))
