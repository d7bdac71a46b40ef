"""Does each engine apply the adapters that are published? Pure; `rezero_ray.training` feeds it after every step.

Engine and learner score the same probe under each version. A version is compared with the last one at which the
engine was seen to move (its reference), so movements that are too small to judge add up:

- the learner moved by no more than rounding: nothing can be said yet, the reference stays;
- the learner moved by more, and the engine by at least half as much: the version becomes the reference;
- the learner moved by more, and the engine did not: the publication was not applied.

In bfloat16 the first versions of a warm-up change no logprob of either side: B is as small as the learning rate, and
the engine adds its product to outputs that are already rounded.
"""

import math
from collections.abc import Mapping, Sequence
from enum import Enum

import msgspec

from rezero_ray.agreement import CLEAR
from rezero_ray.errors import RunError

RESOLUTION = {"float32": 2.0**-23, "bfloat16": 2.0**-7}
"""Distance of neighbouring numbers of a dtype, as a share of their size."""

SHARE_OF_TOKENS = 0.8
"""The size of a change is what this share of the tokens does not exceed. A few tokens that an expert's routing sends
elsewhere then make no movement, and tokens that are certain either way hide none."""


class Verdict(Enum):
    UNDECIDED = "the learner moved by no more than rounding"
    APPLIED = "the engine moved as the learner did"
    IGNORED = "the learner moved and the engine did not"


class Scored(msgspec.Struct, frozen=True):
    """Logprobs of the probe under one policy version, on the probe's scale, as both sides compute them."""

    version: int
    learner: Sequence[float]
    engine: Sequence[float]


class Movement(msgspec.Struct, frozen=True):
    """Of both sides since the reference, in nats a token; `rounding` is what the learner's has to exceed."""

    verdict: Verdict
    learner: float
    engine: float
    rounding: float


def judge_publication(reference: Scored, now: Scored, *, dtype: str) -> Movement:
    """Whether the engine applied what was published since `reference`.

    Rounding is `CLEAR` times what the two sides differ by at the reference, and at least the resolution of `dtype` at
    the size of the logprobs.
    """
    rounding = max(
        CLEAR * _size(_difference(reference.learner, reference.engine)),
        RESOLUTION[dtype] * _size(reference.learner),
    )
    learner = _size(_difference(now.learner, reference.learner))
    engine = _size(_difference(now.engine, reference.engine))
    if learner <= rounding:
        verdict = Verdict.UNDECIDED
    elif engine >= learner / 2:
        verdict = Verdict.APPLIED
    else:
        verdict = Verdict.IGNORED
    return Movement(verdict, learner, engine, rounding)


class PublicationWatch:
    """The reference of each engine. An engine's first scores are its reference."""

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype
        self._references: dict[int, Scored] = {}

    def published(
        self, version: int, learner: Sequence[float], engines: Mapping[int, Sequence[float]]
    ) -> dict[int, Movement]:
        """Judge `version` by the probe's logprobs of the learner and of each engine, by engine.

        Raises:
            RunError: an engine did not apply it, or a logprob is not finite.
        """
        _require_finite(learner, f"policy version {version}: the learner")
        found = {}
        for engine, scores in engines.items():
            _require_finite(scores, f"policy version {version}: engine {engine}")
            now = Scored(version, list(learner), list(scores))
            reference = self._references.setdefault(engine, now)
            movement = judge_publication(reference, now, dtype=self._dtype)
            if movement.verdict is Verdict.IGNORED:
                raise RunError("trust", _ignored(engine, version, reference.version, movement))
            if movement.verdict is Verdict.APPLIED:
                self._references[engine] = now
            found[engine] = movement
        return found


def _ignored(engine: int, version: int, since: int, movement: Movement) -> str:
    return (
        f"policy version {version} was published but the engine's logprobs did not change with it: since version "
        f"{since} those of the probe moved by {movement.engine:.1e} nats in engine {engine} and by "
        f"{movement.learner:.1e} in the learner (rounding: {movement.rounding:.1e}). Read the engine's log; --resume "
        "continues from the last checkpoint."
    )


def _require_finite(logprobs: Sequence[float], whose: str) -> None:
    if not all(math.isfinite(value) for value in logprobs):
        raise RunError("trust", f"{whose} gives a logprob of the probe that is not finite")


def _difference(after: Sequence[float], before: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(after, before, strict=True)]


def _size(values: Sequence[float]) -> float:
    ordered = sorted(abs(value) for value in values)
    return ordered[math.ceil(SHARE_OF_TOKENS * len(ordered)) - 1]
