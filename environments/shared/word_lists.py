"""Made-up names for generated tasks, split so that no held-out name occurs in training.

Nothing here refers to a real organisation or person; domains end in the reserved `.example`.
"""

import random
from functools import cache
from typing import Literal

Split = Literal["train", "eval"]

HELD_OUT_EVERY = 6
"""Each sixth name belongs to the held-out split, the others to training."""

_STEM_STARTS = (
    "Oak", "Bright", "Clear", "Silver", "North", "Green", "Stone", "Harbor", "Maple", "River",
    "Summit", "Cedar", "Golden", "Blue", "Winter", "Meadow", "Copper", "Sun", "Iron", "Willow",
)  # fmt: skip
_STEM_ENDS = (
    "line", "field", "gate", "point", "ford", "crest", "well", "brook", "haven", "mark", "vale",
)  # fmt: skip
_FIRST_NAMES = (
    "Ana", "Ben", "Cara", "Dan", "Elif", "Finn", "Gina", "Hugo", "Iris", "Jon", "Kim", "Leo", "Mia",
    "Nils", "Olga", "Paul", "Rosa", "Sam", "Tina", "Vera",
)  # fmt: skip
_BOT_NAMES = (
    "Milo", "Nova", "Pixel", "Echo", "Juno", "Orbit", "Fable", "Tango", "Comet", "Sage", "Bolt",
    "Luna", "Rusty", "Mint", "Argo", "Dot", "Kiwi", "Zuri", "Poppy", "Vega", "Clover", "Basil",
    "Onyx", "Piper",
)  # fmt: skip
_CODE_STARTS = (
    "amber", "velvet", "copper", "marble", "crimson", "hazel", "cobalt", "ivory", "saffron",
    "indigo", "scarlet", "walnut", "lunar", "frosty", "misty", "rustic", "golden", "silent",
)  # fmt: skip
_CODE_ENDS = (
    "falcon", "lantern", "badger", "thistle", "anchor", "pebble", "comet", "orchid", "puffin",
    "kettle", "maple", "otter", "compass", "turnip", "walrus", "feather", "bramble", "teapot",
)  # fmt: skip
_HOST_NAMES = (
    "ash", "elm", "oak", "pine", "birch", "cedar", "maple", "alder", "rowan", "willow", "hazel", "beech",
    "robin", "wren", "lark", "heron", "crane", "finch", "raven", "eagle", "hawk", "swan", "gull", "owl",
    "otter", "fox", "wolf", "bear", "lynx", "seal", "hare", "deer", "moose", "badger", "mole", "bison",
    "trout", "salmon", "cod", "pike", "perch", "carp", "tuna", "shark", "whale", "squid", "crab", "eel",
    "iron", "gold", "zinc", "lead", "copper", "silver", "cobalt", "nickel", "chrome", "tin", "radon", "neon",
    "mars", "venus", "pluto", "titan", "saturn", "orion", "vega", "rigel", "comet", "nova", "luna", "io",
)  # fmt: skip


def _belongs(index: int, split: Split) -> bool:
    return (index % HELD_OUT_EVERY == 0) == (split == "eval")


def organisation_stem(rng: random.Random, split: Split) -> str:
    """A name such as "Oakline"; the two splits never share one."""
    return rng.choice(_organisation_stems(split))


@cache
def _organisation_stems(split: Split) -> list[str]:
    stems = [start + end for start in _STEM_STARTS for end in _STEM_ENDS]
    return [stem for index, stem in enumerate(stems) if _belongs(index, split)]


def code_word(rng: random.Random, split: Split) -> str:
    """A harmless secret such as "amber-falcon"; the two splits never share one."""
    words = [f"{start}-{end}" for start in _CODE_STARTS for end in _CODE_ENDS]
    return rng.choice([word for index, word in enumerate(words) if _belongs(index, split)])


def host_names(rng: random.Random, split: Split, count: int) -> list[str]:
    """Different names of machines such as "heron"; the two splits never share one."""
    return rng.sample([name for index, name in enumerate(_HOST_NAMES) if _belongs(index, split)], count)


def first_name(rng: random.Random) -> str:
    """A first name for a mail's reader."""
    return rng.choice(_FIRST_NAMES)


def bot_name(rng: random.Random) -> str:
    """A name for a chat bot."""
    return rng.choice(_BOT_NAMES)
