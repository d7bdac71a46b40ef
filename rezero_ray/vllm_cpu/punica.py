"""LoRA on the CPU: two dense products a layer for each run of tokens that use the same adapter.

    y[s:e] += (x[s:e] @ A.T) @ B.T        for each run [s, e)

vLLM's own operation gathers a whole adapter matrix per token. And it does so for each slice of a packed layer
(q, k and v have a matrix each); here A is their matrices one below the other and B is block-diagonal, so a packed
layer costs as many products as a plain one. vLLM's tensors are made views of these two, so that what vLLM writes
into a slot is what is multiplied: nothing is copied, nothing can be stale.
"""

from typing import NamedTuple

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU


class AdapterRun(NamedTuple):
    """Consecutive tokens [start, end) of a batch that use the adapter in `slot`."""

    start: int
    end: int
    slot: int


def adapter_runs(slots: list[int]) -> list[AdapterRun]:
    """Cut a batch's adapter slots, one per token, into runs; tokens without an adapter (-1) are left out."""
    runs: list[AdapterRun] = []
    start = 0
    for end in range(1, len(slots) + 1):
        if end == len(slots) or slots[end] != slots[start]:
            if slots[start] >= 0:
                runs.append(AdapterRun(start, end, slots[start]))
            start = end
    return runs


class JoinedLora(NamedTuple):
    """A layer's matrices of all slots: `a` [slots, slices * rank, input], `b` [slots, output, slices * rank]."""

    a: torch.Tensor
    b: torch.Tensor


def join(lora_a: tuple[torch.Tensor, ...], lora_b: tuple[torch.Tensor, ...]) -> JoinedLora:
    """Move a layer's slices into two tensors and make the slices views of them.

    Args:
        lora_a: one [slots, 1, rank, input] per slice of the output.
        lora_b: one [slots, 1, slice, rank] per slice of the output.
    """
    slots, _, rank, width = lora_a[0].shape
    columns = rank * len(lora_a)
    rows = sum(b.shape[2] for b in lora_b)
    a = lora_a[0].new_zeros(slots, columns, width)
    b = lora_b[0].new_zeros(slots, rows, columns)
    row = 0
    for number, (slice_a, slice_b) in enumerate(zip(lora_a, lora_b, strict=True)):
        height = slice_b.shape[2]
        part_a = a[:, None, number * rank : (number + 1) * rank]
        part_b = b[:, None, row : row + height, number * rank : (number + 1) * rank]
        part_a.copy_(slice_a)
        part_b.copy_(slice_b)
        slice_a.set_(part_a)  # type: ignore[call-overload]
        slice_b.set_(part_b)  # type: ignore[call-overload]
        row += height
    return JoinedLora(a, b)


class GroupedPunicaWrapper(PunicaWrapperCPU):
    """`PunicaWrapperCPU` whose linear LoRA operation works on runs of tokens and joined matrices."""

    def __init__(self, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        super().__init__(*args, **kwargs)
        self._runs: list[AdapterRun] = []
        self._joined: dict[int, tuple[JoinedLora, tuple[torch.Tensor, ...]]] = {}

    def update_metadata(self, mapping, lora_index_to_id, max_loras, vocab_size, **kwargs) -> None:  # type: ignore[no-untyped-def]
        super().update_metadata(mapping, lora_index_to_id, max_loras, vocab_size, **kwargs)
        self._runs = adapter_runs(self.token_lora_indices.tolist())

    def add_lora_linear(  # type: ignore[no-untyped-def]
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        *,
        buffer: tuple[torch.Tensor, ...] | None = None,
        **kwargs,
    ) -> None:
        """Add the adapters' output to `y` in place.

        Args:
            y: [tokens, output], the base layer's output.
            x: [tokens, input], the layer's input.
            lora_a_stacked, lora_b_stacked: see `join`.
            scale: factor of the product.
            output_slices: width of each slice of `y`; that of the slices' B matrices.
            buffer: not needed here.
        """
        matrices = self._matrices(lora_a_stacked, lora_b_stacked)
        width = matrices.b.shape[1]
        for start, end, slot in self._runs:
            rows = x[start : min(end, x.shape[0])]
            shrunk = rows @ matrices.a[slot].t()
            y[start : start + len(rows), :width].addmm_(shrunk, matrices.b[slot].t(), alpha=scale)

    def _matrices(self, lora_a: tuple[torch.Tensor, ...], lora_b: tuple[torch.Tensor, ...]) -> JoinedLora:
        found = self._joined.get(id(lora_a))
        if found is None:
            found = (join(lora_a, lora_b), lora_a)  # the tuple is kept, so that its id stays its own
            self._joined[id(lora_a)] = found
        return found[0]
