"""Policy losses over packed tokens: `build_loss` makes one of them by name.

Tokens of all sequences of a micro-batch lie on one axis T; `sequence_ids_T` says which sequence a token
belongs to, and a sequence is never split over micro-batches. What every loss holds to stands in
`policy_loss.py`.

| name | ratio | per-token loss | averaged over |
|---|---|---|---|
| `importance_sampling` (default) | token, detached, three masks | `-(r A).detach() logp` | tokens |
| `grpo` | token, clipped | `-min(r A, clip(r) A)` | each sequence, then sequences |
| `dapo` | token, clipped apart below and above | as `grpo` | tokens |
| `dr_grpo` | token, clipped | as `grpo` | a constant length, then sequences |
| `gspo` | sequence, clipped | as `grpo` | each sequence, then sequences |
| `cispo` | token, detached and capped | `-(min(r, ratio_max)).detach() A logp` | tokens |
| `sapo` | token, sigmoid gate | `-4 sigmoid(tau (r - 1)) / tau A` | each sequence, then sequences |

Importing this package or `rezero_ray.losses.options` does not load torch; the losses do when they are built.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rezero_ray.losses.options import AnyLossOptions, LossOptions
from rezero_ray.losses.parsing import parse_options

if TYPE_CHECKING:
    from rezero_ray.losses.output import LossOutput, MetricSum, add_metrics
    from rezero_ray.losses.policy_loss import PolicyLoss

__all__ = [
    "AnyLossOptions",
    "LossOptions",
    "LossOutput",
    "MetricSum",
    "PolicyLoss",
    "add_metrics",
    "build_loss",
    "parse_options",
]

_NEEDS_TORCH = {
    "LossOutput": "output",
    "MetricSum": "output",
    "add_metrics": "output",
    "PolicyLoss": "policy_loss",
}


def build_loss(options: Mapping[str, Any] | AnyLossOptions) -> PolicyLoss:
    """The loss that `{"type": NAME, **options}` describes; `type` is `importance_sampling` where left out.

    Raises:
        ValueError: unknown type, unknown option or value out of range, with the nearest and all valid names.
    """
    parsed = parse_options(options)
    from rezero_ray.losses.policy_loss import PolicyLoss

    return PolicyLoss(parsed)


def __getattr__(name: str) -> Any:
    if name not in _NEEDS_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_NEEDS_TORCH[name]}"), name)
