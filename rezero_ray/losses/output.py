"""What a loss returns. Metrics are sums with their counts: they are added first and divided last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class MetricSum:
    """A mean that is not divided yet: add over micro-batches and ranks, then take `mean`.

    Both parts are detached float64 scalars on the loss's device; a micro-batch without tokens gives 0 and 0.
    """

    total: Tensor
    count: Tensor

    def __add__(self, other: MetricSum) -> MetricSum:
        return MetricSum(self.total + other.total, self.count + other.count)

    @property
    def mean(self) -> float:
        """total / count, 0 where nothing was counted."""
        count = float(self.count)
        return float(self.total) / count if count else 0.0


class LossOutput(NamedTuple):
    """`loss` is the scalar to run backward on, `metrics` what to report."""

    loss: Tensor
    metrics: dict[str, MetricSum]


def masked_sum(values_T: Tensor, mask_T: Tensor, count_T: Tensor) -> MetricSum:
    """Sum of `values_T` [T] where `mask_T` [T] holds, over the number of tokens where `count_T` [T] holds."""
    values = torch.where(mask_T, values_T.detach().to(torch.float64), 0.0)
    return MetricSum(values.sum(), count_T.sum(dtype=torch.float64))


def add_metrics(left: Mapping[str, MetricSum], right: Mapping[str, MetricSum]) -> dict[str, MetricSum]:
    """Metrics of two calls together; a key that only one of them has is kept as it is."""
    both = {key: left[key] + right[key] for key in left.keys() & right.keys()}
    return {**left, **right, **both}
