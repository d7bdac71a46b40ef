"""What holds for every loss: splits add up, one source of gradient, nothing from what is dropped."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rezero_ray.losses import add_metrics, build_loss
from rezero_ray.losses.options import OPTIONS

EVERY_LOSS = pytest.mark.parametrize("name", OPTIONS)
LENGTHS = st.lists(st.integers(1, 7), min_size=1, max_size=6)
SEEDS = st.integers(0, 2**31)
EXTRAS: dict[str, Any] = {"kl_coef": 0.2, "tis_cap": 1.5, "dual_clip": 3.0}


def gradient_and_loss(name: str, batch: Any, normalizer: float | None = None) -> Any:
    """(gradient [T], loss, metrics) with every extra switched on."""
    ours = batch.with_gradient()
    output = build_loss({"type": name, **EXTRAS})(
        *ours.inputs, normalizer=normalizer, old_logprobs_T=batch.old, reference_logprobs_T=batch.reference
    )
    output.loss.backward()
    return ours.trainer.grad, output.loss.detach(), output.metrics


def close(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Equal up to float64 rounding. (torch.testing.assert_close imports sympy, which takes seconds.)"""
    return torch.allclose(left, right, rtol=1e-9, atol=1e-12)


def count(name: str, batch: Any) -> int:
    """The loss's own count of what its normalizer counts."""
    if OPTIONS[name].normalizer_unit == "tokens":
        return int(batch.mask.sum())
    return len(set(batch.ids[batch.mask].tolist()))


@EVERY_LOSS
@given(seed=SEEDS, lengths=LENGTHS, data=st.data())
@settings(max_examples=12, deadline=None)
def test_any_split_adds_up_to_the_whole(
    name: str, packed: Callable[..., Any], seed: int, lengths: list[int], data: st.DataObject
) -> None:
    batch = packed(seed, lengths)
    parts = data.draw(st.lists(st.integers(0, 2), min_size=len(lengths), max_size=len(lengths)))
    ids = batch.ids.unique().tolist()
    whole_gradient, whole_loss, whole_metrics = gradient_and_loss(name, batch)
    split = [
        batch.of_sequences([i for i, part in zip(ids, parts, strict=True) if part == p]) for p in range(3)
    ]
    results = [gradient_and_loss(name, part, normalizer=count(name, batch)) for part in split]

    assert close(torch.stack([loss for _, loss, _ in results]).sum(), whole_loss)
    for part, (gradient, _, _) in zip(split, results, strict=True):
        assert close(gradient, whole_gradient[torch.isin(batch.ids, part.ids)])
    merged = functools.reduce(add_metrics, (metrics for _, _, metrics in results))
    assert merged.keys() == whole_metrics.keys()
    for key, metric in merged.items():
        assert metric.mean == pytest.approx(whole_metrics[key].mean), key


@EVERY_LOSS
@given(seed=SEEDS, lengths=LENGTHS)
@settings(max_examples=8, deadline=None)
def test_the_order_of_tokens_does_not_matter(
    name: str, packed: Callable[..., Any], seed: int, lengths: list[int]
) -> None:
    batch = packed(seed, lengths)
    order = torch.randperm(batch.ids.numel(), generator=torch.Generator().manual_seed(seed))
    shuffled = type(batch)(**{key: getattr(batch, key)[order] for key in batch.__dataclass_fields__})
    gradient, loss, _ = gradient_and_loss(name, batch)
    shuffled_gradient, shuffled_loss, _ = gradient_and_loss(name, shuffled)
    assert close(loss, shuffled_loss)
    assert close(gradient[order], shuffled_gradient)


@EVERY_LOSS
def test_gradients_flow_through_the_trainer_alone(name: str, packed: Callable[..., Any]) -> None:
    batch = packed(seed=0, lengths=[4, 3]).with_gradient()
    others = [batch.inference, batch.advantages, batch.old, batch.reference]
    for tensor in others:
        tensor.requires_grad_()
    output = build_loss({"type": name, **EXTRAS})(
        *batch.inputs, old_logprobs_T=batch.old, reference_logprobs_T=batch.reference
    )
    output.loss.backward()
    assert batch.trainer.grad is not None
    assert all(tensor.grad is None for tensor in others)
    assert not any(m.total.requires_grad or m.count.requires_grad for m in output.metrics.values())


@EVERY_LOSS
@pytest.mark.parametrize("tokens", [0, 5])
def test_an_empty_mask_gives_zero_that_still_runs_backward(name: str, tokens: int) -> None:
    trainer = torch.full((tokens,), -1.0, requires_grad=True)
    nothing = torch.full((tokens,), float("nan"))
    loss, metrics = build_loss({"type": name})(
        trainer, nothing, nothing, torch.zeros(tokens), torch.zeros(tokens, dtype=torch.long)
    )
    assert loss.requires_grad and loss.item() == 0
    loss.backward()
    assert trainer.grad is not None
    assert trainer.grad.tolist() == [0.0] * tokens
    assert all(metric.mean == 0 and float(metric.count) == 0 for metric in metrics.values())


@EVERY_LOSS
@given(seed=SEEDS, lengths=LENGTHS, bad=st.sampled_from([float("nan"), float("inf"), float("-inf")]))
@settings(max_examples=8, deadline=None)
def test_tokens_without_a_finite_inference_logprob_are_dropped_and_counted(
    name: str, packed: Callable[..., Any], seed: int, lengths: list[int], bad: float
) -> None:
    batch = packed(seed, lengths)
    broken = torch.rand(batch.ids.numel(), generator=torch.Generator().manual_seed(seed)) < 0.3
    batch.inference[broken] = bad
    gradient, loss, metrics = gradient_and_loss(name, batch)
    assert torch.isfinite(loss) and torch.isfinite(gradient).all()
    assert not gradient[broken | ~batch.mask].any()
    assert float(metrics["dropped_nonfinite"].total) == int((broken & batch.mask).sum())
    assert float(metrics["dropped_nonfinite"].count) == int(batch.mask.sum())
    for metric in metrics.values():
        assert torch.isfinite(metric.total)


def test_a_dropped_token_still_counts_in_the_denominator() -> None:
    # Two tokens, one dropped, ratio and advantage 1: -trainer / 2 and not -trainer / 1.
    trainer = torch.tensor([-1.0, -2.0])
    inference = torch.tensor([-1.0, float("nan")])
    for name in ("importance_sampling", "cispo"):
        inputs = (trainer, inference, torch.ones(2), torch.ones(2), torch.zeros(2))
        assert build_loss({"type": name})(*inputs).loss.item() == pytest.approx(0.5)


@EVERY_LOSS
def test_what_stands_outside_the_mask_is_never_read(name: str, packed: Callable[..., Any]) -> None:
    batch = packed(seed=3, lengths=[5, 4])
    gradient, loss, _ = gradient_and_loss(name, batch)
    for field in ("trainer", "inference", "advantages", "old", "reference"):
        getattr(batch, field)[~batch.mask] = float("nan")
    again_gradient, again_loss, metrics = gradient_and_loss(name, batch)
    assert again_loss == loss
    assert torch.equal(again_gradient, gradient)
    assert all(torch.isfinite(metric.total) for metric in metrics.values())


@EVERY_LOSS
def test_equal_rewards_move_nothing(name: str, packed: Callable[..., Any]) -> None:
    batch = packed(seed=4, lengths=[5, 4]).with_gradient()
    trainer, inference, advantages, mask, ids = batch.inputs
    build_loss({"type": name})(trainer, inference, advantages * 0, mask, ids).loss.backward()
    assert not trainer.grad.any()


@EVERY_LOSS
def test_ratios_beyond_all_bounds_stay_finite(name: str) -> None:
    trainer = torch.tensor([0.0, -500.0, -1.0, -1.0], requires_grad=True)
    inference = torch.tensor([-500.0, 0.0, -1.0, -1.0])
    for sign in (1.0, -1.0):
        trainer.grad = None
        inputs = (trainer, inference, torch.full((4,), sign), torch.ones(4), torch.tensor([0, 1, 2, 3]))
        loss, metrics = build_loss({"type": name})(*inputs)
        loss.backward()
        assert trainer.grad is not None
        assert torch.isfinite(loss) and torch.isfinite(trainer.grad).all()
        assert all(torch.isfinite(metric.total) for metric in metrics.values())


@EVERY_LOSS
def test_half_precision_logprobs_are_computed_in_float32(name: str, packed: Callable[..., Any]) -> None:
    trainer, inference, advantages, mask, ids = packed(seed=5, lengths=[5, 4]).inputs
    leaf = trainer.to(torch.bfloat16).requires_grad_()
    loss, _ = build_loss({"type": name})(leaf, inference.to(torch.bfloat16), advantages, mask, ids)
    loss.backward()
    assert loss.dtype == torch.float32
    assert leaf.grad is not None
    assert leaf.grad.dtype == torch.bfloat16


@EVERY_LOSS
def test_the_normalizer_may_be_a_number_or_a_tensor(name: str, packed: Callable[..., Any]) -> None:
    batch = packed(seed=6, lengths=[5, 4])
    loss = build_loss({"type": name})
    two, six = (loss(*batch.inputs, normalizer=n).loss for n in (2, torch.tensor(6)))
    assert close(two, 3 * six)
    for bad in (-1, float("nan")):
        with pytest.raises(ValueError, match="normalizer"):
            loss(*batch.inputs, normalizer=bad)


def test_inputs_of_other_shapes_are_named(packed: Callable[..., Any]) -> None:
    trainer, inference, advantages, mask, ids = packed(seed=7, lengths=[5]).inputs
    with pytest.raises(ValueError, match=r"advantages_T has shape \(4,\)"):
        build_loss({})(trainer, inference, advantages[:4], mask, ids)
    with pytest.raises(ValueError, match="every input is"):
        build_loss({})(trainer[None], inference[None], advantages[None], mask[None], ids[None])


def test_a_penalty_needs_its_reference(packed: Callable[..., Any]) -> None:
    batch = packed(seed=8, lengths=[5])
    with pytest.raises(ValueError, match="reference_logprobs_T"):
        build_loss({"kl_coef": 0.1})(*batch.inputs)
