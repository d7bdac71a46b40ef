"""What an hour of the container costs: of Modal itself, or of the dated table where Modal does not answer."""

import asyncio
import math
from collections.abc import Mapping

from infra.modal.client import modal_client
from infra.modal.prices import CPU, DATE, GPU_KEYS, MEMORY, USD_PER_HOUR, region_factor
from infra.modal.table import ModalInfraConfig
from rezero_ray.config import ConfigError
from rezero_ray.cost import NoRate, Rate, RatePart

SECONDS = 3.0
"""How long Modal is waited for; its client would try for a minute."""

ASKED = "Modal, asked now"


def rate(table: ModalInfraConfig) -> Rate | NoRate:
    """Of GPUs, cores and memory as requested: Modal bills what is requested, or used where that is more."""
    prices: Mapping[str, float]
    try:
        prices, source = _ask(), ASKED
    except _NoAnswerError as error:
        prices, source = USD_PER_HOUR, f"table of {DATE}, {error}"
    missing = _missing(table, prices)
    if missing and prices is not USD_PER_HOUR:
        prices, source = USD_PER_HOUR, f"table of {DATE}, Modal's answer has no {missing[0]}"
        missing = _missing(table, prices)
    if missing:
        return NoRate(f"no price of {missing[0]} ({source}); infra.usd_per_hour says what an hour costs")
    return Rate(_parts(table, prices), source, region_factor(table.region))


def _parts(table: ModalInfraConfig, prices: Mapping[str, float]) -> tuple[RatePart, ...]:
    name, count = table.gpus()
    gpus = [RatePart(f"{count} {name}", count * prices[GPU_KEYS[name]])] if count else []
    return (
        *gpus,
        RatePart(f"{table.cpu:g} cores", table.cpu * prices[CPU]),
        RatePart(f"{table.memory_gib:g} GiB", table.memory_gib * prices[MEMORY]),
    )


def _missing(table: ModalInfraConfig, prices: Mapping[str, float]) -> list[str]:
    name, count = table.gpus()
    wanted = [CPU, MEMORY, *([GPU_KEYS.get(name, name)] if count else [])]
    return [key for key in wanted if key not in prices]


class _NoAnswerError(Exception):
    """Why there is no answer, for the reader."""


def _ask() -> dict[str, float]:
    """Modal's present prices for this workspace: USD an hour of a unit, by Modal's names.

    Raises:
        _NoAnswerError: no client, no login, no network, or an answer that is none.
    """
    try:
        modal = modal_client()
    except ConfigError:
        raise _NoAnswerError("the package modal is not installed") from None

    async def answer() -> Mapping[str, object]:
        asking = modal.Workspace.from_context().billing.rates.aio()
        found: Mapping[str, object] = await asyncio.wait_for(asking, SECONDS)
        return found

    try:
        prices = {name: float(str(price)) for name, price in asyncio.run(answer()).items()}
    except modal.exception.AuthError:
        raise _NoAnswerError("Modal was not asked: no login") from None
    except TimeoutError:
        raise _NoAnswerError(f"Modal did not answer within {SECONDS:g} seconds") from None
    except (modal.exception.Error, OSError, ArithmeticError, ValueError) as error:
        raise _NoAnswerError(f"Modal does not say: {error}") from error
    wrong = [name for name, price in prices.items() if not 0 <= price < math.inf]
    if wrong:
        raise _NoAnswerError(f"Modal does not say: {wrong[0]} is {prices[wrong[0]]}")
    return prices
