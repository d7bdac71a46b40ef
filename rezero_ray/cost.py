"""What an hour costs, and what a step and a run cost at that. Pure arithmetic."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple


class RatePart(NamedTuple):
    """Of what an hour costs so much: `4 H100`."""

    what: str
    usd_per_hour: float


@dataclass(frozen=True)
class Rate:
    """USD an hour of all that a run holds, at work or idle.

    `factor` multiplies the parts (a region that was asked for). `source` says where the figures come from.
    """

    parts: tuple[RatePart, ...]
    source: str
    factor: float = 1.0

    @property
    def usd_per_hour(self) -> float:
        return self.factor * sum(part.usd_per_hour for part in self.parts)


@dataclass(frozen=True)
class NoRate:
    """What an hour costs is not known. `why` is empty where nobody said that it costs anything."""

    why: str = ""


NO_RATE = NoRate()


def cost_lines(
    rate: Rate | NoRate, seconds_per_step: float | None, steps: int, start_up_seconds: float | None
) -> list[str]:
    """What the plan says of money, in lines to read; none where nobody said that an hour costs anything.

    Args:
        rate: of all that the run holds.
        seconds_per_step: forecast; None leaves only what an hour costs.
        steps: of the run.
        start_up_seconds: until the first step begins; None where that is not known.
    """
    if isinstance(rate, NoRate):
        return [f"cost: unknown: {rate.why}"] if rate.why else []
    lines = [f"cost: {dollars(rate.usd_per_hour)} an hour ({'; '.join(_origin(rate))})"]
    if seconds_per_step is not None:
        step = rate.usd_per_hour * seconds_per_step / 3600
        hours = (steps * seconds_per_step + (start_up_seconds or 0.0)) / 3600
        without = "" if start_up_seconds is not None else ", start-up not counted"
        lines += [
            f"cost of a step: {dollars(step)}",
            f"cost of the run: {dollars(rate.usd_per_hour * hours)} ({steps} steps in {hours:.3g} hours{without})",
        ]
    return lines


def dollars(usd: float) -> str:
    """To the cent, and small amounts to two digits."""
    return f"{usd:.2f} dollars" if usd >= 0.1 or usd == 0 else f"{usd:.2g} dollars"


def _origin(rate: Rate) -> Iterator[str]:
    if len(rate.parts) > 1 or rate.factor != 1:
        parts = ", ".join(f"{part.what} {part.usd_per_hour:.2f}" for part in rate.parts)
        yield parts + (f", all times {rate.factor:g} for the region" if rate.factor != 1 else "")
    yield rate.source
