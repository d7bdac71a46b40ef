"""Which keyword arguments of an attention function the learner may ignore.

Transformers passes what a model's attention needs beyond queries, keys and values as keyword arguments: the
window, the soft cap, the sinks. `segment_attention` computes plain causal attention, so an argument that asks for
something else is an error. The table `_HARMLESS` says which values ask for nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

_HARMLESS: Mapping[str, Callable[[Any, int], bool]] = {
    "dropout": lambda value, longest: value == 0,
    "is_causal": lambda value, longest: value is True,
    "position_ids": lambda value, longest: (
        True
    ),  # already in the rotary embedding; the segments say who sees whom
    "cache_position": lambda value, longest: True,
    "use_cache": lambda value, longest: value is False,
    "output_attentions": lambda value, longest: value is False,
    "output_hidden_states": lambda value, longest: value is False,
    "output_router_logits": lambda value, longest: value is False,
    "deterministic": lambda value, longest: True,  # chooses a kernel of flash attention
    "sliding_window": lambda value, longest: value >= longest,
}
"""Name -> whether a value that is not None has no effect on sequences of at most `longest` tokens."""


def refuse_meaning(keywords: Mapping[str, Any], segments: Sequence[tuple[int, int, int, int]]) -> None:
    """Check the keyword arguments of one call of `segment_attention`.

    None always asks for nothing. `segments` are those of the call: the longest sequence is a segment with its
    prefix.

    Raises:
        TypeError: an argument asks for attention that the learner does not compute; the message names it.
    """
    given = {name: value for name, value in keywords.items() if value is not None}
    if not given:
        return
    longest = max((end - start + last - first for start, end, first, last in segments), default=0)
    for name, value in given.items():
        harmless = _HARMLESS.get(name)
        if harmless is None or not harmless(value, longest):
            shown = value if isinstance(value, bool | int | float | str) else type(value).__name__
            raise TypeError(
                f"the learner's attention does not compute {name} = {shown} "
                f"(longest sequence here: {longest} tokens): its logprobs would not be the model's"
            )
