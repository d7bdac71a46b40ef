"""Proof that the engine applies what the learner learned. Pure comparisons; `rezero_ray.training` feeds them.

vLLM ignores some adapters without a word (LoRA on `kv_b_proj` of MLA models), so nothing is taken for granted:
at the start each kind of target module is perturbed in turn, and after every publication the engine's logprobs
must move as the learner's do (`rezero_ray.publication`). Which logprobs may be compared: `rezero_ray.logprob_scale`.
"""

import math
from collections.abc import Sequence

import msgspec

from rezero_ray.errors import RunError

SMALLEST_MOVE = 1e-4
"""Mean absolute change of a logprob, in nats, below which a perturbation counts as ignored. The canary's noise
moves logprobs by 0.01 to several nats; an ignored module moves them by exactly 0."""

LARGEST_DISAGREEMENT = {"float32": 0.05, "bfloat16": 0.5}
"""Of the change that the learner sees, the part that the engine may miss or invent (root mean square)."""


CLEAR = 5.0
"""How many times larger than the rounding differences of the two sides a canary's effect has to be."""


class CanaryResult(msgspec.Struct, frozen=True):
    """One module's perturbation as the two sides saw it, in nats a token."""

    module: str
    learner_move: float
    engine_move: float
    disagreement: float


def judge_canary(
    module: str,
    *,
    learner_before: Sequence[float],
    learner_after: Sequence[float],
    engine_before: Sequence[float],
    engine_after: Sequence[float],
    dtype: str,
) -> CanaryResult:
    """Compare the change of logprobs that noise on `module` causes in the learner and in the engine.

    Raises:
        RunError: the engine ignores the module, or its change is not the learner's.
    """
    learner, engine = _difference(learner_after, learner_before), _difference(engine_after, engine_before)
    expected, missed = _root_mean_square(learner), _root_mean_square(_difference(engine, learner))
    result = CanaryResult(
        module=module,
        learner_move=_mean_absolute(learner),
        engine_move=_mean_absolute(engine),
        disagreement=missed / expected if expected else math.inf,
    )
    if result.learner_move < SMALLEST_MOVE:
        raise RunError("trust", f"canary: noise on {module!r} does not move the learner's logprobs")
    if result.engine_move < SMALLEST_MOVE:
        raise RunError(
            "trust",
            f"canary: the engine ignores the adapter on {module!r} (its logprobs moved by "
            f"{result.engine_move:.1e} nats, the learner's by {result.learner_move:.1e}). It would train and never "
            f"act. Take {module!r} out of trainer.model.lora.target_modules.",
        )
    if not result.disagreement <= LARGEST_DISAGREEMENT[dtype]:
        raise RunError(
            "trust",
            f"canary: with noise on {module!r} engine and learner disagree on {result.disagreement:.0%} of the "
            f"change of the logprobs (at most {LARGEST_DISAGREEMENT[dtype]:.0%} in {dtype}).",
        )
    return result


def stands_out(
    learner_before: Sequence[float], learner_after: Sequence[float], engine_before: Sequence[float]
) -> bool:
    """Whether the learner's change is `CLEAR` times what it and the engine differ by without any."""
    rounding = _root_mean_square(_difference(learner_before, engine_before))
    return _root_mean_square(_difference(learner_after, learner_before)) >= CLEAR * rounding


def mismatch_kl(trainer: Sequence[float], engine: Sequence[float]) -> float:
    """Mean over tokens of exp(d) - d - 1 with d = trainer - engine: the k3 estimate of their KL, in nats.

    d is cut at 20, which keeps the mean finite, and above any limit, where the engine says minus infinity.
    """
    differences = [min(t - e, 20.0) for t, e in zip(trainer, engine, strict=True)]
    return sum(math.exp(d) - d - 1 for d in differences) / len(differences)


def require_match(value: float, limit: float, when: str) -> None:
    """Raises:
    RunError: mismatch_kl is above the limit (`trust.max_mismatch_kl`) or not a number.
    """
    if not value <= limit:
        raise RunError(
            "trust",
            f"{when}: mismatch_kl between engine and learner is {value:.4f}, above trust.max_mismatch_kl = {limit}",
        )


def _difference(after: Sequence[float], before: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(after, before, strict=True)]


def _root_mean_square(values: Sequence[float]) -> float:
    return math.sqrt(sum(value * value for value in values) / len(values))


def _mean_absolute(values: Sequence[float]) -> float:
    return sum(abs(value) for value in values) / len(values)
