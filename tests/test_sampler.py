"""Claims about `PromptSampler`: the order is the seed's, complete, weighted, and survives a restart."""

import random
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rezero_ray.records import Prompt
from rezero_ray.sampler import PromptSampler, SamplerState, require_same_sizes, sampling_seed

SIZES = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 9), min_size=1)


def even(sizes: dict[str, int], seed: int = 0) -> PromptSampler:
    return PromptSampler(sizes, dict.fromkeys(sizes, 1.0), seed=seed)


@given(sizes=SIZES, seed=st.integers(0, 99), count=st.integers(0, 60))
def test_each_epoch_of_an_environment_has_every_example_once(
    sizes: dict[str, int], seed: int, count: int
) -> None:
    prompts = even(sizes, seed).take(count)
    assert [prompt.index for prompt in prompts] == list(range(count))
    for name, size in sizes.items():
        examples = [prompt.example for prompt in prompts if prompt.environment == name]
        for start in range(0, len(examples) - size + 1, size):
            assert sorted(examples[start : start + size]) == list(range(size))
        rest = examples[len(examples) // size * size :]
        assert len(set(rest)) == len(rest)


@given(sizes=SIZES, seed=st.integers(0, 99), before=st.integers(0, 40), chunks=st.lists(st.integers(0, 9)))
def test_a_restored_sampler_goes_on_as_if_nothing_had_happened(
    sizes: dict[str, int], seed: int, before: int, chunks: list[int]
) -> None:
    unbroken = even(sizes, seed)
    unbroken.take(before)
    state = msgspec.json.decode(msgspec.json.encode(unbroken.state), type=SamplerState)
    resumed = even(sizes, seed)
    resumed.take(7)  # what it had handed out before does not matter
    resumed.restore(state)
    expected = unbroken.take(sum(chunks))
    assert [prompt for chunk in chunks for prompt in resumed.take(chunk)] == expected


def test_the_state_is_a_snapshot() -> None:
    sampler = even({"a": 3})
    state = sampler.state
    sampler.take(2)
    assert state == SamplerState(position=0, taken={"a": 0})


def test_the_seed_decides_the_order() -> None:
    first, again, other = (even({"a": 50, "b": 50}, seed).take(100) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_each_epoch_has_an_order_of_its_own() -> None:
    prompts = even({"a": 50}).take(100)
    assert [p.example for p in prompts[:50]] != [p.example for p in prompts[50:]]


def test_environments_get_their_share_of_the_prompts() -> None:
    # Of 4,000 prompts 3/4 are 3,000; the standard deviation is sqrt(4,000 * 3/4 * 1/4) = 27.
    prompts = PromptSampler({"a": 10, "b": 10}, {"a": 3.0, "b": 1.0}, seed=0).take(4000)
    assert Counter(prompt.environment for prompt in prompts)["a"] == pytest.approx(3000, abs=4 * 27)


def test_an_environment_without_examples_is_named() -> None:
    with pytest.raises(ValueError, match="'empty' has no training examples"):
        even({"full": 1, "empty": 0})


def test_a_state_of_other_environments_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\['old'\], not \['new'\]"):
        even({"new": 1}).restore(SamplerState(position=3, taken={"old": 3}))


@given(sizes=SIZES, seed=st.integers(0, 99), before=st.integers(0, 40), order=st.randoms())
def test_a_restored_sampler_keeps_the_order_of_the_environments_it_began_with(
    sizes: dict[str, int], seed: int, before: int, order: random.Random
) -> None:
    unbroken = even(sizes, seed)
    unbroken.take(before)
    names = list(sizes)
    order.shuffle(names)
    restored = even({name: sizes[name] for name in names}, seed)
    restored.restore(unbroken.state)
    assert restored.take(20) == unbroken.take(20)


def test_an_environment_whose_number_of_examples_changed_is_refused() -> None:
    with pytest.raises(ValueError, match="'b' had 5 training examples and has 6"):
        require_same_sizes({"a": 4, "b": 5}, {"a": 4, "b": 6})
    require_same_sizes({"a": 4, "b": 5}, {"b": 5, "a": 4})
    require_same_sizes({}, {"a": 4})  # of an earlier version's checkpoint


def test_every_completion_has_a_sampling_seed_of_its_own_that_vllm_takes() -> None:
    seeds = [sampling_seed(0, p, r, t) for p in range(20) for r in range(10) for t in range(3)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert sampling_seed(0, 1, 2, 3) == sampling_seed(0, 1, 2, 3) != sampling_seed(1, 1, 2, 3)


def test_a_single_example_is_handed_out_again_and_again() -> None:
    assert even({"a": 1}).take(2) == [
        Prompt(index=0, environment="a", example=0),
        Prompt(index=1, environment="a", example=0),
    ]
