"""What the environments say of a rollout's length before anything is rolled out: tokens of a prompt, turns. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from rezero_ray.config import Config
from rezero_ray.preflight.environments import Looks, longest_in_tokens
from rezero_ray.preflight.foreign_environments import Seen

CHARACTERS_A_TOKEN = 4
"""Of a prompt, where the model's tokenizer is not here."""

EVERY = 8
"""Of the `LOOKED_AT` longest prompts each so-manieth is counted."""

LOOKED_AT = 256


@dataclass(frozen=True)
class Expected:
    """Tokens of a prompt, turns of a rollout at most (0 without a limit), and how the first were counted."""

    prompt: int
    turns: int
    words: str


def expected_lengths(config: Config, looks: Looks) -> Expected | None:
    """Of all environments, each in proportion to its weight; None where one of them was not seen, or its prompts are
    refused by the chat template. A prompt has the median of the longest ones: too many rather than too few tokens."""
    environments = config.orchestrator.env
    every = [looks.seen.get(index) for index in range(len(environments))]
    seen = [each for each in every if isinstance(each, Seen) and each.prompts]
    if len(seen) < len(environments):
        return None
    whole = sum(env.weight for env in environments)
    weights = [env.weight / whole for env in environments]
    try:
        tokens = [_tokens(looks.tokenizer, each.prompts[:LOOKED_AT:EVERY], each.tools) for each in seen]
    except ValueError:  # told by the preflight
        return None
    prompt = round(sum(weight * count for weight, count in zip(weights, tokens, strict=True)))
    unlimited = any(each.turns < 1 for each in seen)
    turns = round(sum(weight * each.turns for weight, each in zip(weights, seen, strict=True)))
    guess = "" if looks.tokenizer else f" ({CHARACTERS_A_TOKEN} characters each, for want of the tokenizer)"
    return Expected(prompt, 0 if unlimited else max(1, turns), f"prompts of {prompt} tokens{guess}")


def _tokens(tokenizer: Any, prompts: Sequence[Any], tools: Sequence[Any]) -> float:
    if tokenizer is None:
        return median(len(_text(prompt)) / CHARACTERS_A_TOKEN for prompt in prompts)
    return median(longest_in_tokens(tokenizer, [prompt], tools) for prompt in prompts)


def _text(prompt: str | Sequence[dict[str, Any]]) -> str:
    if isinstance(prompt, str):
        return prompt
    return "".join(str(message.get("content") or "") for message in prompt)
