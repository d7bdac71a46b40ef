"""Claims about what an hour on Modal costs: as Modal answers its real client, or by the table, which then says so."""

import socket
import time
from pathlib import Path

import pytest

from infra.modal import rates
from infra.modal.prices import DATE, GPU_KEYS, USD_PER_HOUR, region_factor
from infra.modal.table import GPU_GIB
from infra.rates import rate_of
from rezero_ray.config import Config
from rezero_ray.config.loading import load_config
from rezero_ray.cost import NoRate, Rate
from tests.infra.modal.fake_control_plane import FakeControlPlane

REDTEAM = [Path("configs/redteam.toml"), Path("configs/overlays/modal.toml")]
TABLE_PRICE = 4 * 3.95 + 32 * 0.0473 + 256 * 0.008


def redteam(*flags: str) -> Config:
    return load_config(REDTEAM, flags)


def found(*flags: str) -> Rate:
    rate = rate_of(redteam(*flags).infra)
    assert isinstance(rate, Rate)
    return rate


def test_modal_is_asked_and_gpus_cores_and_memory_are_added_up(plane: FakeControlPlane) -> None:
    rate = found()
    assert rate.source == rates.ASKED
    assert [(part.what, pytest.approx(part.usd_per_hour)) for part in rate.parts] == [
        ("4 H100", 4 * 4.00),
        ("32 cores", 32 * 0.05),
        ("256 GiB", 256 * 0.01),
    ]
    assert rate.usd_per_hour == pytest.approx(16 + 1.6 + 2.56)
    assert plane.asked["WorkspaceBillingRates"] == 1


def test_a_region_multiplies_all_of_it(plane: FakeControlPlane) -> None:
    assert found("--infra.region", '["us-east"]').usd_per_hour == pytest.approx(1.75 * found().usd_per_hour)
    assert region_factor([]) == 1
    assert region_factor(["us-east", "eu"]) == 1.5


def test_a_cpu_run_pays_no_gpu(plane: FakeControlPlane) -> None:
    rate = found("--device", "cpu", "--infra.gpu", '""')
    assert [part.what for part in rate.parts] == ["32 cores", "256 GiB"]


def test_an_answer_without_the_gpu_leads_to_the_table_and_is_named(plane: FakeControlPlane) -> None:
    del plane.prices["gpu_hour_cost_h100"]
    rate = found()
    assert rate.source == f"table of {DATE}, Modal's answer has no gpu_hour_cost_h100"
    assert rate.usd_per_hour == pytest.approx(TABLE_PRICE)


@pytest.mark.parametrize("price", ["", "much", "NaN", "-1"])
def test_an_answer_that_is_no_number_leads_to_the_table(plane: FakeControlPlane, price: str) -> None:
    plane.prices["cpu_hour_cost"] = price
    assert found().source.startswith(f"table of {DATE}, Modal does not say")


def test_a_refusal_leads_to_the_table(plane: FakeControlPlane) -> None:
    plane.refused = "WorkspaceBillingRates"
    assert "WorkspaceBillingRates is refused" in found().source


def test_without_a_login_nothing_is_asked(plane: FakeControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    import modal

    def no_login(*_: object, **__: object) -> None:
        raise modal.exception.AuthError("Token missing")

    monkeypatch.setattr(modal.Workspace, "from_context", no_login)
    assert found().source == f"table of {DATE}, Modal was not asked: no login"


def test_a_modal_that_does_not_answer_is_waited_for_a_moment_only(
    plane: FakeControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, monkeypatch.context() as changes:
        changes.setattr("modal.client._Client._client_from_env", None)
        changes.setenv("MODAL_SERVER_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        rate = found()
    assert time.monotonic() - began < 2
    assert rate.source == f"table of {DATE}, Modal did not answer within 0.2 seconds"
    assert rate.usd_per_hour == pytest.approx(TABLE_PRICE)


def test_a_gpu_without_a_price_is_unknown_and_cannot_be_budgeted(
    plane: FakeControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    infra = redteam().infra
    assert infra.priced()
    monkeypatch.setitem(GPU_KEYS, "H100", "gpu_hour_cost_of_tomorrow")  # type: ignore[arg-type]
    assert not infra.priced()
    unknown = rate_of(infra)
    assert isinstance(unknown, NoRate)
    assert "no price of gpu_hour_cost_of_tomorrow" in unknown.why
    assert found("--infra.usd_per_hour", "9").source == "infra.usd_per_hour"


def test_every_gpu_that_can_be_rented_has_a_price_of_its_own_size() -> None:
    assert GPU_KEYS.keys() == GPU_GIB.keys()
    assert {GPU_KEYS[name] for name in GPU_GIB} <= USD_PER_HOUR.keys()
    assert GPU_KEYS["A100-40GB"] != GPU_KEYS["A100-80GB"]
