"""Values and gradients of each loss on numbers small enough to work out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rezero_ray.losses import build_loss


def run(
    options: dict[str, Any], ratios: list[float], advantages: list[float], ids: list[int], **more: Any
) -> tuple[float, list[float], dict[str, float]]:
    """Loss, gradient and metric means where every trainer logprob is -1 and the ratios are as given."""
    trainer = torch.full((len(ratios),), -1.0, dtype=torch.float64, requires_grad=True)
    inference = -1.0 - torch.tensor(ratios, dtype=torch.float64).log()
    loss, metrics = build_loss(options)(
        trainer, inference, torch.tensor(advantages), torch.ones(len(ratios)), torch.tensor(ids), **more
    )
    loss.backward()
    assert isinstance(trainer.grad, Tensor)
    return loss.item(), trainer.grad.tolist(), {key: metric.mean for key, metric in metrics.items()}


def close(expected: list[float]) -> Any:
    return pytest.approx(expected, abs=1e-6)


def test_importance_sampling_is_the_detached_ratio_times_the_logprob() -> None:
    # -(r A) logp / 2 with logp = -1: (2 * 3 + 0.5 * -1) / 2; gradient -(r A) / 2
    loss, gradient, metrics = run({}, [2.0, 0.5], [3.0, -1.0], [0, 0])
    assert loss == pytest.approx((6 - 0.5) / 2)
    assert gradient == close([-3.0, 0.25])
    assert metrics["ratio/mean"] == pytest.approx(1.25)
    # mismatch exp(d) - d - 1 with d = log r
    expected = ((2 - math.log(2) - 1) + (0.5 + math.log(2) - 1)) / 2
    assert metrics["mismatch_kl"] == pytest.approx(expected)
    assert metrics["masked_fraction"] == 0


def test_the_token_mask_drops_single_tokens_and_keeps_their_count() -> None:
    # 9 > 8 and 0.1 < 0.125 go; the third token is divided by 3 all the same.
    loss, gradient, metrics = run({}, [9.0, 0.1, 1.0], [1.0, 1.0, 1.0], [0, 1, 2])
    assert loss == pytest.approx(1 / 3)
    assert gradient == close([0.0, 0.0, -1 / 3])
    assert metrics["masked_fraction"] == metrics["masked_fraction/token"] == pytest.approx(2 / 3)


def test_the_geometric_mask_drops_whole_sequences() -> None:
    # Geometric means: sequence 0 sqrt(4 * 1) = 2, out at 1.9; sequence 1 sqrt(3 * 1) = 1.73, in.
    options = {"geo_mask_low": 0.5, "geo_mask_high": 1.9}
    _, gradient, metrics = run(options, [4.0, 1.0, 3.0, 1.0], [1.0] * 4, [0, 0, 1, 1])
    assert gradient == close([0.0, 0.0, -0.75, -0.25])
    assert metrics["masked_fraction/geo"] == 0.5
    _, gradient, _ = run(options, [0.2, 1.0], [1.0] * 2, [0, 0])  # sqrt(0.2) = 0.447 < 0.5
    assert gradient == [0.0, 0.0]


def test_the_sequence_mask_drops_a_sequence_for_one_token() -> None:
    options = {"sequence_mask_low": 0.3, "sequence_mask_high": 5.0}
    ratios = [6.0, 1.0, 0.2, 1.0, 1.0, 1.0]  # all within the token mask
    _, gradient, metrics = run(options, ratios, [1.0] * 6, [0, 0, 1, 1, 2, 2])
    assert gradient == close([0.0, 0.0, 0.0, 0.0, -1 / 6, -1 / 6])
    assert metrics["masked_fraction/sequence"] == pytest.approx(4 / 6)
    assert metrics["masked_fraction/token"] == 0


def test_the_bounds_of_a_mask_are_inside_it() -> None:
    options = {"token_mask_low": 0.5, "token_mask_high": 2.0, "geo_mask_low": 0.0, "geo_mask_high": math.inf}
    trainer = torch.tensor([0.0, 0.0], requires_grad=True)
    half = torch.tensor([math.log(2.0), -math.log(2.0)])
    output = build_loss(options)(trainer, half, torch.ones(2), torch.ones(2), torch.tensor([0, 1]))
    assert torch.exp(-half).tolist() == [0.5, 2.0]
    assert output.metrics["masked_fraction"].mean == 0


# Sequences of 1 and 3 tokens. At A = 1 the first is clipped above; the last lies below, where min keeps it.
RATIOS = [1.5, 1.0, 1.1, 0.5]
SURROGATES = [1.2, 1.0, 1.1, 0.5]  # min(r, clip(r, 0.8, 1.2)) for A = 1
SLOPES = [0.0, 1.0, 1.1, 0.5]  # d r / d logp = r where not clipped
IDS = [0, 1, 1, 1]


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({"type": "grpo"}, [1 / 2, 1 / 6, 1 / 6, 1 / 6]),
        ({"type": "dapo", "clip_high": 0.2}, [1 / 4] * 4),
        ({"type": "dr_grpo", "constant_length": 10}, [1 / 20] * 4),
        ({"type": "dr_grpo"}, [1 / 2] * 4),
    ],
)
def test_the_clipped_losses_differ_in_their_average_alone(
    options: dict[str, Any], weights: list[float]
) -> None:
    loss, gradient, metrics = run(options, RATIOS, [1.0] * 4, IDS)
    assert loss == pytest.approx(-sum(w * s for w, s in zip(weights, SURROGATES, strict=True)))
    assert gradient == close([-w * s for w, s in zip(weights, SLOPES, strict=True)])
    assert metrics["clip_fraction"] == 0.25


def test_dapo_clips_wider_above_by_default() -> None:
    # 1.25 lies between 1 + 0.2 and 1 + 0.28.
    assert run({"type": "dapo"}, [1.25], [1.0], [0])[1] == close([-1.25])
    assert run({"type": "grpo"}, [1.25], [1.0], [0])[1] == [0.0]


def test_dual_clip_bounds_the_loss_of_a_negative_advantage() -> None:
    # Without: -min(5 * -1, 1.2 * -1) = 5, slope 5. With: at most 3, no slope. Positive advantages as before.
    loss, gradient, _ = run({"type": "grpo"}, [5.0], [-1.0], [0])
    assert loss == pytest.approx(5.0)
    assert gradient == close([5.0])
    loss, gradient, metrics = run({"type": "grpo", "dual_clip": 3.0}, [5.0, 1.0], [-1.0, 1.0], [0, 1])
    assert loss == pytest.approx((3.0 - 1.0) / 2)
    assert gradient == close([0.0, -0.5])
    assert metrics["clip_fraction"] == 0.5
    # Detached weights are bounded as well: gradient -(3 * -1).
    for name in ("importance_sampling", "cispo"):
        assert run({"type": name, "dual_clip": 3.0}, [5.0], [-1.0], [0])[1] == close([3.0])
        assert run({"type": name, "dual_clip": 3.0}, [5.0], [1.0], [0])[1] == close([-5.0])


def test_gspo_uses_the_geometric_mean_of_the_sequence() -> None:
    # s = sqrt(4 * 1) = 2 for both tokens, unclipped: loss -s, d s / d logp_t = s / 2 each.
    options = {"type": "gspo", "clip_low": 0.5, "clip_high": 1.5}
    loss, gradient, metrics = run(options, [4.0, 1.0], [1.0, 1.0], [0, 0])
    assert loss == pytest.approx(-2.0)
    assert gradient == close([-1.0, -1.0])
    assert metrics["ratio/mean"] == pytest.approx(2.0)
    # With the paper's narrow clip the same sequence is clipped at 1 + 4e-4.
    loss, gradient, metrics = run({"type": "gspo"}, [4.0, 1.0], [1.0, 1.0], [0, 0])
    assert loss == pytest.approx(-1.0004)
    assert gradient == [0.0, 0.0]
    assert metrics["clip_fraction"] == 1.0


def test_cispo_caps_the_weight_and_keeps_the_gradient() -> None:
    loss, gradient, metrics = run({"type": "cispo", "ratio_max": 2.0}, [6.0, 0.01], [1.0, 1.0], [0, 0])
    assert gradient == close([-1.0, -0.005])  # -min(r, 2) / 2
    assert loss == pytest.approx((2.0 + 0.01) / 2)
    assert metrics["clip_fraction"] == 0.5


def test_sapo_gates_by_the_sign_of_the_advantage() -> None:
    # At r = 1: sigmoid(0) = 1/2, so f = 2 / tau and d f / d logp = 4 * 1/4 * r = 1.
    options = {"type": "sapo", "tau_pos": 1.0, "tau_neg": 2.0}
    loss, gradient, _ = run(options, [1.0, 1.0], [1.0, -1.0], [0, 1])
    assert loss == pytest.approx((-2.0 + 1.0) / 2)
    assert gradient == close([-0.5, 0.5])
    # At r = 3, tau = 1: slope 4 s (1 - s) r with s = sigmoid(2).
    s = 1 / (1 + math.exp(-2))
    assert run(options, [3.0], [1.0], [0])[1] == close([-4 * s * (1 - s) * 3])


def test_the_truncated_weight_corrects_old_against_inference() -> None:
    # trainer == old, so r = 1; old / inference = 4 and 0.5, capped at 2.
    old = torch.full((2,), -1.0, dtype=torch.float64)
    for options in ({}, {"type": "dapo"}, {"type": "cispo"}):
        _, gradient, _ = run(options | {"tis_cap": 2.0}, [4.0, 0.5], [1.0] * 2, [0, 0], old_logprobs_T=old)
        assert gradient == close([-1.0, -0.25])
        _, gradient, metrics = run(options, [4.0, 0.5], [1.0] * 2, [0, 0], old_logprobs_T=old)
        assert gradient == close([-0.5, -0.5])
        assert metrics["ratio/mean"] == 1.0
        assert metrics["mismatch_kl"] > 0  # still against the inference engine


@pytest.mark.parametrize(
    ("estimator", "value", "slope"),
    [
        # d = trainer - reference = 0.5
        ("k1", 0.5, 1.0),
        ("k2", 0.125, 0.5),
        ("k3", math.exp(-0.5) + 0.5 - 1, 1 - math.exp(-0.5)),
    ],
)
def test_the_penalty_is_added_per_token(estimator: str, value: float, slope: float) -> None:
    reference = torch.tensor([-1.5], dtype=torch.float64)
    options = {"type": "dapo", "kl_coef": 0.1, "kl_estimator": estimator}
    loss, gradient, metrics = run(options, [1.0], [0.0], [0], reference_logprobs_T=reference)
    assert loss == pytest.approx(0.1 * value)
    assert gradient == close([0.1 * slope])
    assert metrics["kl"] == pytest.approx(value)


def test_the_penalty_is_reported_without_being_added() -> None:
    reference = torch.tensor([-1.5], dtype=torch.float64)
    loss, _, metrics = run({"type": "dapo"}, [1.0], [0.0], [0], reference_logprobs_T=reference)
    assert loss == 0
    assert metrics["kl"] > 0
    assert "kl" not in run({"type": "dapo"}, [1.0], [0.0], [0])[2]
