"""Random packed micro-batches for the loss tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

torch.set_num_threads(1)


@dataclass(frozen=True)
class Packed:
    """Everything a loss takes, all [T], float64; sequences lie one after the other."""

    trainer: Tensor
    inference: Tensor
    advantages: Tensor
    mask: Tensor
    ids: Tensor
    old: Tensor
    reference: Tensor

    def of_sequences(self, chosen: list[int]) -> Packed:
        """The tokens of these sequences only."""
        at = torch.isin(self.ids, torch.tensor(chosen, dtype=torch.long))
        return Packed(**{name: getattr(self, name)[at] for name in self.__dataclass_fields__})

    def with_gradient(self) -> Packed:
        return replace(self, trainer=self.trainer.detach().clone().requires_grad_())

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        return self.trainer, self.inference, self.advantages, self.mask, self.ids


def _packed(seed: int, lengths: list[int], spread: float = 0.5, mask_share: float = 0.7) -> Packed:
    """One advantage per sequence; log ratios are normal with the given spread; ids are scattered integers."""
    random = torch.Generator().manual_seed(seed)
    total = sum(lengths)

    def normal(scale: float) -> Tensor:
        return torch.randn(total, generator=random, dtype=torch.float64) * scale

    trainer = -normal(1.0).abs()
    repeats = torch.tensor(lengths, dtype=torch.long)
    per_sequence = torch.randn(len(lengths), generator=random, dtype=torch.float64)
    return Packed(
        trainer=trainer,
        inference=trainer + normal(spread),
        advantages=per_sequence.repeat_interleave(repeats),
        mask=torch.rand(total, generator=random) < mask_share,
        ids=(torch.arange(len(lengths)) * 7 + 3).repeat_interleave(repeats),
        old=trainer + normal(spread),
        reference=trainer + normal(spread),
    )


@pytest.fixture(scope="session")
def packed() -> Callable[..., Packed]:
    """`packed(seed, lengths, spread=0.5, mask_share=0.7)`."""
    return _packed
