"""Which prompts a step sees: a pure function of the seed and the position."""

import random
from collections.abc import Mapping

import msgspec

from rezero_ray.records import Prompt


class SamplerState(msgspec.Struct, frozen=True):
    """Prompts handed out so far, in all and per environment. Enough to resume exactly where a run stopped."""

    position: int
    taken: dict[str, int]


class PromptSampler:
    """Hands out prompts in a seeded order: environments by weight, each one's examples shuffled every epoch."""

    def __init__(self, sizes: Mapping[str, int], weights: Mapping[str, float], *, seed: int) -> None:
        """
        Args:
            sizes: number of examples of each environment.
            weights: relative share of the prompts of each environment.
            seed: of the run.
        Raises:
            ValueError: an environment without examples.
        """
        empty = [name for name, size in sizes.items() if size < 1]
        if empty:
            raise ValueError(f"environment {empty[0]!r} has no training examples")
        self._sizes = dict(sizes)
        self._weights = {name: weights[name] for name in sizes}
        self._seed = seed
        self._position = 0
        self._taken = dict.fromkeys(sizes, 0)
        self._orders: dict[tuple[str, int], list[int]] = {}

    @property
    def state(self) -> SamplerState:
        return SamplerState(position=self._position, taken=dict(self._taken))

    def restore(self, state: SamplerState) -> None:
        """Resume from `state`; the environments keep its order.

        Raises:
            ValueError: the state has other environments.
        """
        if set(state.taken) != set(self._sizes):
            raise ValueError(
                f"the checkpoint's environments are {sorted(state.taken)}, not {sorted(self._sizes)}"
            )
        self._sizes = {name: self._sizes[name] for name in state.taken}
        self._position, self._taken = state.position, dict(state.taken)

    def take(self, count: int) -> list[Prompt]:
        """Return the next `count` prompts."""
        return [self._next() for _ in range(count)]

    def _next(self) -> Prompt:
        index = self._position
        names = list(self._sizes)
        draw = random.Random(f"{self._seed}/environment/{index}")
        name = draw.choices(names, [self._weights[n] for n in names])[0]
        epoch, offset = divmod(self._taken[name], self._sizes[name])
        self._position += 1
        self._taken[name] += 1
        return Prompt(index=index, environment=name, example=self._order(name, epoch)[offset])

    def _order(self, name: str, epoch: int) -> list[int]:
        if (name, epoch) not in self._orders:
            order = list(range(self._sizes[name]))
            random.Random(f"{self._seed}/{name}/{epoch}").shuffle(order)
            self._orders = {key: value for key, value in self._orders.items() if key[0] != name}
            self._orders[name, epoch] = order
        return self._orders[name, epoch]


def require_same_sizes(before: Mapping[str, int], now: Mapping[str, int]) -> None:
    """
    Raises:
        ValueError: an environment has another number of examples, so a position among them has no meaning.
    """
    for name, size in before.items():
        if now.get(name, size) != size:
            raise ValueError(f"environment {name!r} had {size} training examples and has {now[name]}")


def sampling_seed(
    run_seed: int, prompt_index: int, rollout: int, turn: int, model: str = "", *, attempt: int = 1
) -> int:
    """Seed of one completion: the same attempt at the same prompt of the same run is sampled the same way after a
    restart, and another attempt in another way: what broke the first one may be what the policy wrote.

    `model` names one beside the policy, whose seeds are others.
    """
    behind = f"/{model}" if model else ""
    if attempt > 1:
        behind += f"/attempt {attempt}"
    return random.Random(f"{run_seed}/{prompt_index}/{rollout}/{turn}{behind}").getrandbits(31)
