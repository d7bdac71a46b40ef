"""One thing that cannot be done with a model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """What of the model is not supported, and what to do about it; `others` are config keys it depends on."""

    what: str
    remedy: str = "choose another model; the learner's logprobs would differ from the engine's"
    others: tuple[str, ...] = ()
