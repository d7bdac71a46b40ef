"""Claims about the grouped LoRA operation: the runs, and vLLM's own numbers."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("vllm")

from rezero_ray.vllm_cpu.punica import GroupedPunicaWrapper, adapter_runs  # vllm may be absent

torch.set_num_threads(1)

INPUT, RANK, SLOTS = 24, 8, 3
SLICES = (16, 8)
BATCHES = [[0] * 6, [0, 0, 1, 1, 2], [-1, 0, -1, 1, 1, -1], [2, 0, 2, 0], [1]]


@given(slots=st.lists(st.integers(-1, 2), max_size=30))
def test_runs_cover_the_tokens_that_have_an_adapter_and_no_others(slots: list[int]) -> None:
    runs = adapter_runs(slots)
    covered = {token: run.slot for run in runs for token in range(run.start, run.end)}
    assert covered == {token: slot for token, slot in enumerate(slots) if slot >= 0}
    assert all(run.start < run.end for run in runs)


@given(slots=st.lists(st.integers(-1, 2), max_size=30))
def test_runs_are_in_order_and_as_long_as_can_be(slots: list[int]) -> None:
    runs = adapter_runs(slots)
    for run, after in pairwise(runs):
        assert run.end <= after.start
        assert run.end < after.start or run.slot != after.slot


def wrapper(kind: Any, slots: list[int]) -> Any:
    from vllm.lora.layers import LoRAMapping

    made = kind(64, 16, torch.device("cpu"))
    ids = tuple(slot + 1 for slot in slots)  # 0 is vLLM's word for no adapter
    mapping = LoRAMapping(index_mapping=ids, prompt_mapping=ids, is_prefill=True)
    made.update_metadata(mapping, list(range(1, SLOTS + 1)), SLOTS, 100)
    return made


@pytest.mark.slow  # vLLM's LoRA layers take seconds to import
@pytest.mark.parametrize("slots", BATCHES, ids=str)
def test_it_adds_what_vllms_own_operation_adds(slots: list[int]) -> None:
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    random = torch.Generator().manual_seed(0)
    x = torch.randn(len(slots), INPUT, generator=random)
    y = torch.randn(len(slots), sum(SLICES), generator=random)
    lora_a = tuple(torch.randn(SLOTS, 1, RANK, INPUT, generator=random) for _ in SLICES)
    lora_b = tuple(torch.randn(SLOTS, 1, width, RANK, generator=random) for width in SLICES)
    ours, theirs = y.clone(), y.clone()
    wrapper(GroupedPunicaWrapper, slots).add_lora_linear(ours, x, lora_a, lora_b, 0.5, SLICES)
    wrapper(PunicaWrapperCPU, slots).add_lora_linear(theirs, x, lora_a, lora_b, 0.5, SLICES)
    adapted = torch.tensor(slots) >= 0
    assert not torch.isclose(ours[adapted], y[adapted]).all(dim=1).any()
    torch.testing.assert_close(ours[adapted], theirs[adapted], rtol=1e-5, atol=1e-4)
    # vLLM's reads slot -1, the last adapter, for a token without one; ours leaves such a token alone.
    assert torch.equal(ours[~adapted], y[~adapted])
