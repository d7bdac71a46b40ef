"""Claims about `TokenLogprobHead`: plain log_softmax in value and gradient, whatever the chunk."""

import pytest
import torch
from torch import Tensor, nn

from rezero_ray.learning.head import TokenLogprobHead

torch.set_num_threads(1)

POSITIONS, HIDDEN, VOCABULARY = 13, 16, 101


def inputs(seed: int = 0) -> tuple[Tensor, nn.Parameter, Tensor, Tensor]:
    """hidden [N, hidden], weight [vocabulary, hidden], targets [N], gradient of the logprobs [N]."""
    random = torch.Generator().manual_seed(seed)
    hidden = torch.randn(POSITIONS, HIDDEN, generator=random).requires_grad_()
    weight = nn.Parameter(
        torch.randn(VOCABULARY, HIDDEN, generator=random) * HIDDEN**-0.5, requires_grad=False
    )
    targets = torch.randint(VOCABULARY, (POSITIONS,), generator=random)
    return (
        hidden,
        nn.Parameter(weight, requires_grad=False),
        targets,
        torch.randn(POSITIONS, generator=random),
    )


def plain(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    logs = torch.log_softmax(hidden.double() @ weight.double().t() / temperature, dim=-1)
    return logs.gather(1, targets[:, None]).squeeze(1), -(logs.exp() * logs).sum(dim=-1)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
@pytest.mark.parametrize("chunk", [1, 4, POSITIONS, 1000])
def test_value_entropy_and_gradient_are_those_of_log_softmax(chunk: int, temperature: float) -> None:
    hidden, weight, targets, upstream = inputs()
    logprobs, entropies = TokenLogprobHead(weight, temperature=temperature, chunk=chunk)(hidden, targets)
    expected, expected_entropies = plain(hidden, weight, targets, temperature)
    torch.testing.assert_close(logprobs.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropies.double(), expected_entropies, rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad(logprobs, hidden, upstream)
    (expected_gradient,) = torch.autograd.grad(expected, hidden, upstream.double())
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-5)


def test_the_gradient_is_the_slope_of_the_value() -> None:
    # The logits are float32 whatever the input, so gradcheck's steps of 1e-6 would be lost in rounding.
    hidden, weight, targets, upstream = inputs()
    head = TokenLogprobHead(weight, temperature=0.7, chunk=5)
    direction = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1))
    step = 1e-2
    ahead, behind = (head(hidden.detach() + sign * step * direction, targets)[0] for sign in (1, -1))
    slope = ((ahead - behind) @ upstream) / (2 * step)
    (gradient,) = torch.autograd.grad(head(hidden, targets)[0], hidden, upstream)
    # The error of the central difference is of the order step^2, and so is the tolerance.
    torch.testing.assert_close((gradient * direction).sum(), slope, rtol=5e-3, atol=5e-3)


def test_the_entropy_carries_no_gradient_and_the_frozen_weight_gets_none() -> None:
    hidden, weight, targets, _ = inputs()
    logprobs, entropies = TokenLogprobHead(weight, temperature=1.0, chunk=4)(hidden, targets)
    assert not entropies.requires_grad
    logprobs.sum().backward()
    assert weight.grad is None


def test_without_a_gradient_to_come_nothing_is_kept() -> None:
    hidden, weight, targets, _ = inputs()
    logprobs, _ = TokenLogprobHead(weight, temperature=1.0, chunk=4)(hidden.detach(), targets)
    assert logprobs.grad_fn is None


def test_bfloat16_states_give_float32_logprobs_and_bfloat16_gradients() -> None:
    hidden, weight, targets, upstream = inputs()
    half = hidden.detach().bfloat16().requires_grad_()
    head = TokenLogprobHead(nn.Parameter(weight.bfloat16(), requires_grad=False), temperature=1.0, chunk=4)
    logprobs, entropies = head(half, targets)
    assert logprobs.dtype == entropies.dtype == torch.float32
    expected, _ = plain(half.detach(), head.weight.detach(), targets, 1.0)
    # Logits of magnitude up to 4 have a spacing of 2^-6 in bfloat16; a logprob is off by no more than that.
    assert (half.detach().float() @ head.weight.float().t()).abs().max() < 4
    torch.testing.assert_close(logprobs.double(), expected, rtol=0, atol=2**-6)
    (gradient,) = torch.autograd.grad(logprobs, half, upstream)
    assert gradient.dtype == torch.bfloat16


def test_no_position_at_all_is_fine() -> None:
    hidden, weight, targets, _ = inputs()
    logprobs, entropies = TokenLogprobHead(weight, temperature=1.0, chunk=4)(hidden[:0], targets[:0])
    assert logprobs.shape == entropies.shape == (0,)
